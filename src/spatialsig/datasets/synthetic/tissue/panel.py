"""The gene panel of the synthetic slides: real names and Ensembl ids, and one expression profile per cell type."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL_TYPES = (
    "Tumour",
    "T_cell",
    "B_cell",
    "Fibroblast",
    "SmoothMuscle",
    "Pericyte",
    "Endothelial",
    "Macrophage",
)
PROGRAMME_TYPE = "Tumour"  # the only type whose genes and nuclei follow the proliferation programme

# the profiles belong to the panel, not to a slide: their seed never changes
_PROFILE_SEED = 777


@dataclass(frozen=True)
class Panel:
    """Genes and the expression profile of each cell type.

    Attributes
    ----------
    genes, gene_ids
        Symbols and Ensembl ids, ``(n_genes,)``.
    custom
        Which genes come from the add-on rather than the predesigned panel, ``(n_genes,)``.
    programme
        Which genes follow the proliferation programme, ``(n_genes,)``.
    profiles
        Relative expression, ``(n_types, n_genes)``, rows in the order of :data:`CELL_TYPES`.
    signatures
        Gene lists by name; not every gene of a signature is on the panel.
    """

    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    custom: NDArray[np.bool_]
    programme: NDArray[np.bool_]
    profiles: NDArray[np.float64]
    signatures: dict[str, list[str]]

    def columns(self, signature: str) -> NDArray[np.int64]:
        """Columns of the genes of ``signature`` that are on the panel."""
        where = {gene: column for column, gene in enumerate(self.genes)}
        return np.array([where[gene] for gene in self.signatures[signature] if gene in where], dtype=np.int64)


def _marker_weights(rows: list[dict[str, str]]) -> NDArray[np.float64]:
    """Weight of each gene as a marker of each type, ``(n_types, n_genes)``; 0 for most.

    Only signature genes are owned. The others differ between types by a log-normal factor, so that an embedding made
    without the signature genes knows something of the scores, but not everything.
    """
    weights = np.zeros((len(CELL_TYPES), len(rows)))
    for column, row in enumerate(rows):
        for entry in filter(None, row["markers"].split(";")):
            name, weight = entry.split(":")
            weights[CELL_TYPES.index(name), column] = float(weight)
    return weights


def _profiles(weights: NDArray[np.float64], programme: NDArray[np.bool_]) -> NDArray[np.float64]:
    rng = np.random.default_rng(_PROFILE_SEED)
    n_types, n_genes = weights.shape
    leak = rng.gamma(0.6, 0.01, n_genes)
    strength = rng.gamma(4.0, 0.3, n_genes)
    housekeeping = rng.gamma(0.5, 0.06, n_genes) * np.exp(rng.normal(0, 0.4, (n_types, n_genes)))
    # other types divide too, but less than the tumour
    share = np.where(np.array(CELL_TYPES) == PROGRAMME_TYPE, 1.0, 0.25)[:, None]
    cycling = programme * rng.gamma(2.0, 0.1, n_genes) * share
    background = np.where(weights.any(axis=0) | programme, 0.0, housekeeping)
    profiles: NDArray[np.float64] = leak + weights * strength + background + cycling
    return profiles


@cache
def load_panel() -> Panel:
    """Read the panel that every synthetic slide carries."""
    room = files("spatialsig.datasets.synthetic.tissue")
    rows = list(csv.DictReader(room.joinpath("panel.csv").read_text(encoding="utf-8").splitlines()))
    programme = np.array([row["programme"] == "1" for row in rows])
    return Panel(
        genes=tuple(row["gene"] for row in rows),
        gene_ids=tuple(row["ensembl_id"] for row in rows),
        custom=np.array([row["source"] == "custom" for row in rows]),
        programme=programme,
        profiles=_profiles(_marker_weights(rows), programme),
        signatures=json.loads(room.joinpath("signatures.json").read_text(encoding="utf-8")),
    )
