"""Embeddings of several slides: made by one model, or not comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig.errors import InputError
from spatialsig.stats.scaler import scaler_differences

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALER_HASH, MODEL_HASH = "scaler_sha256", "model_sha256"


def check_one_embedding(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise unless the embeddings were made by the same autoencoder.

    Parameters
    ----------
    records
        For each slide (or model) what ``embed_cells`` kept: ``genes``, ``mean``, ``std``, ``scaler_sha256`` and
        ``model_sha256``. One without hashes (made elsewhere, or by an early version) is not judged.

    Raises
    ------
    InputError
        Naming two that differ, and listing how their scalers do.
    """
    hashed = [(name, record) for name, record in records.items() if record.get(MODEL_HASH)]
    for name, record in hashed[1:]:
        first, reference = hashed[0]
        if record[MODEL_HASH] == reference[MODEL_HASH]:
            continue
        if record[SCALER_HASH] == reference[SCALER_HASH]:
            differences = ["the weights (genes and scaler are the same)"]
        else:
            differences = scaler_differences(reference, record)
        msg = (
            f"the embeddings of {first!r} and {name!r} come from different autoencoders and do not compare. They differ "
            f"in {'; '.join(differences)}. Call `sp.tl.embed_cells` on all slides together, with one model, and "
            "`sp.tl.aggregate_patches` again."
        )
        raise InputError(msg)
