"""Columns of the cells become means, shares and standard errors of the patches, as pandas has them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse

from spatialsig.errors import InputError, KeyMissingError
from spatialsig.labels.cell_columns import add_layers, add_obs, add_obsm, check_columns, is_category
from spatialsig.slide.slides import Slide

N_CELLS = 50
INSIDE = np.random.default_rng(0).random((N_CELLS, 4)) < [0.5, 0.3, 0.04, 0.0]


@pytest.fixture
def cells() -> ad.AnnData:
    rng = np.random.default_rng(1)
    kinds = pd.Categorical(rng.choice(["B", "T", "x"], N_CELLS), categories=["T", "B"])  # x: unknown
    area = pd.Series(rng.normal(size=N_CELLS)).where(rng.random(N_CELLS) > 0.1)
    obs = pd.DataFrame({"type": kinds, "area": area.to_numpy(), "seen": rng.random(N_CELLS) > 0.5})
    obs.index = obs.index.astype(str)
    table = ad.AnnData(sparse.csr_matrix(rng.poisson(1.0, (N_CELLS, 3)).astype(np.float32)), obs=obs)
    table.obsm["pair"] = rng.normal(size=(N_CELLS, 2))
    table.layers["log"] = sparse.csr_matrix(np.log1p(table.X.toarray()))
    return table


@pytest.fixture
def patches() -> ad.AnnData:
    return ad.AnnData(obs=pd.DataFrame(index=[f"p{k}" for k in range(INSIDE.shape[1])]))


MEMBERSHIP = sparse.csr_matrix(INSIDE.astype(np.float32))


def means_and_errors(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    groups = [frame[rows] for rows in INSIDE.T]
    return np.array([g.mean() for g in groups]), np.array([g.sem() for g in groups])


def test_numbers_are_averaged(cells: ad.AnnData, patches: ad.AnnData) -> None:
    add_obs(patches, cells, MEMBERSHIP, ["area", "seen"])
    mean, sem = means_and_errors(cells.obs[["area", "seen"]].astype(float))
    np.testing.assert_allclose(patches.obs[["area", "seen"]], mean)
    np.testing.assert_allclose(patches.obs[["area_sem", "seen_sem"]], sem)


def test_categories_become_shares_of_the_known_cells(cells: ad.AnnData, patches: ad.AnnData) -> None:
    add_obs(patches, cells, MEMBERSHIP, ["type"])
    dummies = pd.get_dummies(cells.obs["type"]).astype(float).where(cells.obs["type"].notna())
    mean, sem = means_and_errors(dummies)
    assert list(patches.obsm["type_fraction"].columns) == ["T", "B"]
    np.testing.assert_allclose(patches.obsm["type_fraction"], mean)
    np.testing.assert_allclose(patches.obsm["type_fraction_sem"], sem, atol=1e-12)


@pytest.mark.parametrize("as_sparse", [False, True])
def test_arrays_are_averaged(cells: ad.AnnData, patches: ad.AnnData, as_sparse: bool) -> None:
    mean, sem = means_and_errors(pd.DataFrame(cells.obsm["pair"], index=cells.obs_names))
    if as_sparse:
        cells.obsm["pair"] = sparse.csr_matrix(cells.obsm["pair"])
    add_obsm(patches, cells, MEMBERSHIP, ["pair"])
    np.testing.assert_allclose(patches.obsm["pair"], mean, rtol=1e-5)
    np.testing.assert_allclose(patches.obsm["pair_sem"], sem, rtol=1e-5)


def test_layers_stay_sparse_and_empty_patches_are_zero(cells: ad.AnnData, patches: ad.AnnData) -> None:
    add_layers(patches, cells, MEMBERSHIP, ["X", "log"])
    for layer, values in (("X", cells.X), ("log", cells.layers["log"])):
        mean, sem = means_and_errors(pd.DataFrame(values.toarray(), index=cells.obs_names))
        assert sparse.issparse(patches.obsm[f"{layer}_mean"])
        np.testing.assert_allclose(patches.obsm[f"{layer}_mean"].toarray(), np.nan_to_num(mean), rtol=1e-5)
        np.testing.assert_allclose(patches.obsm[f"{layer}_sem"].toarray(), np.nan_to_num(sem), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_averaged_is_refused(toy: sd.SpatialData) -> None:
    slide, cells = Slide(toy), toy["table"]
    cells.obs["note"] = "text"
    check_columns(slide, cells, obs=["cell_type"], obsm=["spatial"], layers=["X"])
    with pytest.raises(InputError, match=r"slide 'toy': `obs='note'` holds .*, wanted numbers, booleans or categories"):
        check_columns(slide, cells, obs=["note"], obsm=[], layers=[])
    for name in ("obs", "obsm", "layers"):
        options = {"obs": [], "obsm": [], "layers": []} | {name: ["none"]}
        with pytest.raises(KeyMissingError, match=rf"`{name}='none'` is not in the {name} of slide 'toy'"):
            check_columns(slide, cells, **options)


def test_only_categories_are_categories() -> None:
    assert is_category(pd.Series(["a"], dtype="category"))
    assert not is_category(pd.Series(["a"]))
    assert not is_category(pd.Series([1.0]))
