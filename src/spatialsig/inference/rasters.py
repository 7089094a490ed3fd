"""Maps of patches laid beside and over each other on one raster, an image element over the H&E.

Floor 5, above slide. Used by maps/dense, maps/signature_map, tl/_attention.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.array import from_array
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, Translation, get_transformation

from spatialsig.slide.coordinates import XY, image_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

IN_MEMORY = 2**28  # bytes of a raster; a larger one lies in a file that vanishes with it
COARSEST_PX = 256  # the pyramid ends at the first level that is no larger
CHUNK_PX = 512


class Raster:
    """Means of maps of patches: ``cells`` x ``cells`` px each, one px per cell of ``cell_l0`` level-0 px.

    Parameters
    ----------
    origins
        Top-left corners of the patches ``(n, 2)`` as y, x, level-0 px.
    names
        Channels.
    cell_l0, cells
        Edge of a cell, level-0 px, and cells along the edge of a patch.
    weights
        How much each cell of a patch counts where patches overlap, ``(cells, cells)``; all the same when None.
    multiple
        Height and width are multiples of that, so that levels of a pyramid lie where the first one lies.
    """

    def __init__(
        self, origins: NDArray[np.int64], names: tuple[str, ...], *, cell_l0: float, cells: int,
        weights: NDArray[Any] | None = None, multiple: int = 1,
    ) -> None:  # fmt: skip
        self.names, self.cells, self.cell_l0 = names, cells, cell_l0
        self.origin = origins.min(axis=0)  # y, x
        self.corner = np.rint((origins - self.origin) / cell_l0).astype(np.int64)
        shape = -(-(self.corner.max(axis=0) + cells) // multiple) * multiple
        self.weights = np.ones((cells, cells), np.float32) if weights is None else weights.astype(np.float32)
        self.total = _zeros((len(names), *shape.tolist()))
        self.weight = np.zeros(tuple(shape.tolist()), np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self.weight.shape
        return height, width

    def add(self, chosen: NDArray[np.int64], maps: NDArray[np.float32]) -> None:
        """Add maps ``(b, channels, cells, cells)`` of the patches ``chosen``."""
        for (y, x), values in zip(self.corner[chosen].tolist(), maps, strict=True):
            place = np.s_[y : y + self.cells, x : x + self.cells]
            self.total[:, *place] += values * self.weights
            self.weight[place] += self.weights

    def means(self, keep: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Means ``(channels, h, w)``, in place of the sums; NaN where no patch lies, and outside ``keep``."""
        known = self.weight > 0 if keep is None else (self.weight > 0) & keep
        for channel in self.total:
            with np.errstate(invalid="ignore"):
                channel[...] = np.where(known, channel / self.weight, np.float32(np.nan))
        return self.total

    def element(self, slide: Slide, image_key: str, *, keep: NDArray[np.bool_] | None = None, levels: int = 0) -> Any:
        """Image element in the frame of the H&E, with ``levels`` coarser ones, each half of the one before."""
        in_image = [Scale([self.cell_l0, self.cell_l0], axes=XY), Translation(self.origin[::-1].astype(float), axes=XY)]
        frames = get_transformation(image_of(slide, image_key), get_all=True)
        means = self.means(keep)
        return Image2DModel.parse(
            from_array(means, chunks=(-1, CHUNK_PX, CHUNK_PX)) if levels else means,  # type: ignore[no-untyped-call]
            dims=("c", "y", "x"),
            c_coords=list(self.names),
            transformations={name: Sequence([*in_image, frame]) for name, frame in frames.items()},
            scale_factors=[2] * levels or None,
        )


def n_levels(shape: tuple[int, int]) -> int:
    """Levels below one of ``shape``, at least one, so that the image is a multi-scale one."""
    return max(1, int(np.ceil(np.log2(max(shape) / COARSEST_PX))))


def _zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    if np.prod(shape, dtype=np.int64) * 4 <= IN_MEMORY:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps it open
        file.truncate(int(np.prod(shape, dtype=np.int64)) * 4)
        return np.memmap(file, np.float32, "r+", shape=shape)
