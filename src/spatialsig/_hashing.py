"""Content hashes: the same values give the same hash, on any machine and in any version."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def array_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the bytes and shapes of arrays, as hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def json_hash(value: object) -> str:
    """SHA-256 of a value as JSON, as hex digits; other things count as their text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
