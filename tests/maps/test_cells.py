"""Values of single cells against lookups written out, whichever tool said where the cells are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from skimage.measure import regionprops
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Scale, Sequence, get_transformation

import spatialsig as sp
from spatialsig.data.patches import PatchSource, image_levels, read_patches
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig.maps.sampling import sampled
from spatialsig.models import SignatureViT
from spatialsig.stats.agreement import split_counts

AXES = ("x", "y")


@pytest.fixture(scope="module")
def model() -> SignatureViT:
    return sp.datasets.toy_model(sp.datasets.toy_study())


@pytest.fixture(scope="module")
def predicted(model: SignatureViT) -> sd.SpatialData:
    slide = sp.datasets.toy_study()
    sp.tl.predict_cells(slide, model)
    return slide


@pytest.fixture
def slide(predicted: sd.SpatialData) -> sd.SpatialData:
    return sd.deepcopy(predicted)


def map_px(slide: sd.SpatialData, xy_px: np.ndarray) -> np.ndarray:
    """Points of the H&E in px of the map."""
    image, map_ = (get_transformation(slide[key]).to_affine_matrix(AXES, AXES) for key in ("he_image", "signature_map"))
    matrix = np.linalg.inv(map_) @ image
    return xy_px @ matrix[:2, :2].T + matrix[:2, 2]


def test_a_cell_has_the_value_of_the_map_and_of_its_patch(predicted: sd.SpatialData, model: SignatureViT) -> None:
    table, cells = predicted["cells_pred"], predicted["table"]
    assert table.obs["cell_id"].tolist() == cells.obs["cell_id"].tolist()
    np.testing.assert_allclose(table.obsm["spatial"], cells.obsm["spatial"])
    np.testing.assert_allclose(table.obs[["x_um", "y_um"]], cells.obsm["spatial"])
    xy = cells.obsm["he_px"]  # of the truth
    map_ = predicted["signature_map"]["scale0"]["image"].to_numpy()
    at = map_px(predicted, xy)[:, ::-1].T - 0.5
    whole = np.isfinite(map_coordinates(map_[0], at, order=1, cval=np.nan))
    assert whole.mean() > 0.8
    for k in range(map_.shape[0]):
        expected = map_coordinates(map_[k], at[:, whole], order=1)
        np.testing.assert_allclose(table.X[whole, k], expected, rtol=1e-3, atol=1e-4)
    levels = image_levels(predicted, "he_image")
    corner = np.floor(xy / 56).astype(int) * 56  # patches of 56 px side by side
    inside = (corner + 56 <= levels[0].shape[0]).all(axis=1) & np.isfinite(table.layers["patch"]).all(axis=1)
    corners, number = np.unique(corner[inside], axis=0, return_inverse=True)
    scores = model.predict(
        read_patches(PatchSource("s", levels, corners[:, ::-1].copy(), 56.0, 28), range(len(corners)))
    )
    # cells near the rim may lie in the patch that was shifted to reach it
    same = np.isclose(table.layers["patch"][inside], scores[number.reshape(-1)], rtol=1e-4, atol=1e-5).all(axis=1)
    assert same.mean() > 0.85


def test_sampling_leaves_out_what_is_not_known() -> None:
    values = np.array([[[1.0, 3.0, np.nan], [5.0, 7.0, np.nan]]])
    points = np.array([[0.5, 0.5], [1.0, 1.0], [1.9, 0.5], [2.5, 0.5], [-0.1, 0.5], [np.nan, 0], [0.0, 0.0]])
    expected = [1, 4, 3, np.nan, np.nan, np.nan, 1]
    np.testing.assert_allclose(sampled(values, points)[:, 0], expected)


def test_the_table_annotates_its_cells_as_spatialdata_wants(slide: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.write(slide, tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    _, table = sd.join_spatialelement_table(sdata=back, spatial_element_names="cell_circles", table_name="cells_pred")
    assert table.n_obs == len(back["cell_circles"])
    assert sp.io.verify(tmp_path / "s.zarr")["status"].eq("ok").all()


def test_shapes_and_labels_of_other_tools_give_the_same_cells(slide: sd.SpatialData, model: SignatureViT) -> None:
    """Squares around some cells, as polygons and as labels of half the resolution, in the frame of the H&E."""
    frames = get_transformation(slide["he_image"], get_all=True)
    middle = (np.floor(slide["table"].obsm["he_px"][::29] / 4) * 4 + 2).astype(int)
    middle = middle[(cKDTree(middle).query(middle, k=2)[0][:, 1] > 8) & (middle > 8).all(axis=1)]
    frame = gpd.GeoDataFrame(
        {"cell_id": [f"c{n}" for n in range(len(middle))]},
        geometry=shapely.box(*(middle - 2).T, *(middle + 2).T), index=np.arange(len(middle)) + 100,
    )  # fmt: skip
    slide["squares"] = ShapesModel.parse(frame, transformations=frames)
    height, width = image_levels(slide, "he_image")[0].shape
    labels = np.zeros((height // 2, width // 2), np.int32)
    for n, (x, y) in enumerate(middle):
        labels[(y - 2) // 2 : (y + 2) // 2, (x - 2) // 2 : (x + 2) // 2] = n + 1
    half = {name: Sequence([Scale([2, 2], AXES), way]) for name, way in frames.items()}
    slide["masks"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations=half)
    sp.tl.predict_cells(slide, model, cells="squares", key_added="of_shapes")
    sp.tl.predict_cells(slide, model, cells="masks", key_added="of_labels")
    shapes, masks = slide["of_shapes"], slide["of_labels"]
    assert shapes.obs["cell_id"].tolist() == frame["cell_id"].tolist()
    assert shapes.obs["instance_id"].tolist() == frame.index.tolist()
    assert masks.obs["instance_id"].tolist() == [one.label for one in regionprops(labels)]
    np.testing.assert_allclose(shapes.X, masks.X, rtol=1e-4, atol=1e-5)
    at = map_px(slide, middle.astype(float))
    expected = sampled(slide["signature_map"]["scale0"]["image"].to_numpy(), at)
    np.testing.assert_allclose(shapes.X, expected, rtol=1e-4, atol=1e-5)
    matched, _ = sd.join_spatialelement_table(sdata=slide, spatial_element_names="masks", table_name="of_labels")
    assert "masks" in matched


def test_nuclei_are_found_where_they_were_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = sp.datasets.toy()
    found = sp.pp.find_nuclei(slide)
    truth = slide["table"].obsm["he_px"]  # px of 1 um
    xy = np.stack([slide["nuclei"].geometry.x, slide["nuclei"].geometry.y], axis=1)
    assert found["n_nuclei"].item() == len(xy)
    assert (cKDTree(truth).query(xy)[0] < 3).mean() > 0.93  # of those found, real ones
    assert (cKDTree(xy).query(truth)[0] < 3).mean() > 0.75  # of the real ones, found
    area = slide["nuclei"]["area_um2"]
    np.testing.assert_allclose(np.pi * slide["nuclei"]["radius"] ** 2, area)
    assert 15 < area.median() < 60
    monkeypatch.setattr("spatialsig.pp._find_nuclei.TILE_PX", 120)  # cells on the borders of tiles are found once
    monkeypatch.setattr("spatialsig.pp._find_nuclei._Tiles.threshold", lambda _: found["threshold"].item())
    sp.pp.find_nuclei(slide, key_added="by_tiles")
    other = np.stack([slide["by_tiles"].geometry.x, slide["by_tiles"].geometry.y], axis=1)
    assert len(other) == pytest.approx(len(xy), rel=0.01)
    assert np.quantile(cKDTree(xy).query(other)[0], 0.98) < 0.5


def test_detected_nuclei_are_judged_by_the_cells_they_lie_on(slide: sd.SpatialData, model: SignatureViT) -> None:
    sp.tl.predict_cells(slide, model, cells="detect", key_added="detected")
    assert slide["detected"].n_obs == len(slide["nuclei"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        of_nuclei = sp.tl.evaluate_cells(slide, cells_key="detected", n_repeats=1)
        of_cells = sp.tl.evaluate_cells(slide, n_repeats=1)
    n = int((slide["table"].obs["fold"] == 0).sum())  # the one that the model held out
    assert 0.6 * n < of_nuclei["n"].iloc[0] < n
    both = of_nuclei.merge(of_cells, on=["signature", "scale"])
    assert (both["r_x"] - both["r_y"]).abs().max() < 0.12


def test_r_ceiling_and_gain_are_what_a_loop_gives(slide: sd.SpatialData) -> None:
    cells, table = slide["table"], slide["cells_pred"]
    rng = np.random.default_rng(0)
    measured = cells.obsm["signatures"]
    table.X = (measured + rng.normal(0, measured.std(axis=0), measured.shape)).astype(np.float32)
    table.layers["patch"] = rng.normal(size=measured.shape).astype(np.float32)
    table.layers["patch"][:, 0] = table.X[:, 0]  # no better than its patch
    lost = int(np.flatnonzero(cells.obs["fold"] == 0)[5])
    table.X[lost] = np.nan
    with pytest.warns(SpatialsigWarning, match=r"1 of 6 signatures .*: Immune_T \(0\.7\d* against 0\.7"):
        found = sp.tl.evaluate_cells(slide, n_repeats=1, seed=4, bin_um=25.0).set_index(["scale", "signature"])
    known = (np.arange(len(measured)) != lost) & (cells.obs["fold"] == 0).to_numpy()
    scored = cells.uns["spatialsig"]["score_cells"]
    counts = cells.X[:, cells.var_names.get_indexer(scored["genes"])]
    halves = []
    for half in split_counts(counts, seed=4):
        logged = np.log1p(1e4 * half.toarray() / np.maximum(half.sum(axis=1), 1))
        halves.append((np.asarray(logged) - scored["mean"]) / scored["std"] @ scored["weights"])
    bins = pd.Series(list(map(tuple, np.floor(cells.obsm["spatial"] / 25)[known])))
    for k, name in enumerate(table.var_names):
        for scale, group in (("cell", pd.Series(np.arange(known.sum()))), ("25 um", bins)):
            own, patch, truth, one, other = (
                pd.Series(np.asarray(part)[known, k].astype(float)).groupby(group).mean()
                for part in (table.X, table.layers["patch"], measured, *halves)
            )
            row, r = found.loc[scale, name], np.corrcoef(own, truth)[0, 1]
            split = np.corrcoef(one, other)[0, 1]
            assert row["n"] == len(own)
            assert row["r"] == pytest.approx(r, abs=1e-6)
            assert row["r_patch"] == pytest.approx(np.corrcoef(patch, truth)[0, 1], abs=1e-6)
            assert row["ceiling"] == pytest.approx(np.sqrt(2 * split / (1 + split)), abs=2e-3)
            assert row["gain"] == pytest.approx(row["r"] - row["r_patch"])
            assert row["better"] == (k > 0)


def test_what_is_there_is_skipped_until_something_changes(slide: sd.SpatialData, model: SignatureViT) -> None:
    assert sp.tl.predict_cells(slide, model, skip_done=True)["outcome"].item() == "skipped"
    sp.tl.signature_map(slide, model, method="patch", stride_um=56.0)
    assert sp.tl.predict_cells(slide, model, skip_done=True)["outcome"].item() == "predicted"
    assert sp.tl.predict_cells(slide, model, skip_done=True)["outcome"].item() == "skipped"
    slide["table"].obsm["spatial"] = slide["table"].obsm["spatial"] + 5.0
    assert sp.tl.predict_cells(slide, model, skip_done=True)["outcome"].item() == "predicted"


def test_cells_of_a_store_are_written_into_it(tmp_path: Path, model: SignatureViT) -> None:
    store = tmp_path / "s.zarr"
    sp.io.write(sp.datasets.toy_study(), store)
    sp.tl.predict_cells(store, model, cells="detect")
    back = sd.read_zarr(store)
    assert {"nuclei", "signature_map", "cells_pred"} <= {name for _, name, _ in back.gen_elements()}
    states = sp.io.status(store).set_index("part")["state"]
    assert (states[["nuclei", "signature_map", "cells_pred"]] == "fresh").all()


def test_groups_for_xenium_explorer(slide: sd.SpatialData, tmp_path: Path) -> None:
    table = slide["cells_pred"]
    table.X[3] = np.nan
    assert sp.io.export_explorer_groups(slide, tmp_path / "g.csv", "Immune_T", n_groups=3) == table.n_obs - 1
    groups = pd.read_csv(tmp_path / "g.csv")
    assert groups.columns.tolist() == ["cell_id", "group"]
    values = pd.Series(np.asarray(table[:, "Immune_T"].X)[:, 0], index=table.obs["cell_id"]).dropna()
    expected = pd.qcut(values, 3, labels=[f"Immune_T Q{k}" for k in (1, 2, 3)])
    assert (groups.set_index("cell_id")["group"] == expected.astype(str).reindex(groups["cell_id"])).mean() > 0.995
    sp.io.export_explorer_groups(slide, tmp_path / "g.csv")
    highest = pd.read_csv(tmp_path / "g.csv", keep_default_na=False).set_index("cell_id")["group"]
    scaled = pd.DataFrame(table.X, index=table.obs["cell_id"], columns=table.var_names).dropna()
    scaled = (scaled - scaled.mean()) / scaled.std()
    expected = scaled.idxmax(axis=1).where(
        scaled.max(axis=1) >= 1, "none"
    )  # every cell has a highest score, not every one is a type
    assert (highest == expected.reindex(highest.index)).all()
    assert 0.2 < (highest == "none").mean() < 0.9
    sp.io.export_explorer_groups(slide, tmp_path / "g.csv", margin=0.0)
    assert "none" not in set(
        pd.read_csv(tmp_path / "g.csv", keep_default_na=False)["group"][scaled.max(axis=1).to_numpy() >= 0]
    )
    with pytest.raises(KeyMissingError, match=r"`table_key='nowhere'`.* Call `sp\.tl\.predict_cells` first"):
        sp.io.export_explorer_groups(slide, tmp_path / "g.csv", table_key="nowhere")


def test_cells_for_qupath_lie_where_they_are(slide: sd.SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "cells.geojson"
    n = sp.io.export_geojson(slide, path, table_key="cells_pred", signatures=["Immune_T"], classify_by="Immune_T")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert n == len(features) == len(slide["table"])
    found = gpd.read_file(path)
    middle = np.stack([found.geometry.centroid.x, found.geometry.centroid.y], axis=1)
    np.testing.assert_allclose(middle, slide["table"].obsm["he_px"], atol=0.05)
    np.testing.assert_allclose(
        found.geometry.area, np.pi * slide["cell_circles"]["radius"] ** 2, rtol=0.05
    )  # px of 1 um
    assert features[0]["properties"]["objectType"] == "detection"
    assert features[0]["properties"]["name"] == slide["table"].obs["cell_id"].iloc[0]
    values = [one["properties"]["measurements"]["Immune_T"] for one in features]
    np.testing.assert_allclose(values, slide["cells_pred"][:, "Immune_T"].X[:, 0], rtol=1e-6)
    assert {one["properties"]["classification"]["name"] for one in features} == {f"Immune_T Q{k}" for k in range(1, 5)}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"cells": "nucleus_boundaries"},
            KeyMissingError,
            "`cells='nucleus_boundaries'` is in neither .*`sp.pp.find_nuclei`",
        ),
        ({"method": "nearest"}, InputError, "`method='nearest'`"),
        ({"key_added": "table"}, InputError, "would be lost"),
        ({"table_key": "nowhere"}, KeyMissingError, "`table_key='nowhere'`"),
    ],
)
def test_errors(
    slide: sd.SpatialData, model: SignatureViT, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sp.tl.predict_cells(slide, model, **options)


def test_cells_of_another_slide_are_refused(slide: sd.SpatialData) -> None:
    slide["cells_pred"].obs["cell_id"] = [f"x{n}" for n in range(slide["cells_pred"].n_obs)]
    slide["cells_pred"].obsm["spatial"] = slide["cells_pred"].obsm["spatial"] + 5000.0
    with pytest.raises(InputError, match=r"none of \d+ predicted cells is one of the \d+ cells of table 'table'"):
        sp.tl.evaluate_cells(slide)
