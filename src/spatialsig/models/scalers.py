"""Scalers of expression and of embeddings: checked, applied, and told apart.

Floor 2, above geometry, nn, signatures, stats, store. Used by 6 modules of labels, models, tl, train.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig._hashing import content_hash
from spatialsig.errors import InputError
from spatialsig.stats.expression import value_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from spatialsig.models.vit import SignatureViT

_SHOWN, _COMPARED = 10, 5  # names in one message
SCALER_HASH, MODEL_HASH = "scaler_sha256", "model_sha256"


def as_floats(values: Any, *, name: str) -> NDArray[np.float64]:
    """Values as an array of floats, or an :class:`InputError` that names the argument."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        msg = f"`{name}` must be numbers; got {np.asarray(values).dtype}."
        raise InputError(msg) from None


def check_scaler(genes: Sequence[str], mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
    """Raise :class:`InputError` unless genes are distinct and the scaler is finite, positive and as long."""
    if not genes or len(set(genes)) != len(genes):
        msg = f"`genes` must be distinct names, at least one; got {len(genes)}, {len(set(genes))} distinct."
        raise InputError(msg)
    if mean.shape != (len(genes),) or std.shape != (len(genes),):
        msg = f"`mean` {mean.shape} and `std` {std.shape} must both be ({len(genes)},), one for each of `genes`."
        raise InputError(msg)
    bad = [
        gene for gene, m, s in zip(genes, mean, std, strict=True) if not (np.isfinite(m) and np.isfinite(s) and s > 0)
    ]
    if bad:
        msg = f"scaler of {len(bad)} genes is not finite with a deviation above 0: {bad[:_SHOWN]}; leave them out."
        raise InputError(msg)


def check_same_genes(have: Sequence[str], want: Sequence[str], *, where: object) -> None:
    """Raise :class:`InputError` listing both sides unless two gene lists hold the same names."""
    extra, missing = sorted(set(have) - set(want)), sorted(set(want) - set(have))
    if extra or missing:
        msg = (
            f"{where}: made for other genes; {len(extra)} only in the model: {extra[:_SHOWN]}, "
            f"{len(missing)} only asked for: {missing[:_SHOWN]}."
        )
        raise InputError(msg)


def check_embedding(ae: NDArray[Any]) -> None:
    """Raise :class:`InputError` for an embedding that is masked, no floats, or infinite; NaN rows are missing ones."""
    infinite = int(np.isinf(np.asarray(ae)).sum()) if ae.dtype.kind == "f" else 0
    if np.ma.isMaskedArray(ae) or ae.dtype.kind != "f" or infinite:
        found = (
            "masked"
            if np.ma.isMaskedArray(ae)
            else f"infinite in {infinite} places"
            if infinite
            else f"of type {ae.dtype}"
        )
        msg = f"`ae` is {found}; wanted floats, with NaN rows where an embedding is missing."
        raise InputError(msg)


def standardised_embedding(ae: NDArray[Any], mean: NDArray[Any], std: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Embeddings ``(n, d)`` float32 on the scale of training, 0 where missing, and which rows are measured, ``(n,)``."""
    code = ((np.asarray(ae, np.float64) - mean) / std).astype(np.float32)
    present = np.isfinite(code).all(axis=1)
    return torch.from_numpy(np.where(present[:, None], code, np.float32(0))), torch.from_numpy(present)


def scaler_hash(genes: Sequence[str], mean: NDArray[Any], std: NDArray[Any]) -> str:
    """SHA-256 of gene names, means and deviations in their order, as hex digits."""
    return content_hash([json.dumps(list(map(str, genes))), np.asarray(mean, "<f8"), np.asarray(std, "<f8")])


def scaler_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What tells two scalers apart, in words; empty where nothing does.

    Each is a mapping with ``genes``, ``mean`` and ``std`` in one order.
    """
    a, b = ([str(gene) for gene in record["genes"]] for record in (one, other))
    said = [
        f"{len(extra)} genes only in {name} ({', '.join(extra[:_COMPARED])})"
        for name, extra in (("the first", sorted(set(a) - set(b))), ("the second", sorted(set(b) - set(a))))
        if extra
    ]
    if not said and a != b:
        said = ["the order of the genes"]
    place = {gene: i for i, gene in enumerate(b)}
    shared = [(i, place[gene]) for i, gene in enumerate(a) if gene in place]
    rows = np.array(shared, np.int64).reshape(-1, 2)
    for name in ("mean", "std"):
        x, y = np.asarray(one[name], np.float64)[rows[:, 0]], np.asarray(other[name], np.float64)[rows[:, 1]]
        apart = np.flatnonzero(x != y)
        if len(apart):
            worst = apart[np.abs(x - y)[apart].argmax()]
            gene = a[rows[worst, 0]]
            said.append(f"`{name}` of {len(apart)} genes (most in {gene}: {x[worst]:.4g} and {y[worst]:.4g})")
    return said


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


def check_counts(counts: sparse.csr_matrix, n_genes: int, measured: NDArray[np.bool_] | None) -> None:
    """Raise :class:`InputError` unless all values are raw counts of ``n_genes`` genes, some of which are ``measured``."""
    if counts.shape[1] != n_genes:
        msg = f"counts of {counts.shape[1]} genes; wanted the {n_genes} of this model (see `align_genes`)."
        raise InputError(msg)
    numbers = counts.dtype.kind in "iuf" and counts.dtype.itemsize <= 8
    whole, low, high = value_range(counts.data) if numbers else (False, np.nan, np.nan)
    if not (whole and low >= 0 and np.isfinite(high)):
        msg = f"counts of type {counts.dtype} hold values from {low:g} to {high:g}; wanted raw counts, whole numbers from 0."
        raise InputError(msg)
    if measured is not None and (measured.shape != (n_genes,) or measured.dtype != bool or not measured.any()):
        msg = f"`measured` {measured.shape} of {measured.dtype}, {int(np.sum(measured))} in all; wanted ({n_genes},) of bool, some True."
        raise InputError(msg)


def check_shapes(model: SignatureViT) -> None:
    """Refuse a model whose names and scales do not fit its network."""
    n, d = len(model.signatures), model.config.n_latent
    if n != model.config.n_targets or len(set(model.signatures)) != n:
        msg = f"{n} signatures {model.signatures[:8]} for `n_targets={model.config.n_targets}`; wanted distinct names."
        raise InputError(msg)
    for name, length in (("target_mean", n), ("target_std", n), ("ae_mean", d), ("ae_std", d)):
        array = getattr(model, name)
        if array.shape != (length,) or not np.isfinite(array).all() or (name.endswith("std") and (array <= 0).any()):
            msg = f"`{name}` of shape {array.shape} must be ({length},), finite, deviations above 0."
            raise InputError(msg)
