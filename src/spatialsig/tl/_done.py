"""What decides the result of a prediction, as hashes: to know a result that need not be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.data.patch_table import patch_origins_of, patch_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide


def fingerprint(
    slide: Slide,
    patches_key: str,
    embedding: NDArray[np.float32] | None,
    intervals: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Hashes of the patches (with their folds), of the embedding and of the intervals; empty for what is not used."""
    return {
        "patches_sha256": patches_hash(slide, patches_key),
        "embedding_sha256": "" if embedding is None else array_hash(embedding),
        "intervals_sha256": "" if intervals is None else json_hash(dict(intervals)),
    }


def patches_hash(slide: Slide, patches_key: str) -> str:
    """Hash of where the patches lie, how they are read, and which fold they belong to."""
    origins = array_hash(patch_origins_of(slide, patches_key))
    return json_hash(
        [origins, asdict(patch_spec(slide, patches_key)), slide.name, slide.patient, slide.attrs.get("split")]
    )


def array_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the bytes and shapes of arrays, as hex digits."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(str((array.shape, array.dtype.str)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def json_hash(value: object) -> str:
    """SHA-256 of a value as JSON, as hex digits; other things count as their text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
