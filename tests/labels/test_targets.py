"""Columns of the cells become means, shares and standard errors of the patches, as pandas has them."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.labels import targets as module
from spatialsig.labels.targets import Targets, add_layers, add_obs, add_obsm, check_columns, is_category
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
    slide = Slide(toy)
    toy["table"].obs["note"] = "text"
    check_columns(slide, "table", obs=["cell_type"], obsm=["spatial"], layers=["X"])
    with pytest.raises(InputError, match=r"slide 'toy': `obs='note'` holds .*, wanted numbers, booleans or categories"):
        check_columns(slide, "table", obs=["note"], obsm=[], layers=[])
    for name in ("obs", "obsm", "layers"):
        options = {"obs": [], "obsm": [], "layers": []} | {name: ["none"]}
        with pytest.raises(KeyMissingError, match=rf"`{name}='none'` is not in the {name} of slide 'toy'"):
            check_columns(slide, "table", **options)


def test_only_categories_are_categories() -> None:
    assert is_category(pd.Series(["a"], dtype="category"))
    assert not is_category(pd.Series(["a"]))
    assert not is_category(pd.Series([1.0]))


COUNTS = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def four_cells() -> ad.AnnData:
    obs = pd.DataFrame(
        {"type": pd.Categorical(["T", "B", None, "T"]), "area": [1.0, np.nan, 3.0, 4.0], "seen": [True, False, True, True]},
        index=list("abcd"),
    )  # fmt: skip
    table = ad.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=["G1", "G2", "G3"]))
    table.obsm["pair"] = np.arange(8.0).reshape(4, 2)
    table.obsm["frame"] = pd.DataFrame({"x": [0, 1, 2, 3], "y": 5}, index=obs.index)
    table.layers["twice"] = sparse.csr_matrix(2 * COUNTS)
    return table


def blocks(targets: Targets, cells: ad.AnnData) -> dict[str, np.ndarray]:
    columns = {}
    for names, values in targets.blocks(cells, targets.categories(cells)):
        assert values.shape == (cells.n_obs, len(names))
        columns |= dict(zip(names, values.T, strict=True))
    return columns


def test_one_name_or_many() -> None:
    assert Targets.of({"obs": "type"}) == Targets(obs=("type",))
    assert Targets.of({"layers": "X", "genes": ["G1", "G2"]}) == Targets(layers=("X",), genes=("G1", "G2"))
    assert Targets.of({"obs": ["type", "area"], "obsm": ()}).record() == {"obs": ["type", "area"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"var": "x"}, r"`targets='var'` is not known; choose one of \['obs', 'obsm', 'layers', 'genes'\]"),
        ({}, r"`targets=\{\}` names no column; wanted for example \{'obs': 'cell_type'\}"),
        ({"genes": "G1"}, r"`targets=\{'genes': 'G1'\}` names no column"),
        ({"obs": "type", "genes": "G1"}, r"`targets\['genes'\]` chooses columns of a layer; add `'layers': 'X'`"),
    ],
)
def test_nothing_to_predict_is_refused(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Targets.of(columns)


def test_categories_become_shares_and_unknown_ones_stay_unknown(four_cells: ad.AnnData) -> None:
    columns = blocks(Targets(obs=("type",)), four_cells)
    dummies = pd.get_dummies(four_cells.obs["type"]).astype(float)
    dummies[four_cells.obs["type"].isna().to_numpy()] = np.nan
    assert list(columns) == ["B", "T"]
    for name in dummies:
        np.testing.assert_array_equal(columns[name], dummies[name])


def test_categories_of_other_slides_have_columns_too(four_cells: ad.AnnData) -> None:
    ((names, values),) = Targets(obs=("type",)).blocks(four_cells, {"type": ["Tumour", "T", "B"]})
    assert names == ["Tumour", "T", "B"]
    np.testing.assert_array_equal(values[:2], [[0, 1, 0], [0, 0, 1]])


def test_names_carry_their_source_only_beside_another(four_cells: ad.AnnData) -> None:
    assert list(blocks(Targets(layers=("X",)), four_cells)) == ["G1", "G2", "G3"]
    several = Targets(obs=("area", "type"), obsm=("pair", "frame"), layers=("X", "twice"), genes=("G3",))
    names = ["area", "type_B", "type_T", "pair_0", "pair_1", "frame_x", "frame_y", "X_G3", "twice_G3"]
    assert list(blocks(several, four_cells)) == names


def test_values_are_those_of_the_cells(four_cells: ad.AnnData) -> None:
    several = Targets(obs=("area", "seen"), obsm=("pair", "frame"), layers=("X", "twice"), genes=("G3", "G1"))
    columns = blocks(several, four_cells)
    np.testing.assert_array_equal(columns["area"], [1, np.nan, 3, 4])
    np.testing.assert_array_equal(columns["seen"], [1, 0, 1, 1])
    np.testing.assert_array_equal(columns["pair_1"], [1, 3, 5, 7])
    np.testing.assert_array_equal(columns["frame_x"], [0, 1, 2, 3])
    np.testing.assert_array_equal(columns["X_G3"], COUNTS[:, 2])
    np.testing.assert_array_equal(columns["twice_G1"], 2 * COUNTS[:, 0])


@pytest.mark.parametrize("block_bytes", [1, 4 * 4 * 2, 2**20])
def test_layers_come_in_pieces_that_join_up(
    four_cells: ad.AnnData, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    parts = list(Targets(layers=("X",)).blocks(four_cells, {}))
    assert len(parts) == {1: 3, 32: 2}.get(block_bytes, 1)
    assert [name for names, _ in parts for name in names] == ["G1", "G2", "G3"]
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts], axis=1), COUNTS)


def test_what_a_slide_lacks_is_named(toy: sd.SpatialData) -> None:
    slide, first = Slide(toy), toy["table"].var_names[0]
    Targets(obs=("cell_type",), layers=("X",), genes=(first,)).check(slide, "table")
    with pytest.raises(InputError, match=r"slide 'toy' does not measure 1 of 2 genes: \['NONE'\]"):
        Targets(layers=("X",), genes=(first, "NONE")).check(slide, "table")
    with pytest.raises(KeyMissingError, match="`obs='none'` is not in the obs of slide 'toy'"):
        Targets(obs=("none",)).check(slide, "table")


@pytest.mark.parametrize("word", ["nan", "None", "<NA>", ""])
@pytest.mark.parametrize("option", ["targets", "obs"])
def test_a_word_for_missing_is_no_class(patched: sd.SpatialData, option: str, word: str) -> None:
    n = patched["table"].n_obs
    types = pd.Series(["A", None] * (n // 2) + ["A"] * (n % 2), index=patched["table"].obs_names)
    patched["table"].obs["kind"] = types.fillna(word).astype("category")
    request = {"targets": {"obs": "kind"}} if option == "targets" else {"obs": ["kind"]}
    with pytest.raises(InputError, match=rf"has {n // 2} cells of the category '{word}', a word for missing"):
        sp.tl.aggregate_patches(patched, use_rep=None, min_cells=5, key_added="k", **request)
    patched["table"].obs["kind"] = patched["table"].obs["kind"].cat.remove_categories([word])
    sp.tl.aggregate_patches(patched, use_rep=None, min_cells=5, key_added="k", **request)
    shares = patched["k"].X[:, 0] if option == "targets" else patched["k"].obsm["kind_fraction"]["A"].to_numpy()
    assert np.nanmin(shares) == np.nanmax(shares) == 1


def test_infinite_values_are_no_label(patched: sd.SpatialData) -> None:
    patched["table"].obs["size"] = np.r_[np.inf, np.ones(patched["table"].n_obs - 1)]
    with pytest.raises(InputError, match=r"`obs='size'` has infinite values, whose mean is no label"):
        sp.tl.aggregate_patches(patched, use_rep=None, min_cells=5, targets={"obs": "size"})


def test_names_with_a_bar_are_stored(patched: sd.SpatialData, tmp_path: Path) -> None:
    n = patched["table"].n_obs
    patched["table"].obs["kind"] = pd.Categorical((["T/NK", "B cell", None] * n)[:n])
    sp.tl.aggregate_patches(patched, use_rep=None, min_cells=5, obs=["kind"], key_added="k")
    sp.io.write(patched, tmp_path / "s.zarr")
    assert list(sp.io.read(tmp_path / "s.zarr")["k"].obsm["kind_fraction"].columns) == ["B cell", "T_NK"]
