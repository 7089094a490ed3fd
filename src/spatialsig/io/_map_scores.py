"""One channel of a map of scores, as exports write it.

Floor 7, above evaluation. Used by io/_heatmap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.io._scores import one_slide
from spatialsig.slide.coordinates import any_image_of, full_resolution, image_of, image_um_per_px, placed
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data


@dataclass(frozen=True)
class ScoreRaster:
    """Values on a raster over the H&E."""

    values: NDArray[np.float32]  # (h, w), NaN where there is none
    um_per_px: float
    corner_um: NDArray[np.float64]  # y, x of the corner of the first px, from that of the H&E


def map_scores(data: Data, map_key: str, signature: str) -> ScoreRaster:
    """Channel ``signature`` of the map ``map_key`` of one slide."""
    slide = one_slide(data)
    made, fix = slide.attrs.get("signature_map", {}), "Call `sp.tl.signature_map` first."
    where = f"the maps that `sp.tl.signature_map` made on slide {slide.name!r}"
    check_key([key for key in made if key in slide.sdata.images], map_key, name="map_key", where=where, fix=fix)
    slide.lineage.check(map_key)
    level = full_resolution(any_image_of(slide, map_key))
    names = list(map(str, level.coords["c"].values))
    check_key(names, signature, name="signature", where=f"the channels of map {map_key!r} of slide {slide.name!r}")
    values = np.asarray(computed(level[names.index(signature)]), np.float32)
    if not np.isfinite(values).any():
        msg = f"slide {slide.name!r}: signature {signature!r} has no score anywhere on map {map_key!r}; there is nothing to draw."
        raise InputError(msg)
    image_key = str(made[map_key]["image_key"])
    image = placed(slide, image_of(slide, image_key), f"image {image_key!r}")
    to_image = np.linalg.inv(image) @ placed(slide, slide.sdata.images[map_key], f"map {map_key!r}")
    um = image_um_per_px(slide, image_key)
    return ScoreRaster(values, float(to_image[0, 0]) * um, to_image[:2, 2][::-1] * um)
