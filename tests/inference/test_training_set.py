"""Images, labels, embedding and weight of a training patch belong to the same patch."""

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.inference.patch_weights import CLIP
from spatialsig.inference.training_set import FoldChoice, TrainingTables, gather_training_set, labelled_patches
from spatialsig.slide.slides import Slide


def labelled(sdata: sd.SpatialData, rows: np.ndarray, tables: TrainingTables) -> list:
    patches = Slide(sdata).patches()
    return labelled_patches(patches, tables.targets(patches), rows, tables)


def test_rows_stay_together_when_patches_are_left_out(patched: sd.SpatialData) -> None:
    sp.tl.aggregate_patches(patched, min_cells=int(patched["signatures"].obs["n_cells"].median()), use_rep=None)
    table, shapes = patched["signatures"], patched["patches"]
    table.obsm["X_id"] = np.c_[table.obs["patch_id"], -table.obs["patch_id"]].astype(np.float32)
    rows = (table.obs["patch_id"] % 3 != 0).to_numpy()
    (found,) = labelled(patched, rows, TrainingTables(use_rep="X_id"))
    expected = np.flatnonzero(rows & np.isfinite(table.X).all(axis=1))
    assert 0 < len(expected) < rows.sum()
    np.testing.assert_array_equal(found.embedding[:, 0], expected)
    np.testing.assert_array_equal(found.targets, table.X[expected])
    np.testing.assert_array_equal(found.source.origins, shapes[["y0", "x0"]].to_numpy()[expected])
    n_cells = table.obs["n_cells"].to_numpy()[expected]
    np.testing.assert_allclose(found.weights, n_cells / n_cells.mean(), rtol=1e-6)


def test_nothing_labelled_is_nothing(patched: sd.SpatialData) -> None:
    assert labelled(patched, np.zeros(patched["signatures"].n_obs, bool), TrainingTables()) == []


def test_rows_of_a_table_in_another_order_find_their_patches(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    features = table[::-1].copy()
    features.X = np.repeat(features.obs["patch_id"].to_numpy(np.float32)[:, None], table.n_vars, axis=1)
    features = features[features.obs["patch_id"] % 2 == 0].copy()
    patched["shuffled"] = features
    (found,) = labelled(patched, np.ones(table.n_obs, bool), TrainingTables(backbone="table:shuffled"))
    expected = np.flatnonzero(np.isfinite(table.X).any(axis=1) & (table.obs["patch_id"] % 2 == 0))
    np.testing.assert_array_equal(found.source.features[:, 0], expected)
    np.testing.assert_array_equal(found.targets, table.X[expected])


def test_targets_can_be_any_table_and_then_all_patches_weigh_alike(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    genes = table[:, :1].copy()
    genes.X = genes.X + 1
    del genes.obs["n_cells"]
    patched["genes"] = genes
    everything = np.ones(table.n_obs, bool)
    (found,) = labelled(patched, everything, TrainingTables(targets_key="genes"))
    labelled_rows = np.isfinite(table.X[:, 0])
    np.testing.assert_allclose(found.targets, table.X[labelled_rows, :1] + 1)
    assert set(found.weights) == {1.0}
    table.obsm["shares"] = table.to_df().iloc[:, :2]
    data = gather_training_set(patched, TrainingTables(targets_key="signatures/shares"), FoldChoice(None))
    assert data.names == list(table.var_names[:2])


def test_precise_labels_weigh_more_within_limits(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    everything, measured = np.ones(table.n_obs, bool), np.isfinite(table.X).any(axis=1)
    (found,) = labelled(patched, everything, TrainingTables(weights="sem"))
    relative = (table.layers["sem"] ** 2 / np.nanvar(table.X, axis=0))[measured].mean(axis=1)
    weight = 1 / relative
    weight = np.clip(weight, np.median(weight) / CLIP, np.median(weight) * CLIP)
    np.testing.assert_allclose(found.weights, weight / weight.mean(), rtol=1e-4)
    (alike,) = labelled(patched, everything, TrainingTables(weights=None))
    assert set(alike.weights) == {1.0}
    first = np.flatnonzero(measured)[0]
    table.layers["sem"][first] = 1e-9
    (extreme,) = labelled(patched, everything, TrainingTables(weights="sem"))
    assert extreme.weights[0] == pytest.approx(CLIP * np.median(extreme.weights), rel=1e-4)


def test_impossible_requests_are_refused(patched: sd.SpatialData) -> None:
    everything = np.ones(patched["signatures"].n_obs, bool)
    del patched["signatures"].layers["sem"]
    with pytest.raises(InputError, match="`weights='sem'` needs standard errors"):
        labelled(patched, everything, TrainingTables(weights="sem"))
    with pytest.raises(InputError, match="`weights='area'` is not known"):
        TrainingTables(weights="area")
    with pytest.raises(KeyMissingError, match=r"`targets_key='none'` is not in the tables .* Call `sp.tl.aggregate"):
        labelled(patched, everything, TrainingTables(targets_key="none"))
    with pytest.raises(
        KeyMissingError,
        match=r"`use_rep='X_no'` is not in the obsm .*call `sp.tl.aggregate_patches` again, or learn .*`use_rep=None`",
    ):
        labelled(patched, everything, TrainingTables(use_rep="X_no"))
    with pytest.raises(KeyMissingError, match="`targets_key='signatures/x'` is not in|`targets_key='x'` is not in"):
        labelled(patched, everything, TrainingTables(targets_key="signatures/x"))
    with pytest.raises(InputError, match="replaces `validation_fold`; give it with one alone"):
        FoldChoice(0, 1, 0)
    with pytest.raises(InputError, match="no labelled patch outside `test_fold=0`, `validation_fold=1`"):
        gather_training_set(patched, TrainingTables(), FoldChoice(0, 1))


def test_the_slides_that_train_and_were_changed_by_hand_are_named(tmp_path: Path) -> None:
    stores = {}
    for seed, name in enumerate(("S1", "S2", "S3")):
        slide = sp.datasets.toy(size_um=200, seed=seed, sample=name, patient=f"P{name}")
        sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
        sp.pp.assign_cells(slide)
        sp.tl.score_cells(slide, "seed", test_fold=None)
        sp.tl.aggregate_patches(slide, use_rep=None, min_cells=5)
        stores[name] = tmp_path / f"{name}.zarr"
        sp.io.write(slide, stores[name])
    cohort = sp.Cohort(stores)
    sp.pp.split(cohort, n_folds=2)
    held_out = [name for name in stores if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0]
    training = [name for name in stores if name not in held_out]
    for name in (held_out[0], training[-1]):
        sdata = cohort[name]
        sdata["signatures"].X[0, 0] = 9
        sdata.delete_element_from_disk("signatures")
        sdata.write_element("signatures")
    found = gather_training_set(cohort, TrainingTables(), FoldChoice(0))
    assert found.samples == training
    assert found.inputs["targets"]["changed_by_hand"] == [training[-1]]
    assert "changed_by_hand" not in found.inputs["image"]
