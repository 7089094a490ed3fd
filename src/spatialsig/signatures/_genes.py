"""Genes behind scored signatures and behind embeddings, from what ``score_cells`` and ``embed_cells`` recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


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
