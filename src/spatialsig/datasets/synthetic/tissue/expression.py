"""Gene panel of the synthetic slides (real names, planted profiles), and counts with the noise of a Xenium run.

Floor 8, above io, pl, pp, tl. Used by 11 modules of datasets.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.tissue.grow import Tissue

CELL_TYPES = ("Tumour", "T_cell", "B_cell", "Fibroblast", "SmoothMuscle", "Pericyte", "Endothelial", "Macrophage")
PROGRAMME_TYPE = "Tumour"  # the only type whose genes and nuclei follow the proliferation programme
# the profiles belong to the panel, not to a slide: their seed never changes
_PROFILE_SEED = 777
NB_THETA = 1.5
LIBRARY_SD = 0.45
AMBIENT_SHARE = 0.02
SPILL_SHARE = 0.05
CONTROL_RATE = 0.0037  # counts per control probe and cell
_SLIDE_GENE_SD = 0.12
_N_PROBES, _N_CODEWORDS, _N_UNASSIGNED = 20, 41, 60


@dataclass(frozen=True)
class Panel:
    """Genes and the expression profile of each cell type."""

    # symbols and Ensembl ids, (n_genes,)
    genes: tuple[str, ...]
    gene_ids: tuple[str, ...]
    custom: NDArray[np.bool_]  # which genes come from the add-on rather than the predesigned panel, (n_genes,)
    programme: NDArray[np.bool_]  # which genes follow the proliferation programme, (n_genes,)
    profiles: NDArray[np.float64]  # relative expression, (n_types, n_genes), rows in the order of CELL_TYPES
    signatures: dict[str, list[str]]  # gene lists by name; not every gene of a signature is on the panel

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


@dataclass(frozen=True)
class Counts:
    """Counts as the instrument would report them."""

    rates: NDArray[np.float32]  # expected counts of each cell before any noise, (n_cells, n_genes) float32: the truth
    matrix: sparse.csr_matrix  # observed counts, (n_cells, n_genes + n_controls) CSR int32, genes first
    # of every column of matrix
    names: tuple[str, ...]
    ids: tuple[str, ...]
    feature_types: tuple[str, ...]

    @property
    def n_genes(self) -> int:
        """Columns of ``matrix`` that are genes."""
        return int(self.rates.shape[1])


def planted_rates(
    rng: np.random.Generator, tissue: Tissue, panel: Panel, *, counts_per_cell: float
) -> NDArray[np.float32]:
    """Expected counts per cell and gene: type profile x programme x slide's gene efficiency, scaled to the library."""
    library = rng.lognormal(np.log(counts_per_cell), LIBRARY_SD, len(tissue.xy_um))
    efficiency = np.exp(rng.normal(0.0, _SLIDE_GENE_SD, len(panel.genes)))
    rates = (panel.profiles * efficiency)[tissue.cell_type]
    cycling = tissue.cell_type == CELL_TYPES.index(PROGRAMME_TYPE)
    rates[:, panel.programme] *= np.where(cycling, np.exp(tissue.programme), 1.0)[:, None]
    rates *= (library / rates.sum(axis=1))[:, None]
    return rates.astype(np.float32)


def _spill(rng: np.random.Generator, counts: sparse.csr_matrix, xy_um: NDArray[np.float64]) -> sparse.csr_matrix:
    """Move a share of every cell's transcripts to its nearest neighbour, as segmentation errors do."""
    neighbour = cKDTree(xy_um).query(xy_um, k=2)[1][:, 1]
    lost = counts.copy()
    lost.data = rng.binomial(counts.data, SPILL_SHARE).astype(counts.dtype)
    n = counts.shape[0]
    give = sparse.csr_matrix((np.ones(n, dtype=counts.dtype), (neighbour, np.arange(n))), shape=(n, n))
    spilled = (counts - lost + give @ lost).tocsr()
    spilled.eliminate_zeros()
    return spilled


def _observed(rng: np.random.Generator, rates: NDArray[np.float32], xy_um: NDArray[np.float64]) -> sparse.csr_matrix:
    """Negative binomial counts with ambient transcripts and spill-over, CSR int32."""
    library = rates.sum(axis=1, keepdims=True)
    ambient = rates.mean(axis=0)
    soup = AMBIENT_SHARE * library * (ambient / ambient.sum())
    expected = (1 - AMBIENT_SHARE) * rates + soup
    counts = rng.poisson(rng.standard_gamma(NB_THETA, expected.shape, dtype=np.float32) * (expected / NB_THETA))
    sparse_counts = sparse.csr_matrix(counts.astype(np.int32))
    return _spill(rng, sparse_counts, xy_um) if len(xy_um) > 1 else sparse_counts


def _controls() -> list[tuple[str, str, float]]:
    """Name, feature type and rate of every control column."""
    return [
        *((f"NegControlProbe_{i:05d}", "Negative Control Probe", CONTROL_RATE) for i in range(_N_PROBES)),
        *((f"NegControlCodeword_{i:04d}", "Negative Control Codeword", CONTROL_RATE / 8) for i in range(_N_CODEWORDS)),
        *((f"UnassignedCodeword_{i:04d}", "Unassigned Codeword", CONTROL_RATE / 8) for i in range(_N_UNASSIGNED)),
    ]


def draw_counts(rng: np.random.Generator, tissue: Tissue, panel: Panel, *, counts_per_cell: float) -> Counts:
    """Plant the rates, then observe them; controls follow the genes."""
    rates = planted_rates(rng, tissue, panel, counts_per_cell=counts_per_cell)
    genes = _observed(rng, rates, tissue.xy_um)
    controls = _controls()
    false = rng.poisson([rate for _, _, rate in controls], (len(rates), len(controls))).astype(np.int32)
    names = [name for name, _, _ in controls]
    return Counts(
        rates=rates,
        matrix=sparse.hstack([genes, sparse.csr_matrix(false)], format="csr", dtype=np.int32),
        names=(*panel.genes, *names),
        ids=(*panel.gene_ids, *names),
        feature_types=(*["Gene Expression"] * len(panel.genes), *[kind for _, kind, _ in controls]),
    )
