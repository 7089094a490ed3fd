"""The H&E in a registration: its nuclei on a raster of about 1.5 µm, and its move under the cells.

Floor 7, above evaluation. Used by pp/_align_he, pp/_find_nuclei, pp/_qc_alignment, pp/_registration_fits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from spatialdata.transformations import Affine, get_transformation, set_transformation

from spatialsig import _keys
from spatialsig.data.level_pixels import check_shown
from spatialsig.data.patches import image_levels
from spatialsig.data.pyramid import level_corner
from spatialsig.errors import AlignmentError, StoreError
from spatialsig.slide.coordinates import XY, image_of
from spatialsig.stats.registration import haematoxylin, nuclear_contrast
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.parts import commit_transformations
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.patches import ImageLevel
    from spatialsig.slide.slides import Slide
    from spatialsig.stats.registration import Raster

PITCH_UM = 1.5  # nuclei of 6 um and more are seen, and a slide of 1 cm fits into memory
MAX_PX = 30_000_000  # a larger raster becomes coarser
STRIP_PX = 8_000_000  # decoded at once


class NucleiRasters:
    """Rasters of one image for different beliefs about its pixel size; what was read is kept."""

    def __init__(self, slide: Slide, image_key: str) -> None:
        self._levels = image_levels(slide.sdata, image_key)
        self._name = f"slide {slide.name!r}: image {image_key!r}"
        self._stains: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._rasters: dict[tuple[int, int, float], Raster] = {}
        self._checked: set[int] = set()
        self._origins: dict[int, NDArray[np.float64]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width at full resolution, px."""
        return self._levels[0].shape

    def at(self, um_per_px: float) -> tuple[Raster, NDArray[np.float64], NDArray[np.float64]]:
        """Raster if a full-resolution pixel measures ``um_per_px``.

        Also the full-resolution px (x, y) of its corner, and how many of them (x, y) make one of its own.
        """
        level, factor = self._choose(um_per_px)
        scale = np.array(self._levels[level].downsample[::-1]) * factor
        key = (level, factor, round(um_per_px, 9))
        if key not in self._rasters:
            stain, density = self._stain(level, factor)
            self._rasters[key] = nuclear_contrast(stain, density, um_per_px=um_per_px * float(scale.mean()))
        if level not in self._origins:
            self._origins[level] = np.array(level_corner(self._levels[0], self._levels[level])[::-1])
        return self._rasters[key], self._origins[level], scale

    def near(
        self, um_per_px: float, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[Raster, NDArray[np.float64], NDArray[np.float64]] | None:
        """As :meth:`at`, of the window between two full-resolution px (x, y) alone; None where that lies off the image."""
        level, factor = self._choose(um_per_px)
        scale = np.array(self._levels[level].downsample[::-1]) * factor
        origin = np.array(level_corner(self._levels[0], self._levels[level])[::-1])
        limit = np.array(self._levels[level].shape[::-1]) // factor
        first, last = (
            np.clip(edge, 0, limit).astype(np.int64) for edge in ((low - origin) / scale, (high - origin) / scale)
        )
        last = np.minimum(last + 1, limit)
        if (last <= first).any():
            return None
        stain, density = read_stain(self._levels[level], factor, name=self._name, window=(first, last))
        raster = nuclear_contrast(stain, density, um_per_px=um_per_px * float(scale.mean()))
        return raster, origin + first * scale, scale

    def _choose(self, um_per_px: float) -> tuple[int, int]:
        """Coarsest level that is fine enough, and how many of its px become one."""
        sizes = [um_per_px * max(level.downsample) for level in self._levels]
        fine = [i for i, size in enumerate(sizes) if size <= PITCH_UM * 1.1]
        level = max(fine, key=lambda i: sizes[i], default=int(np.argmin(sizes)))
        factor = max(1, round(PITCH_UM / sizes[level]))
        height, width = self._levels[level].shape
        while (height // factor) * (width // factor) > MAX_PX:
            factor += 1
        if level not in self._checked:
            check_shown(self._levels, level, name=self._name)
            self._checked.add(level)
        return level, min(factor, height, width)

    def _stain(self, level: int, factor: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if (level, factor) not in self._stains:
            self._stains[level, factor] = read_stain(self._levels[level], factor, name=self._name)
        return self._stains[level, factor]


def _open(level: ImageLevel) -> Any:
    return zarr.open_array(level.pixels, mode="r") if isinstance(level.pixels, Path) else level.pixels


def read_stain(
    level: ImageLevel, factor: int, *, name: str, window: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Haematoxylin and optical density of a level or of a window (first and last x, y), means of ``factor`` x ``factor`` px."""
    height, width = (edge // factor for edge in level.shape)
    (left, top), (right, bottom) = ((0, 0), (width, height)) if window is None else window
    stain, density = (np.empty((bottom - top, right - left), np.float32) for _ in range(2))
    rows = max(1, STRIP_PX // (level.shape[1] * factor))
    try:
        pixels = _open(level)
        for start in range(top, bottom, rows):
            stop = min(start + rows, bottom)
            with decoding(lambda: sources_of(pixels)):
                strip = np.asarray(pixels[:, start * factor : stop * factor, left * factor : right * factor])
            blocks = strip.reshape(3, stop - start, factor, right - left, factor)
            rgb = blocks[:, :, 0, :, 0] if factor == 1 else blocks.mean(axis=(2, 4), dtype=np.float32).round()
            into = slice(start - top, stop - top)
            stain[into], density[into] = haematoxylin(np.moveaxis(rgb, 0, -1).astype(np.uint8))
    except StoreError:
        raise
    except (ValueError, OSError) as error:
        msg = f"{name} cannot be read: {error}"
        raise StoreError(msg) from error
    return stain, density


def refuse_patches(slide: Slide, image_key: str) -> None:
    """Raise :class:`AlignmentError` if patches were cut: they, their cells and labels belong to the old alignment."""
    recorded = slide.attrs.get("patches", {})
    cut = [key for key, spec in recorded.items() if spec["image_key"] == image_key and key in slide.sdata.shapes]
    if cut:
        where = "" if slide.path is None else f" and sdata.delete_element_from_disk({cut[0]!r})"
        msg = (
            f"slide {slide.name!r}: patches {cut} were cut with the alignment that image {image_key!r} has now, and their "
            f"cells and labels follow from it. Align first: del sdata[{cut[0]!r}]{where}, align the image, then call "
            f"`sp.pp.make_patches` and the steps after it again."
        )
        raise AlignmentError(msg)


def place_image(slide: Slide, image_key: str, matrix: NDArray[np.float64]) -> None:
    """Set the affine ``(3, 3)`` from image pixels to ``global``, in memory and in the store."""
    image = image_of(slide, image_key)
    affine = Affine(matrix, input_axes=XY, output_axes=XY)
    set_transformation(image, affine, to_coordinate_system=_keys.GLOBAL)
    if slide.path is not None:
        commit_transformations(slide.path, image_key, get_transformation(image, get_all=True))
