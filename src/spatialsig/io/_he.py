"""Read an H&E that has no cells measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Identity

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig._errors import InputError
from spatialsig.io._elements import assemble, warn_pixel_size
from spatialsig.io._pixels import open_rgb
from spatialsig.store.commit import check_target

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read_he(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    sample: str | None = None,
    patient: str | None = None,
    image_key: str = _keys.IMAGE,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Read an H&E image for inference.

    Parameters
    ----------
    path
        OME-TIFF, TIFF or SVS (read tile by tile), PNG or JPEG; 8-bit RGB.
    um_per_px
        Micrometres per full-resolution px; by default as the file says (OME-XML, Aperio, TIFF resolution).
    sample, patient
        Names of the slide and of its patient; by default the file's name, and the sample's.
    image_key
        Name of the image.
    out, overwrite
        Stream the image into a new store there (replacing one); otherwise it stays lazy in the file.

    Returns
    -------
    Object with ``images[image_key]``, ``(c, y, x)`` uint8 RGB, multi-scale, whose px are the unit of ``global``, and
    ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``.

    Raises
    ------
    FileMissingError
        If there is no such file.
    InputError
        If the image is not 8-bit RGB, is damaged, or its pixel size is neither given nor in the file.
    StoreError
        If ``out`` exists and ``overwrite`` is False.
    """
    path = Path(path)
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    file = open_rgb(path)
    if um_per_px is None and file.um_per_px is None:
        msg = (
            f"image {str(path)!r} does not say how large its pixels are; pass `um_per_px=` (um per full-resolution px)."
        )
        raise InputError(msg)
    warn_pixel_size(path, given=um_per_px, found=file.um_per_px)
    um = float(um_per_px if um_per_px is not None else file.um_per_px or np.nan)
    check_positive(um_per_px=um)
    sample = path.name.split(".")[0] if sample is None else sample
    attrs = {
        _keys.SAMPLE: sample,
        _keys.PATIENT: sample if patient is None else patient,
        "um_per_global_px": um,
        "source": {"reader": "read_he", "he_image": str(path.resolve())},
    }
    to_global = {_keys.GLOBAL: Identity()}
    return assemble(
        {}, file, to_global, attrs={_keys.NAMESPACE: attrs}, image_key=image_key, out=out, overwrite=overwrite
    )
