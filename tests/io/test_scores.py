"""Exported files against the store they were made of, through other readers."""

import json
import tracemalloc
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from PIL import Image
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.io import _geojson, _heatmap
from spatialsig.io._scores import ScoredPatches
from spatialsig.slide.slides import Slide

NAMES = ("Immune_T", "Fibröblast")


@pytest.fixture
def scored() -> sd.SpatialData:
    """Overlapping patches with scores, some of them unknown."""
    sdata = sp.datasets.toy(size_um=200)
    sp.pp.make_patches(sdata, patch_px=32, um_per_px=1.0, stride_um=16.0, min_tissue=0)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(sdata["patches"]), 2))
    values[3] = np.nan
    table = Slide(sdata).patches().table(values, NAMES, n_cells=None)
    table.layers[_keys.STD] = np.abs(values).astype(np.float32)
    sdata["signatures_pred"] = table
    return sdata


def test_geojson_holds_the_patches_as_geopandas_reads_them(scored: sd.SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "patches.geojson"
    n = sp.io.export_geojson(scored, path, classify_by="Immune_T")
    found, shapes, table = gpd.read_file(path), scored["patches"], scored["signatures_pred"]
    assert n == len(found) == len(shapes)
    assert found.geometry.geom_equals(gpd.GeoSeries(shapes.geometry.values, crs=found.crs)).all()
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert [f["properties"]["name"] for f in features] == [str(i) for i in shapes.index]
    assert len({f["id"] for f in features}) == n
    for row, feature in enumerate(features):
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        if row == 3:
            assert properties["measurements"] == {}
            assert "classification" not in properties
            continue
        values = [properties["measurements"][name] for name in NAMES]
        np.testing.assert_allclose(values, table.X[row], rtol=1e-6)
        assert properties["measurements"]["Immune_T std"] == pytest.approx(table.layers["std"][row, 0], rel=1e-6)
    score = np.delete(np.asarray(table.X[:, 0]), 3)
    classes = np.array([f["properties"]["classification"]["name"] for k, f in enumerate(features) if k != 3])
    for k in range(4):
        mine = score[classes == f"Immune_T Q{k + 1}"]
        assert len(mine) == pytest.approx(len(score) / 4, abs=1)
        assert k == 0 or mine.min() >= score[classes == f"Immune_T Q{k}"].max()
    assert all(0 <= c <= 255 for c in features[0]["properties"]["classification"]["color"])
    assert list(tmp_path.iterdir()) == [path]


def test_some_scores_as_annotations(scored: sd.SpatialData, tmp_path: Path) -> None:
    del scored["signatures_pred"].layers["std"]
    sp.io.export_geojson(scored, tmp_path / "a.geojson", signatures=["Fibröblast"], object_type="annotation")
    properties = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"][0]["properties"]
    assert list(properties["measurements"]) == ["Fibröblast"]
    assert properties["objectType"] == "annotation"


def test_features_are_made_one_at_a_time(
    scored: sd.SpatialData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is allocated does not grow with what is written: all features at once would be ten times as much."""
    import anndata as ad

    n = 6_000
    values = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    table = ad.AnnData(values)
    table.var_names = list(NAMES)
    spec = Slide(scored)
    origins = np.stack(np.divmod(np.arange(n), 400), axis=1) * 16
    many = ScoredPatches(spec, spec.patches().spec, np.arange(n), origins, table, "signatures_pred")
    monkeypatch.setattr(_geojson, "scored_patches", lambda *args: many)
    tracemalloc.start()
    sp.io.export_geojson(scored, tmp_path / "many.geojson", signatures=["Immune_T"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "many.geojson").stat().st_size
    assert size > 1.5e6
    assert peak < 2.5e6


def test_tiff_is_a_pyramid_with_a_scale(
    scored: sd.SpatialData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_heatmap, "SMALLEST_LEVEL_PX", 4)
    path = tmp_path / "map.ome.tif"
    sp.io.export_heatmap(scored, path, "Fibröblast")
    shapes, table = scored["patches"], scored["signatures_pred"]
    expected = np.full((shapes["row"].max() + 1, shapes["col"].max() + 1), np.nan)
    expected[shapes["row"], shapes["col"]] = table.X[:, 1]
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        np.testing.assert_array_equal(levels[0].asarray(), expected.astype(np.float32))
        second = levels[1].asarray()
        assert second.shape == tuple(-(-n // 2) for n in expected.shape)
        np.testing.assert_allclose(second[1, 1], np.nanmean(expected[2:4, 2:4]), rtol=1e-5)
        assert max(levels[-1].shape) <= 4
        described = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    assert described["Pixels"]["PhysicalSizeX"] == pytest.approx(16.0)
    # the first px is the middle of the first patch: 32 um wide, of which 16 are drawn
    plane = described["Pixels"]["Plane"]
    plane = plane[0] if isinstance(plane, list) else plane
    spec = scored.attrs["spatialsig"]["patches"]["patches"]
    assert plane["PositionX"] == pytest.approx(shapes["x0"].min() * spec["image_um_per_px"] + 8.0)


def test_png_has_colours_where_there_are_scores(scored: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.export_heatmap(scored, tmp_path / "map.png", "Immune_T", px_per_patch=4, limits=(-1.0, 1.0))
    with Image.open(tmp_path / "map.png") as image:
        pixels, text = np.asarray(image), image.text
    columns = scored["patches"]["col"].max() + 1
    row, column = divmod(3, columns)
    assert pixels[4 * row, 4 * column, 3] == 0
    assert (pixels[..., 3] == 0).sum() == 16
    assert (float(text["um_per_px"]), text["signature"], text["high"]) == (pytest.approx(4.0), "Immune_T", "1.0")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda s, p: sp.io.export_geojson(s, p / "a.geojson", table_key="x"),
            KeyMissingError,
            "`table_key='x'`.*sp.tl.predict",
        ),
        (
            lambda s, p: sp.io.export_geojson(s, p / "a.geojson", signatures=["x"]),
            KeyMissingError,
            "`signature='x'`.*Immune_T",
        ),
        (lambda s, p: sp.io.export_geojson(s, p / "a.geojson", classify_by="x"), KeyMissingError, "`signature='x'`"),
        (lambda s, p: sp.io.export_geojson(s, p / "a.geojson", object_type="cell"), InputError, "`object_type='cell'`"),
        (lambda s, p: sp.io.export_heatmap(s, p / "a.jpg", "Immune_T"), InputError, r"wanted \*.ome.tif"),
        (lambda s, p: sp.io.export_heatmap(s, p / "a.png", "x"), KeyMissingError, "`signature='x'`"),
    ],
)
def test_errors_leave_no_file(scored: sd.SpatialData, tmp_path: Path, call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(scored, tmp_path)
    assert not list(tmp_path.iterdir())


def test_patches_laid_anew_are_refused(scored: sd.SpatialData, tmp_path: Path) -> None:
    sp.pp.make_patches(scored, patch_px=64, um_per_px=1.0, min_tissue=0)
    with pytest.raises(InputError, match="describes [0-9]+ patches that are not in 'patches' .* cut again"):
        sp.io.export_geojson(scored, tmp_path / "a.geojson")


@pytest.mark.parametrize("suffix", ["ome.tif", "png"])
def test_a_map_is_written_with_its_place(suffix: str, tmp_path: Path) -> None:
    sdata = sp.datasets.toy_study()
    sp.tl.signature_map(sdata, sp.datasets.toy_model(sdata), signatures=["Immune_T"])
    path, values = tmp_path / f"map.{suffix}", sdata["signature_map"]["scale0"]["image"].to_numpy()[0]
    sp.io.export_heatmap(sdata, path, "Immune_T", map_key="signature_map", px_per_patch=2)
    if suffix == "png":
        with Image.open(path) as picture:
            drawn = np.asarray(picture)
            assert float(picture.text["um_per_px"]) == pytest.approx(7)  # bins of 14 um
        assert drawn.shape == (2 * values.shape[0], 2 * values.shape[1], 4)
        np.testing.assert_array_equal(drawn[::2, ::2, 3] > 0, np.isfinite(values))
        return
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), values)
        plane = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert plane["PhysicalSizeX"] == pytest.approx(14)
    place = get_transformation(sdata["signature_map"]).transformations[1].translation  # x, y, px of the H&E, of 1 um
    assert (plane["Plane"]["PositionX"], plane["Plane"]["PositionY"]) == pytest.approx(tuple(place))
    with pytest.raises(KeyMissingError, match=r"`signature='Nope'` is not in the channels of map 'signature_map'"):
        sp.io.export_heatmap(sdata, path, "Nope", map_key="signature_map")
    with pytest.raises(
        KeyMissingError, match=r"`map_key='nowhere'` is not in the maps .* Call `sp\.tl\.signature_map` first"
    ):
        sp.io.export_heatmap(sdata, path, "Immune_T", map_key="nowhere")
