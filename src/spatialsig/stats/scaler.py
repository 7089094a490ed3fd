"""The scaler of an embedding, told from another one by a hash, and the differences of two of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._hashing import content_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_SHOWN = 5


def scaler_hash(genes: Sequence[str], mean: NDArray[Any], std: NDArray[Any]) -> str:
    """SHA-256 of gene names, means and deviations in their order, as hex digits."""
    return content_hash([json.dumps(list(map(str, genes))), np.asarray(mean, "<f8"), np.asarray(std, "<f8")])


def scaler_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What tells two scalers apart, in words; empty where nothing does.

    Each is a mapping with ``genes``, ``mean`` and ``std`` in one order.
    """
    a, b = ([str(gene) for gene in record["genes"]] for record in (one, other))
    said = [
        f"{len(extra)} genes only in {name} ({', '.join(extra[:_SHOWN])})"
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
