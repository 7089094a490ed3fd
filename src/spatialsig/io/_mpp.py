"""Pixel size of an image of any SpatialData object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.slide.coordinates import image_um_per_px
from spatialsig.slide.slides import open_slides, slide_count

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData


def mpp(data: SpatialData | str | Path, *, image_key: str = _keys.IMAGE) -> float:
    """Compute the micrometres per full-resolution px of an image.

    Parameters
    ----------
    data
        One slide: an object, from any reader, or the path of its store.
    image_key
        Name of the image.

    Returns
    -------
    Edge of a px of the finest level, um: the scale of the image's transformation to ``global``, times the um per unit
    of ``global`` that ``attrs["spatialsig"]`` holds, or else that the shapes' transformation from um implies.

    Raises
    ------
    KeyMissingError
        If there is no such image.
    AlignmentError
        If the image has no transformation to ``global``, or nothing says how long its unit is.
    InputError
        If ``data`` holds more than one slide.

    Examples
    --------
    >>> import spatialsig as sp
    >>> round(sp.io.mpp(sp.datasets.toy(he_um_per_px=0.5, size_um=100)), 6)
    0.5
    """
    n_slides = slide_count(data)
    if n_slides != 1:
        msg = f"`data` holds {n_slides} slides; wanted one: call mpp with the path of each store."
        raise InputError(msg)
    return image_um_per_px(next(iter(open_slides(data))), image_key)
