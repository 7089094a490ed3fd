from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import squidpy as sq
from scipy import stats

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.labels.scorers import UNITS
from spatialsig.nn.autoencoder import AutoencoderConfig


def by_pandas(sdata: sd.SpatialData, how: str) -> pd.DataFrame:
    cells, patches = sdata["table"].obsm["patch_membership"].nonzero()
    scores = pd.DataFrame(sdata["table"].obsm["signatures"][cells].astype(np.float64))
    return scores.groupby(patches).agg(how).reindex(range(len(sdata["patches"])))


@pytest.mark.parametrize("stat", ["mean", "median"])
def test_labels_equal_pandas(patched: sd.SpatialData, stat: str) -> None:
    sp.tl.aggregate_patches(patched, stat=stat, min_cells=5, use_rep=None)
    table = patched["signatures"]
    enough = table.obs["n_cells"].to_numpy() >= 5
    assert 0 < enough.sum() <= len(enough)
    np.testing.assert_allclose(table.X[enough], by_pandas(patched, stat)[enough], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.layers["sem"][enough], by_pandas(patched, "sem")[enough], rtol=1e-4, atol=1e-6)
    assert np.isnan(table.X[~enough]).all()


def test_patches_with_few_cells_have_no_label(patched: sd.SpatialData) -> None:
    n_cells = patched["signatures"].obs["n_cells"]
    threshold = int(n_cells.median())
    sp.tl.aggregate_patches(patched, min_cells=threshold, use_rep=None)
    np.testing.assert_array_equal(np.isnan(patched["signatures"].X).any(axis=1), n_cells < threshold)


def test_medians_tie_more_than_means(patched: sd.SpatialData) -> None:
    ties = {}
    for stat in ("mean", "median"):
        sp.tl.aggregate_patches(patched, stat=stat, min_cells=5, use_rep=None)
        ties[stat] = patched["signatures"].uns["spatialsig"]["aggregate_patches"]["tie_fraction"]
    assert (ties["median"] > ties["mean"]).any()


def test_labels_follow_the_planted_truth(patched: sd.SpatialData) -> None:
    cells = patched["table"]
    # on 56 um patches with a dozen cells; the default patch is four times as large
    membership = cells.obsm["patch_membership"].toarray().astype(float)
    share = {t: membership.T @ (cells.obs["cell_type"] == t).to_numpy() for t in ("T_cell", "Fibroblast")}
    enough = np.isfinite(patched["signatures"].X).all(axis=1)
    for name, cell_type in {"Immune_T": "T_cell", "Fibroblast": "Fibroblast"}.items():
        label = patched["signatures"][:, name].X[enough, 0]
        planted = (share[cell_type] / membership.sum(axis=0).clip(1))[enough]
        assert np.corrcoef(label, planted)[0, 1] > 0.8


def test_embedding_is_averaged(patched: sd.SpatialData) -> None:
    rng = np.random.default_rng(0)
    patched["table"].obsm["X_pca"] = rng.normal(size=(patched["table"].n_obs, 4))
    sp.tl.aggregate_patches(patched, min_cells=5, use_rep="X_pca")
    member = patched["table"].obsm["patch_membership"].toarray().astype(float)
    expected = member.T @ patched["table"].obsm["X_pca"] / member.sum(axis=0)[:, None].clip(1)
    some = member.sum(axis=0) > 0
    np.testing.assert_allclose(patched["signatures"].obsm["X_pca"][some], expected[some], rtol=1e-5, atol=1e-6)


def member_of(sdata: sd.SpatialData) -> np.ndarray:
    return np.asarray(sdata["table"].obsm["patch_membership"].toarray(), np.float64)


def test_trimmed_mean_runs_from_the_mean_to_the_median(patched: sd.SpatialData) -> None:
    labels = {}
    for stat, trim in {"mean": 0.0, "median": 0.5}.items():
        sp.tl.aggregate_patches(patched, stat=stat, min_cells=5, use_rep=None)
        expected = patched["signatures"].X.copy()
        sp.tl.aggregate_patches(patched, stat="trimmed_mean", trim=trim, min_cells=5, use_rep=None)
        np.testing.assert_allclose(patched["signatures"].X, expected, rtol=1e-6)
        labels[stat] = expected
    sp.tl.aggregate_patches(patched, stat="trimmed_mean", min_cells=5, use_rep=None)
    assert patched["signatures"].uns["spatialsig"]["aggregate_patches"]["trim"] == 0.1
    assert not np.allclose(patched["signatures"].X, labels["mean"], equal_nan=True)


def test_pseudobulk_scores_the_summed_counts(patched: sd.SpatialData) -> None:
    sp.tl.aggregate_patches(patched, stat="pseudobulk", min_cells=5, use_rep=None)
    table, scored = patched["signatures"], patched["signatures"].uns["spatialsig"]["score_cells"]
    summed = member_of(patched).T @ patched["table"].X.toarray()
    x = np.log1p(1e4 * summed / np.maximum(summed.sum(axis=1, keepdims=True), 1))
    enough = table.obs["n_cells"].to_numpy() >= 5
    expected = ((x - scored["mean"]) / scored["std"]) @ scored["weights"]
    np.testing.assert_allclose(table.X[enough], expected[enough], rtol=1e-4, atol=1e-5)
    assert np.isnan(table.X[~enough]).all()


@pytest.mark.parametrize(("method", "stat"), [("zscore", "mean"), ("ucell", "trimmed_mean"), ("zscore", "pseudobulk")])
def test_scores_say_in_which_unit_they_are(method: str, stat: str, patched: sd.SpatialData) -> None:
    sp.tl.score_cells(patched, "seed", method=method)
    sp.tl.aggregate_patches(patched, stat=stat, min_cells=5, use_rep=None)
    of_cells = patched["table"].uns["spatialsig"]["score_cells"]["unit"]
    of_patches = patched["signatures"].uns["spatialsig"]["aggregate_patches"]["unit"]
    assert of_cells == UNITS[method]
    assert of_patches.endswith(of_cells)
    assert (
        of_patches.split(" of the ")[0] == {"mean": "mean", "trimmed_mean": "trimmed mean", "pseudobulk": "score"}[stat]
    )
    sp.tl.aggregate_patches(patched, targets={"obsm": "spatial"}, use_rep=None)
    assert "unit" not in patched["signatures"].uns["spatialsig"]["aggregate_patches"]


def test_columns_and_layers_of_the_cells(patched: sd.SpatialData, tmp_path: Path) -> None:
    cells = patched["table"]
    rng = np.random.default_rng(0)
    cells.obs["area"] = rng.normal(50, 5, cells.n_obs)
    cells.obs.loc[cells.obs_names[::7], "area"] = np.nan
    cells.obs["cell_type"] = cells.obs["cell_type"].astype("category")
    cells.obsm["X_pca"] = rng.normal(size=(cells.n_obs, 3))
    sp.tl.aggregate_patches(patched, min_cells=5, use_rep=None, obs=["area", "cell_type"], obsm=["X_pca"], layers=["X"])
    sp.io.write(patched, tmp_path / "s.zarr")
    table = sd.read_zarr(tmp_path / "s.zarr")["signatures"]
    member = member_of(patched)
    size = np.where(member.any(axis=0), member.sum(axis=0), np.nan)[:, None]
    some = np.isfinite(size[:, 0])
    known = cells.obs["area"].notna().to_numpy()
    area = (member[known].T @ cells.obs["area"][known]) / np.where(some, member[known].sum(axis=0), np.nan)
    np.testing.assert_allclose(table.obs["area"], area, rtol=1e-9)
    shares = member.T @ pd.get_dummies(cells.obs["cell_type"]).to_numpy(float) / size
    fractions = table.obsm["cell_type_fraction"]
    np.testing.assert_allclose(fractions, shares, rtol=1e-9)
    assert list(fractions.columns) == list(cells.obs["cell_type"].cat.categories)
    np.testing.assert_allclose(fractions[some].sum(axis=1), 1)
    np.testing.assert_allclose(table.obsm["X_pca"], member.T @ cells.obsm["X_pca"] / size, rtol=1e-5, atol=1e-6)
    mean = member.T @ cells.X.toarray() / size
    np.testing.assert_allclose(table.obsm["X_mean"].toarray()[some], mean[some], rtol=1e-5)
    assert list(table.uns["spatialsig"]["aggregate_patches"]["genes"]) == list(cells.var_names)


def test_squidpy_takes_the_table_as_it_is(patched: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.write(patched, tmp_path / "s.zarr")
    table = sd.read_zarr(tmp_path / "s.zarr")["signatures"]
    table = table[np.isfinite(table.X).all(axis=1)].copy()
    sq.gr.spatial_neighbors(table, coord_type="generic", n_neighs=6)  # the call users know
    sq.gr.spatial_autocorr(table, mode="moran", n_perms=None)
    moran = table.uns["moranI"]
    assert set(moran.index) == set(table.var_names)
    assert moran["I"].max() > 0.4


def test_spatialdata_matches_table_and_patches(patched: sd.SpatialData) -> None:
    shapes, table = sd.match_element_to_table(patched, "patches", "signatures")
    np.testing.assert_array_equal(shapes["patches"].index, table.obs["patch_id"])
    matrix = patched.attrs["spatialsig"]["um_per_global_px"]
    centres = sd.get_centroids(patched["patches"], coordinate_system="global").compute()[["x", "y"]] * matrix
    np.testing.assert_allclose(patched["signatures"].obsm["spatial"], centres, rtol=1e-9)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"stat": "mode"}, InputError, "`stat='mode'` is not known"),
        ({"stat": "trimmed_mean", "trim": 0.6}, InputError, "`trim` must lie between 0 and 0.5; got 0.6"),
        ({"obs": ["height"]}, KeyMissingError, "`obs='height'` is not in the obs of slide"),
        ({"obs": ["cell_id"]}, InputError, "`obs='cell_id'` holds .*wanted numbers, booleans or categories"),
        ({"obsm": ["X_pca"]}, KeyMissingError, "`obsm='X_pca'` is not in the obsm"),
        ({"layers": ["lognorm"]}, KeyMissingError, r"`layers='lognorm'` is not in the layers .*available: \['X'\]"),
        ({"stat": "pseudobulk", "targets": {"obs": "cell_id"}}, InputError, "for `targets` use `stat='sum'`"),
        ({"targets": {"var": "x"}}, InputError, r"`targets='var'` is not known; choose one of \['obs', 'obsm', 'lay"),
        ({"targets": {}}, InputError, r"names no column; wanted for example \{'obs': 'cell_type'\}"),
        ({"targets": {"obs": "cell_id", "genes": "CD2"}}, InputError, "add `'layers': 'X'`"),
        (
            {"targets": {"layers": "X", "genes": ["CD2", "Foo"]}},
            InputError,
            r"does not measure 1 of 2 genes: \['Foo'\]",
        ),
        ({"targets": {"obs": "height"}}, KeyMissingError, "`obs='height'` is not in the obs of slide"),
        ({"min_cells": 10**6}, InputError, r"no patch has 1000000 cells \(the most is \d+\)"),
        ({"use_rep": "X_ae"}, KeyMissingError, r"Call `sp.tl.embed_cells` first, .*: `use_rep=None`"),
    ],
)
def test_errors(patched: sd.SpatialData, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sp.tl.aggregate_patches(patched, **{"use_rep": None} | kwargs)


def test_new_patches_want_a_new_assignment(patched: sd.SpatialData) -> None:
    sp.pp.make_patches(patched, patch_px=56, um_per_px=2.0)
    with pytest.raises(InputError, match="call `sp.pp.assign_cells` again"):
        sp.tl.aggregate_patches(patched, use_rep=None)


def by_hand(values: np.ndarray, member: np.ndarray, how: str) -> np.ndarray:
    """One loop per patch and column; values that are NaN are left out."""
    ways = {
        "mean": np.mean,
        "median": np.median,
        "sum": np.sum,
        "fraction": lambda x: np.mean(x > 0),
        "count": len,
        "trimmed_mean": lambda x: stats.trim_mean(x, 0.1),
    }
    found = np.full((member.shape[1], values.shape[1]), np.nan)
    for patch in range(member.shape[1]):
        for column in range(values.shape[1]):
            x = values[member[:, patch] > 0, column].astype(np.float64)
            x = x[np.isfinite(x)]
            if len(x):
                found[patch, column] = ways[how](x)
            elif how in ("sum", "count"):
                found[patch, column] = 0
    return found


@pytest.fixture
def varied(patched: sd.SpatialData) -> sd.SpatialData:
    """Cells with a category, a number, an array and another layer, each with something missing."""
    cells, rng = patched["table"], np.random.default_rng(0)
    cells.obs["kind"] = cells.obs["cell_type"].where(rng.random(cells.n_obs) > 0.1).astype("category")
    cells.obs["area"] = np.where(rng.random(cells.n_obs) > 0.1, rng.normal(0, 5, cells.n_obs), np.nan)
    cells.obsm["X_pca"] = rng.normal(size=(cells.n_obs, 3))
    cells.layers["double"] = cells.X * 2
    return patched


STATS = ("mean", "median", "trimmed_mean", "sum", "fraction", "count")
TARGETS = {
    "columns": {"obs": ["area", "kind"], "obsm": "X_pca"},
    "category": {"obs": "kind"},
    "genes": {"layers": ["X", "double"], "genes": ["CD3D", "CD2"]},
}


@pytest.mark.parametrize(
    ("targets", "stat"),
    [
        pytest.param(
            given, stat, id=f"{name}-{stat}", marks=() if name == "columns" or stat == "mean" else pytest.mark.slow
        )
        for name, given in TARGETS.items()
        for stat in STATS
    ],
)
def test_any_column_of_the_cells_becomes_a_target(varied: sd.SpatialData, targets: dict, stat: str) -> None:
    sp.tl.aggregate_patches(varied, stat=stat, targets=targets, min_cells=5, use_rep=None, key_added="other")
    cells, table = varied["table"], varied["other"]
    kinds = pd.get_dummies(cells.obs["kind"]).to_numpy(np.float64)
    kinds[cells.obs["kind"].isna()] = np.nan
    names = list(cells.obs["kind"].cat.categories)
    two = cells[:, ["CD3D", "CD2"]].X.toarray()
    values, expected_names = {
        1: (kinds, names),
        2: (
            np.column_stack([cells.obs["area"], kinds, cells.obsm["X_pca"]]),
            ["area", *(f"kind_{name}" for name in names), "X_pca_0", "X_pca_1", "X_pca_2"],
        ),
        3: (np.column_stack([two, two * 2]), ["X_CD3D", "X_CD2", "double_CD3D", "double_CD2"]),
    }[1 if targets == {"obs": "kind"} else 3 if "layers" in targets else 2]
    assert list(table.var_names) == expected_names
    enough = table.obs["n_cells"].to_numpy() >= 5
    member = member_of(varied)
    assert (member.sum(axis=1) > 1).any()  # patches overlap
    np.testing.assert_allclose(table.X[enough], by_hand(values, member, stat)[enough], rtol=1e-5, atol=1e-5)
    assert np.isnan(table.X[~enough]).all()
    one = pd.DataFrame(np.where(values > 0, 1.0, 0.0) if stat == "fraction" else values).where(np.isfinite(values))
    n, sem = (
        np.stack([one[member[:, patch] > 0].agg(how).to_numpy(np.float64) for patch in np.flatnonzero(enough)])
        for how in ("count", "sem")
    )
    expected = {"sum": n * sem, "count": np.where(n > 1, 0.0, np.nan)}.get(stat, sem)
    np.testing.assert_allclose(table.layers["sem"][enough], expected, rtol=1e-4, atol=1e-6)
    assert table.uns["spatialsig"]["score_cells"] == {}
    assert np.isnan(sp.tl.noise_ceiling(varied, signatures_key="other")["ceiling"]).all()


@pytest.fixture(scope="module")
def two_slides(_toy: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Two stores with patches; the second slide has no T cells among its known kinds."""
    slide, folder, stores = sd.deepcopy(_toy), tmp_path_factory.mktemp("two"), {}
    sp.pp.make_patches(slide, patch_px=112, um_per_px=1.0)
    sp.pp.assign_cells(slide)
    sp.tl.score_cells(slide, "seed", test_fold=None)
    for name, hidden in (("A", None), ("B", "T_cell")):
        slide.attrs["spatialsig"]["sample"] = name
        kind = slide["table"].obs["cell_type"].astype(str)
        slide["table"].obs["kind"] = kind[kind != hidden].astype("category").reindex(kind.index)
        stores[name] = folder / f"{name}.zarr"
        sp.io.write(slide, stores[name])
    return sp.Cohort(stores)


def test_shares_of_cell_types_are_labels_like_any_other(two_slides: sp.Cohort) -> None:
    sp.tl.aggregate_patches(two_slides, targets={"obs": "kind"}, min_cells=5, use_rep=None, key_added="kinds")
    tables = [two_slides[name]["kinds"] for name in two_slides.stores]
    assert list(tables[0].var_names) == list(tables[1].var_names)
    share = tables[1][:, "T_cell"].X
    assert (share[np.isfinite(share)] == 0).all()
    np.testing.assert_allclose(tables[0].X[np.isfinite(tables[0].X).all(axis=1)].sum(axis=1), 1, rtol=1e-5)
    assert list(tables[0].uns["spatialsig"]["aggregate_patches"]["targets"]["obs"]) == ["kind"]


def test_embeddings_of_two_models_are_not_put_together(two_slides: sp.Cohort) -> None:
    genes = list(two_slides["A"]["table"].var_names)
    for path in two_slides.stores.values():
        config = AutoencoderConfig(hidden=(4,), n_latent=2)
        model = sp.models.Autoencoder(config, genes, mean=np.zeros(len(genes)), std=np.ones(len(genes)))
        sp.tl.embed_cells(path, model)
    with pytest.raises(InputError, match=r"'A' and 'B' come from different autoencoders .* differ in the weights"):
        sp.tl.aggregate_patches(two_slides, min_cells=5, key_added="labels")
    assert "labels" not in two_slides["A"].tables
    sp.tl.aggregate_patches(two_slides.stores["B"], min_cells=5, key_added="labels")
    kept = two_slides["B"]["labels"].uns["spatialsig"]["embed_cells"]
    assert kept["model_sha256"] == model.record()["model_sha256"]
    np.testing.assert_array_equal(kept["mean"], model.mean)


def test_standard_errors_of_everything_averaged(varied: sd.SpatialData) -> None:
    sp.tl.aggregate_patches(
        varied, min_cells=5, use_rep=None, obs=["area", "kind"], obsm=["X_pca"], layers=["X"], key_added="other"
    )
    cells, table, member = varied["table"], varied["other"], member_of(varied)
    kinds = pd.get_dummies(cells.obs["kind"]).astype(float).where(cells.obs["kind"].notna(), axis=0)
    wanted = {
        "area": (table.obs[["area_sem"]], cells.obs[["area"]]),
        "kind": (table.obsm["kind_fraction_sem"], kinds),
        "X_pca": (table.obsm["X_pca_sem"], pd.DataFrame(cells.obsm["X_pca"])),
        "X": (table.obsm["X_sem"].toarray(), pd.DataFrame(cells.X.toarray())),
    }
    several = np.flatnonzero(member.sum(axis=0) > 5)
    for name, (found, values) in wanted.items():
        expected = np.stack([values[member[:, patch] > 0].astype(float).sem().to_numpy() for patch in several])
        np.testing.assert_allclose(np.asarray(found)[several], expected, rtol=1e-4, atol=1e-6, err_msg=name)
