"""Control genes that are about as highly expressed as those of a signature (Tirosh and others 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def control_genes(
    mean: NDArray[np.float64],
    members: NDArray[np.bool_],
    excluded: NDArray[np.bool_],
    *,
    n_bins: int,
    n_controls: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw control genes for each signature from the expression bins of its genes.

    Parameters
    ----------
    mean
        Mean expression of each gene, ``(n_genes,)``.
    members
        Genes of each signature, ``(n_genes, n_signatures)``.
    excluded
        Genes that are no controls, ``(n_genes,)``: on a targeted panel the genes of the other signatures would make up
        much of a bin, and the score of one signature would fall where another is high.
    n_bins
        Number of expression bins of about the same size.
    n_controls
        At most this many controls from every bin.
    rng
        Of the draw.

    Returns
    -------
    Weights ``(n_genes, n_signatures)``: ``1 / n`` at the ``n`` controls of a signature, so that their product with the
    expression is the mean of the controls. A bin without free genes takes those of the nearest bin.

    Raises
    ------
    InputError
        If every gene is excluded.
    """
    if excluded.all():
        msg = f"all {len(mean)} genes belong to a signature, so none is left as control; use `method='zscore'`."
        raise InputError(msg)
    bins = expression_bins(mean, n_bins)
    free = np.unique(bins[~excluded])
    weights = np.zeros(members.shape)
    for column in range(members.shape[1]):
        chosen: set[int] = set()
        for wanted in np.unique(bins[members[:, column]]):
            nearest = free[np.abs(free - wanted).argmin()]
            candidates = np.flatnonzero((bins == nearest) & ~excluded)
            chosen.update(rng.permutation(candidates)[:n_controls].tolist())
        weights[sorted(chosen), column] = 1 / max(len(chosen), 1)
    return weights


def expression_bins(mean: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Bin of each gene by the rank of its mean, ``(n_genes,)``, as scanpy's ``score_genes`` cuts them."""
    per_bin = max(int(np.round(len(mean) / (n_bins - 1))), 1)
    bins: NDArray[np.int64] = (rankdata(mean, method="min") // per_bin).astype(np.int64)
    return bins
