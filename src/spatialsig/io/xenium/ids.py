"""Identifiers as text, however a file of a bundle stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_text(values: Any, *, name: str) -> NDArray[np.str_]:
    """Turn identifiers into str, whether they were stored as bytes, str or whole numbers.

    Raises
    ------
    InputError
        If bytes are no text; ``name`` says whose.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    try:
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist()], dtype=str)
    except UnicodeDecodeError as error:
        msg = f"{name!r} holds bytes that are no text ({error}): copy the file from the instrument again."
        raise InputError(msg) from error


def id_kind(dtype: pa.DataType) -> str:
    """Storage of the ids in a column of this type: ``integer``, ``bytes`` or ``text``."""
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "integer"
    text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype)
    return "text" if text else "bytes"
