"""What the page of all slides shows of one: its H&E in a few hundred px, and the maps as one px per patch.

Floor 11, above report. Used by whole_slides/page, whole_slides/results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from spatialsig import _keys
from spatialsig._files import DECODING_ERRORS
from spatialsig.errors import StoreError
from spatialsig.pl.drawing.slide_panels import background
from spatialsig.slide.coordinates import full_resolution, image_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.io._scores import ScoredPatches

PICTURE, MAPS = "overview.webp", "maps.npz"
MAX_PX = 900  # longest edge of the picture
QUALITY = 80
MARGIN = 0.04  # around the patches, share of what they span


@dataclass(frozen=True)
class Maps:
    """Maps of a slide, and where they lie on its picture."""

    values: NDArray[np.float32]  # (h, w, n_signatures), NaN where there is no patch
    area: tuple[float, float, float, float]  # left, top, width, height of the maps, shares of the picture
    picture_um: tuple[float, float]  # width and height that the picture shows


def write_overview(folder: Path, patches: ScoredPatches) -> None:
    """Write the picture of the tissue under the patches, and the maps over it, without patches that fail quality control."""
    spec = patches.spec
    full = full_resolution(image_of(patches.slide, _keys.IMAGE))
    low, high = patches.origins.min(axis=0), patches.origins.max(axis=0) + spec.size_l0
    margin = MARGIN * float((high - low).max())
    (y0, x0), (y1, x1) = np.maximum(low - margin, 0), np.minimum(high + margin, (full.sizes["y"], full.sizes["x"]))
    image = image_of(patches.slide, _keys.IMAGE)
    shown = background(image, (x0, y0, x1, y1), slide=patches.slide.name, max_px=MAX_PX)
    Image.fromarray(shown.rgb).save(folder / PICTURE, quality=QUALITY, method=4)
    shapes = patches.slide.patches(_keys.PATCHES).shapes
    scores = np.array(patches.table.X, np.float32)
    if _keys.QC_PASS in shapes:  # what is blurred or inked is not shown as if it were a score
        scores[~shapes[_keys.QC_PASS].to_numpy(bool)] = np.nan
    values, (top, left) = patches.raster(scores)
    size, um = np.array(values.shape[:2]) * spec.stride_l0, spec.image_um_per_px
    x0, y0, x1, y1 = shown.box
    width, height = x1 - x0, y1 - y0
    area = ((left - x0) / width, (top - y0) / height, size[1] / width, size[0] / height)
    np.savez_compressed(folder / MAPS, values=values, area=np.array(area), picture_um=np.array([width, height]) * um)


def read_maps(folder: Path) -> Maps:
    """Maps as :func:`write_overview` left them; :class:`StoreError` if they are damaged."""
    try:
        with np.load(folder / MAPS, allow_pickle=False) as file:
            area, picture = (tuple(map(float, file[name])) for name in ("area", "picture_um"))
            return Maps(np.asarray(file["values"], np.float32), area, picture)  # type: ignore[arg-type]
    except DECODING_ERRORS as error:
        msg = f"{str(folder / MAPS)!r} cannot be read ({error}): remove the folder {str(folder)!r}, and predict its slide again."
        raise StoreError(msg) from error
