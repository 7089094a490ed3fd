"""Prediction intervals that a calibrated model carries: what is stored, and how it becomes bounds.

Floor 2, above geometry, nn, signatures, stats, store. Used by models/ensemble, models/vit, tl/_predict.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# one record per kind of input ("H&E", "H&E + X_ae"), since each makes errors of its own size
_NEEDED = {"coverage": float, "guarantee": str, "n_views": int, "scaled": bool, "width": list, "samples": list}


def checked_intervals(value: Any, signatures: Sequence[str], *, where: str) -> dict[str, Any] | None:
    """Intervals as read from a model directory.

    Parameters
    ----------
    value
        None, or a record per kind of input: ``coverage``, ``guarantee``, ``n_views``, ``scaled`` (whether ``width`` is
        in units of the model's own deviation), ``width`` (one per signature, None where it was not calibrated),
        ``samples``.
    signatures
        Names of the scores.
    where
        What was read, for errors.

    Raises
    ------
    InputError
        If the record is not complete.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        msg = f"{where}: `intervals` is {value!r}; wanted null or a record per kind of input."
        raise InputError(msg)
    for inputs, record in value.items():
        _check_record(record, signatures, where=f"{where}: the intervals of {inputs!r}")
    return dict(value)


def bounds(
    record: Mapping[str, Any], mean: NDArray[np.floating[Any]], std: NDArray[np.floating[Any]] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lower and upper end of the interval of every score, ``(n, n_signatures)`` float32; NaN where not calibrated.

    Raises
    ------
    InputError
        If the intervals are in units of a deviation that is not given.
    """
    width = np.array([np.nan if w is None else w for w in record["width"]], np.float64)
    if record["scaled"] and std is None:
        msg = "these intervals are multiples of the model's deviation, and the model gives none; calibrate it again."
        raise InputError(msg)
    half = width * std if record["scaled"] and std is not None else np.broadcast_to(width, mean.shape)
    return (mean - half).astype(np.float32), (mean + half).astype(np.float32)


def _check_record(record: Any, signatures: Sequence[str], *, where: str) -> None:
    found = record if isinstance(record, dict) else {}
    wrong = [name for name, kind in _NEEDED.items() if type(found.get(name)) is not kind]
    width = [] if "width" in wrong else [w for w in found["width"] if w is not None]
    if wrong or len(found["width"]) != len(signatures) or not all(_is_width(w) for w in width):
        msg = (
            f"{where} are damaged ({wrong or 'width'}); wanted {len(signatures)} widths. Call `sp.tl.calibrate` again."
        )
        raise InputError(msg)


def _is_width(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
