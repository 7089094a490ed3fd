"""Labels, embeddings and weights of the patches of several slides, joined into one array each.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource


def stacked(
    sources: Sequence[PatchSource], arrays: Sequence[NDArray[Any]], *, name: str, ndim: int
) -> NDArray[np.float32]:
    """Join one array per slide, ``(n_patches, ...)`` float32; the errors name the slide."""
    if len(arrays) != len(sources):
        msg = f"`{name}` holds {len(arrays)} arrays for {len(sources)} slides."
        raise InputError(msg)
    for source, array in zip(sources, arrays, strict=True):
        if array.ndim != ndim or len(array) != len(source) or array.shape[1:] != arrays[0].shape[1:]:
            msg = (
                f"slide {source.sample!r}: `{name}` of shape {array.shape}; wanted {len(source)} rows"
                f"{f' of {arrays[0].shape[1:]}' if ndim > 1 else ''}."
            )
            raise InputError(msg)
    stacked: NDArray[np.float32] = np.concatenate(arrays).astype(np.float32)
    if np.isinf(stacked).any():
        msg = f"`{name}` holds infinite values; use NaN for what was not measured."
        raise InputError(msg)
    return stacked


def checked_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``weight``, or raise :class:`InputError` unless it is finite, at least 0, and not all 0."""
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        msg = "`weights` must be finite, at least 0, and not all 0."
        raise InputError(msg)
    return weight
