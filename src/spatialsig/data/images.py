"""Image elements that can be an H&E: three 8-bit channels, red before green before blue, finest level first.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/pyramid, slide/coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.data.channels import channel_order
from spatialsig.errors import InputError
from spatialsig.store.layout import check_level_sizes, levels_of

if TYPE_CHECKING:
    from xarray import DataArray, DataTree


def check_rgb(element: DataArray | DataTree, image_key: str, *, slide: str | None = None) -> list[DataArray]:
    """Levels of an image, finest first, if it can be an H&E; the image, and the slide where given, are named otherwise.

    Raises
    ------
    InputError
        If it is not uint8 ``(c, y, x)`` of three channels, they are called something else than red, green and blue in
        this order, or a level is larger than the one before it or shows another part.
    """
    levels = levels_of(element)
    where = f"image {image_key!r}" if slide is None else f"slide {slide!r}: image {image_key!r}"
    _check_names(levels[0], where)
    for level in levels:
        if level.dims != ("c", "y", "x") or level.shape[0] != 3 or level.dtype != np.uint8:
            msg = (
                f"{where}: {level.dtype} {level.dims} of shape {level.shape}; wanted uint8 (c, y, x) with "
                f"3 channels. Convert it to 8-bit RGB first{_how(level)}."
            )
            raise InputError(msg)
    check_level_sizes([level.shape[1:] for level in levels], name=where)
    return levels


def _how(level: DataArray) -> str:
    """What that takes, where the array tells."""
    if level.dtype.kind == "f":
        return ": multiply by 255 if its values span 0 to 1, round, and call `.astype('uint8')`"
    n = level.sizes.get("c", 0)
    if n == 1:
        return ": a gray image has no stain colours, so give the colour scan of the H&E"
    return ": leave out the fourth channel with `image[:3]` if it is an opaque alpha" if n == 4 else ""


def _check_names(full: DataArray, where: str) -> None:
    if "c" not in full.coords:
        return
    names = [str(name).strip().lower() for name in full.coords["c"].values]
    order = channel_order(names, [None] * len(names), where=where)
    if order not in (None, [0, 1, 2]):
        msg = (
            f"{where} has channels {names}; wanted red, green and blue in this order: parse it again, with "
            f"`Image2DModel.parse(image.sel(c=[...]), ...)` of its finest level or with `c_coords=` as they really are."
        )
        raise InputError(msg)
