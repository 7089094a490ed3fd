"""Nuclei of an H&E, found by their haematoxylin.

Floor 7, above evaluation. Called as sp.pp.find_nuclei; used by cli/map_commands, maps/predict_cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field
from skimage.filters import threshold_otsu
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig._arguments import Key, NewKey, checked
from spatialsig._progress import progress_bar
from spatialsig.data.level_pixels import check_shown
from spatialsig.data.pyramid import image_levels, level_corner
from spatialsig.errors import InputError
from spatialsig.pp._elements import tissue_of
from spatialsig.pp._registration_image import read_stain
from spatialsig.slide.added import check_added
from spatialsig.slide.coordinates import image_of, image_um_per_px
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import pixels_of, place_of
from spatialsig.slide.slides import Data
from spatialsig.stats.nuclei import SURROUND_UM, nuclear_signal, nuclei_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.data.pyramid import ImageLevel
    from spatialsig.pp._segmentation import TissueMask
    from spatialsig.slide.slides import Slide

PITCH_UM = 0.75  # a lymphocyte is 8 px wide
TILE_PX = 1024
SAMPLED_TILES = 16  # that say where the threshold lies
LOWEST = 0.01  # haematoxylin above its surroundings that is none


@checked
def find_nuclei(
    data: Data,
    *,
    sensitivity: Annotated[float, Field(ge=0.2, le=5)] = 1.0,
    tissue_key: Key | None = None,
    image_key: Key = _keys.IMAGE,
    key_added: NewKey = _keys.NUCLEI,
) -> pd.DataFrame:
    """Find the nuclei of the H&E on tissue by their haematoxylin, where no segmentation is at hand.

    Haematoxylin [1]_, as :func:`qc_alignment` measures it, above what surrounds it, is cut at one threshold of the slide
    (Otsu's [2]_) and divided into basins around its peaks. That is enough to say where most nuclei lie; it is no
    segmentation: crowded nuclei are joined or split, outlines are circles of the right area. Bring your own (StarDist, Cellpose,
    LazySlide, the nuclei of Xenium) where you have one. The image is read tile by tile.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    sensitivity
        Above 1 finds paler nuclei, below 1 fewer: the threshold is divided by it.
    tissue_key
        Shapes or labels that say where tissue is, as for :func:`make_patches`.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; one of that name that this function made is replaced.

    Returns
    -------
    One row per slide: ``sample``, ``n_nuclei``, ``threshold``.

    Writes ``shapes[key_added]``, a circle per nucleus in H&E pixels with all transformations of the image, columns ``radius`` and
    ``area_um2``.

    Raises
    ------
    KeyMissingError
        If there is no such image or tissue.
    InputError
        If no nucleus is found.

    References
    ----------
    .. [1] Ruifrok AC, Johnston DA. Quantification of histochemical staining by color deconvolution. Analytical and
       Quantitative Cytology and Histology 23, 291-299 (2001). PMID 11531144
    .. [2] Otsu N. A threshold selection method from gray-level histograms. IEEE Transactions on Systems, Man, and
       Cybernetics 9, 62-66 (1979). https://doi.org/10.1109/TSMC.1979.4310076

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.find_nuclei(sdata)["n_nuclei"].item() > 500
    True
    """
    work = partial(_find, sensitivity=sensitivity, tissue_key=tissue_key, image_key=image_key, key_added=key_added)
    return pd.DataFrame(map_slides(data, work, "nuclei"), columns=["sample", "n_nuclei", "threshold"])


def _find(
    slide: Slide, *, sensitivity: float, tissue_key: str | None, image_key: str, key_added: str
) -> tuple[str, int, float]:
    check_added(slide, key_added, made_by="pp.find_nuclei")
    mask, used = tissue_of(slide, image_key, tissue_key)
    tiles = _Tiles(slide, image_key, mask)
    threshold = tiles.threshold() / sensitivity
    found = [tiles.nuclei(tile, threshold) for tile in tiles.each()]
    xy, area = (
        (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (np.empty((0, 2)), np.empty(0))
    )
    if not len(xy):
        msg = f"slide {slide.name!r}: no nucleus on image {image_key!r}; look at the image, or raise `sensitivity={sensitivity:g}`."
        raise InputError(msg)
    scan = image_um_per_px(slide, image_key)
    shapes = ShapesModel.parse(
        xy, geometry=0, radius=np.sqrt(area / np.pi) / scan,
        transformations=get_transformation(image_of(slide, image_key), get_all=True),
    )  # fmt: skip
    shapes[_keys.AREA_UM2] = area
    sources = [pixels_of(image_key), place_of(image_key), *([used] if used else [])]
    slide.put(key_added, shapes, made_by="pp.find_nuclei", sources=sources)
    return slide.name, len(xy), threshold


class _Tiles:
    """The image in tiles of about :data:`PITCH_UM`, each with a margin that the surroundings of its nuclei need."""

    def __init__(self, slide: Slide, image_key: str, tissue: TissueMask) -> None:
        self.name, self.tissue = f"slide {slide.name!r}: image {image_key!r}", tissue
        levels, scan = image_levels(slide.sdata, image_key), image_um_per_px(slide, image_key)
        sizes = [scan * max(level.downsample) for level in levels]
        fine = [number for number, size in enumerate(sizes) if size <= PITCH_UM * 1.1]
        number = max(fine, key=lambda one: sizes[one], default=0)
        check_shown(levels, number, name=self.name)
        self.level: ImageLevel = levels[number]
        self.factor = max(1, round(PITCH_UM / sizes[number]))
        self.um_per_px = sizes[number] * self.factor
        self.shape = tuple(edge // self.factor for edge in self.level.shape)
        self.corner = np.array(level_corner(levels[0], self.level)[::-1])  # x, y
        self.scale = np.array(self.level.downsample[::-1]) * self.factor  # level-0 px per px, x and y
        self.margin = int(np.ceil(3 * SURROUND_UM / self.um_per_px))
        self.title = f"nuclei {slide.name}"

    def each(self) -> Iterator[tuple[int, int]]:
        """Corners (y, x) of the tiles that hold tissue."""
        tiles = [
            (y, x)
            for y in range(0, self.shape[0], TILE_PX)
            for x in range(0, self.shape[1], TILE_PX)
            if self._on_tissue(
                *np.mgrid[y : min(y + TILE_PX, self.shape[0]) : 8, x : min(x + TILE_PX, self.shape[1]) : 8]
            ).any()
        ]
        with progress_bar(self.title, total=len(tiles), unit="tile") as bar:
            for tile in tiles:
                yield tile
                bar.advance(1)

    def threshold(self) -> float:
        """Otsu's threshold of the signal on the tissue of some tiles from all over the slide."""
        tiles = list(self.each())
        chosen = tiles[:: max(1, len(tiles) // SAMPLED_TILES)][: 2 * SAMPLED_TILES]
        values = []
        for tile in chosen:
            signal, (y, x) = self._signal(tile)
            rows, columns = np.mgrid[y : y + signal.shape[0], x : x + signal.shape[1]]
            values.append(signal[self._on_tissue(rows, columns)][::7])
        seen = np.concatenate(values) if values else np.empty(0)
        positive = seen[seen > 0]  # the other half is what surrounds
        return max(float(threshold_otsu(positive)), LOWEST) if len(positive) > 1 else LOWEST  # type: ignore[no-untyped-call]

    def nuclei(self, tile: tuple[int, int], threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Middles of the nuclei that lie in a tile and on tissue, level-0 px, and their areas, µm²."""
        signal, (top, left) = self._signal(tile)
        xy, area = nuclei_of(signal, threshold, um_per_px=self.um_per_px)
        xy += np.array([left, top])
        first = np.array(tile[::-1])
        own = ((xy >= first) & (xy < first + TILE_PX)).all(axis=1)
        own &= self._on_tissue(xy[:, 1], xy[:, 0])
        return self.corner + xy[own] * self.scale, area[own]

    def _signal(self, tile: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Signal of a tile with its margin, and the corner (y, x) of that."""
        (y, x), (height, width) = tile, self.shape
        first = np.maximum([x - self.margin, y - self.margin], 0)
        last = np.minimum([x + TILE_PX + self.margin, y + TILE_PX + self.margin], [width, height])
        stain, _ = read_stain(self.level, self.factor, name=self.name, window=(first, last))
        return nuclear_signal(stain, um_per_px=self.um_per_px), (int(first[1]), int(first[0]))

    def _on_tissue(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        """Which px lie on tissue."""
        column, row = ((self.corner[k] + at * self.scale[k]) / self.tissue.scale[1 - k] for k, at in enumerate((x, y)))
        height, width = self.tissue.mask.shape
        found: NDArray[np.bool_] = self.tissue.mask[
            row.astype(np.int64).clip(0, height - 1), column.astype(np.int64).clip(0, width - 1)
        ]
        return found
