"""Genes of each signature: those that a panel measures, whether they are enough, and those used in existing scores.

Floor 1, above the ground floor. Used by 7 modules of evaluation, inference, pl, referee, tl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from spatialsig.signatures._read import Genes


@dataclass(frozen=True)
class Coverage:
    """Conditions under which a signature counts as measured.

    Parameters
    ----------
    min_genes
        At least this many of its genes are on the panel (or all of them, for a shorter signature).
    min_fraction
        At least this share of its genes is on the panel.
    """

    min_genes: int = 3
    min_fraction: float = 0.5

    def reason(self, n_measured: int, n_genes: int) -> str:
        """Reason why a signature cannot be scored; empty if it can."""
        if n_measured < (least := min(self.min_genes, n_genes)):
            return f"{n_measured} genes measured, {least} wanted"
        if n_measured < self.min_fraction * n_genes:
            return f"{n_measured} of {n_genes} genes measured, {self.min_fraction:.0%} wanted"
        return ""


def measured_genes(signatures: Mapping[str, Genes], panels: Sequence[Sequence[str]]) -> dict[str, Genes]:
    """Genes of each signature that every one of ``panels`` measures: the same set on all slides of a cohort."""
    common = set(panels[0]).intersection(*panels[1:])
    found: dict[str, Genes] = {}
    for name, genes in signatures.items():
        measured = {gene: weight for gene, weight in weighted(genes).items() if gene in common}
        found[name] = measured if isinstance(genes, dict) else list(measured)
    return found


def weighted(genes: Genes) -> dict[str, float]:
    """Weights by gene; 1 for unweighted signatures."""
    return genes if isinstance(genes, dict) else dict.fromkeys(genes, 1.0)


def coverage_table(
    signatures: Mapping[str, Genes], panels: Sequence[Sequence[str]], *, coverage: Coverage
) -> pd.DataFrame:
    """One row per signature: number of genes, how many all ``panels`` measure, which are missing, the reason if NaN."""
    measured = measured_genes(signatures, panels)
    rows = [
        {
            "signature": name,
            "n_genes_panel": len(genes),
            "n_genes_measured": len(measured[name]),
            "missing": ", ".join(gene for gene in genes if gene not in set(measured[name])),
            "reason": coverage.reason(len(measured[name]), len(genes)),
        }
        for name, genes in signatures.items()
    ]
    return pd.DataFrame(rows).set_index("signature")


def overlap_matrix(signatures: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """Number of genes that each pair of signatures shares; the diagonal holds the sizes."""
    sets = [set(genes) for genes in signatures.values()]
    shared = [[len(a & b) for b in sets] for a in sets]
    return pd.DataFrame(shared, index=list(signatures), columns=list(signatures))


def weights(signatures: Mapping[str, Genes], genes: Sequence[str]) -> NDArray[np.float64]:
    """Weights ``(n_genes, n_signatures)`` of a mean: those of the genes over the sum of their sizes (``1 / n`` without any), else 0."""
    position = {gene: i for i, gene in enumerate(genes)}
    matrix = np.zeros((len(genes), len(signatures)))
    for column, members in enumerate(signatures.values()):
        own = {position[gene]: weight for gene, weight in weighted(members).items() if gene in position}
        if own:
            sizes = np.array(list(own.values()))
            matrix[list(own), column] = sizes / np.abs(sizes).sum()
    return matrix


def scored_genes(scored: Mapping[str, Any]) -> dict[str, list[str]]:
    """Genes that each signature is scored by; empty where the record does not say."""
    if "weights" not in scored:
        return {}
    genes, weights = np.asarray(scored["genes"]), np.asarray(scored["weights"])
    return {str(name): [str(gene) for gene in genes[weights[:, k] != 0]] for k, name in enumerate(scored["names"])}


def shared_genes(scored: Mapping[str, Any], embedded: Mapping[str, Any]) -> dict[str, list[str]]:
    """Genes of each signature that the embedding was made from too: through them it holds the answer."""
    seen = set(map(str, embedded.get("genes", ())))
    return {name: [gene for gene in genes if gene in seen] for name, genes in scored_genes(scored).items()}
