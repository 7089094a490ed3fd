"""Whether the embeddings of several slides were made by one model: vectors of different models do not compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig._errors import InputError
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
    known = [(name, record) for name, record in records.items() if record.get(MODEL_HASH)]
    for name, record in known[1:]:
        first, reference = known[0]
        if record[MODEL_HASH] == reference[MODEL_HASH]:
            continue
        if record[SCALER_HASH] == reference[SCALER_HASH]:
            said = ["the weights (genes and scaler are the same)"]
        else:
            said = scaler_differences(reference, record)
        msg = (
            f"the embeddings of {first!r} and {name!r} come from different autoencoders and do not compare. They differ "
            f"in {'; '.join(said)}. Call `sp.tl.embed_cells` on all slides together, with one model, and "
            "`sp.tl.aggregate_patches` again."
        )
        raise InputError(msg)
