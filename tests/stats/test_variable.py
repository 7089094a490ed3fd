"""Variable genes against scanpy on the slides put together, gene by gene."""

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from spatialsig.stats.expression import clipped_moments, gene_moments, library_size
from spatialsig.stats.variable import (
    Moments,
    by_dispersion,
    by_mean_variance,
    by_standardised_variance,
    standardised_variance,
)

GENES = [f"g{i:03d}" for i in np.random.default_rng(1).permutation(240)]
COLUMNS = {
    "seurat": ["means", "dispersions", "dispersions_norm", "highly_variable_nbatches"],
    "cell_ranger": ["means", "dispersions", "dispersions_norm", "highly_variable_nbatches"],
    "seurat_v3": ["means", "variances", "variances_norm", "highly_variable_rank", "highly_variable_nbatches"],
}


@pytest.fixture(scope="module")
def slides() -> list[sparse.csr_matrix]:
    """Three slides of other size and depth; a gene without counts on the second, another on none."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.4, 1, len(GENES))
    counts = [
        rng.negative_binomial(2, 1 / (1 + depth * mean * rng.lognormal(0, 0.4, len(GENES))), (n, len(GENES)))
        for n, depth in ((300, 0.2), (400, 0.5), (250, 0.1))
    ]
    counts[1][:, 5] = 0
    for part in counts:
        part[:, 7] = 0
    return [sparse.csr_matrix(part.astype(np.float32)) for part in counts]


def by_scanpy(slides: list[sparse.csr_matrix], flavor: str, n_top_genes: int) -> pd.DataFrame:
    batch = np.repeat([f"s{i}" for i in range(len(slides))], [part.shape[0] for part in slides])
    obs = pd.DataFrame({"batch": pd.Categorical(batch)}, index=np.arange(len(batch)).astype(str))
    adata = ad.AnnData(sparse.vstack(slides).tocsr().astype(np.float64), obs=obs, var=pd.DataFrame(index=GENES))
    if flavor != "seurat_v3":
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=n_top_genes, batch_key="batch")
    return adata.var


def ours(slides: list[sparse.csr_matrix], flavor: str, n_top_genes: int, genes: list[list[str]]) -> pd.DataFrame:
    moments = []
    for part, names in zip(slides, genes, strict=True):
        library = None if flavor == "seurat_v3" else library_size(part)
        total, squares = gene_moments(part, library, log1p=flavor in ("seed", "cell_ranger"))
        moments.append(Moments(names, total, squares, part.shape[0]))
    if flavor == "seed":
        return by_mean_variance(moments, n_top_genes=n_top_genes)
    if flavor == "seurat_v3":
        norms = [
            standardised_variance(m, partial(clipped_moments, part), 0.3)
            for m, part in zip(moments, slides, strict=True)
        ]
        return by_standardised_variance(moments, norms, n_top_genes=n_top_genes)
    return by_dispersion(moments, n_top_genes=n_top_genes, n_bins=20, cell_ranger=flavor == "cell_ranger")


@pytest.mark.parametrize("n_top_genes", [20, 100, 240])
@pytest.mark.parametrize("flavor", COLUMNS)
@pytest.mark.filterwarnings("ignore:`n_top_genes` > number")
def test_every_gene_agrees_with_scanpy(slides: list[sparse.csr_matrix], flavor: str, n_top_genes: int) -> None:
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    expected = by_scanpy(slides, flavor, n_top_genes)
    result = ours(slides, flavor, n_top_genes, [GENES] * 3).reindex(GENES)
    for column in COLUMNS[flavor]:
        rtol = 1e-6 if expected[column].dtype == np.float32 else 1e-9  # scanpy keeps some in single precision
        np.testing.assert_allclose(result[column], expected[column], rtol=rtol, atol=1e-12, err_msg=column)
    np.testing.assert_array_equal(result["highly_variable"], expected["highly_variable"])


@pytest.mark.parametrize("flavor", ["seed", *COLUMNS])
def test_gene_measured_on_one_slide_has_the_numbers_of_that_slide(slides: list[sparse.csr_matrix], flavor: str) -> None:
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    short = [slides[0], slides[1][:, :200], slides[2][:, :200]]
    union = ours(short, flavor, 30, [GENES, GENES[:200], GENES[:200]])
    alone = ours(slides[:1], flavor, 30, [GENES])
    number = {"seed": "variance", "seurat_v3": "variances_norm"}.get(flavor, "dispersions_norm")
    np.testing.assert_array_equal(union.loc[GENES[200:], number], alone.loc[GENES[200:], number])
    assert union["highly_variable"].sum() == 30
    assert set(union.index) == set(GENES)


def test_clipped_moments_equal_the_dense_formula(slides: list[sparse.csr_matrix]) -> None:
    limits = np.random.default_rng(0).uniform(0.5, 3, len(GENES))
    rows = np.arange(slides[0].shape[0]) % 3 > 0
    dense = np.minimum(slides[0].toarray().astype(np.float64), limits)[rows]
    total, squares = clipped_moments(slides[0], limits, rows=rows)
    np.testing.assert_allclose(total, dense.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(squares, (dense**2).sum(axis=0), rtol=1e-12)
