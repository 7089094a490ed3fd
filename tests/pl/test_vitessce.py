"""Configurations of Vitessce: what they name lies in the store, their scopes lead somewhere, and the package takes them."""

import json
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import AlignmentError, InputError, KeyMissingError, SpatialsigError, StaleError
from spatialsig.pl.drawing.vitessce_views import address_of, shown_of, view_config

BASE = "https://our-lab.org/stores"
TABLES = ("signatures", "signatures_pred", "table")


def the_package() -> Any:
    """The viewer's package; a test is skipped without it, also where another one has put a stub into its place."""
    try:
        version("vitessce")
    except PackageNotFoundError:
        pytest.skip("vitessce is not installed")
    return import_module("vitessce")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vitessce") / "toy slide.zarr"
    sp.io.write(sp.datasets.toy_study(predicted=True), path)
    return path


def configuration(data: object, color: str | None = None, table_key: str | None = None) -> dict[str, Any]:
    shown = shown_of(data, color, table_key=table_key, image_key="he_image")  # type: ignore[arg-type]
    return view_config(shown, address_of(shown, BASE))


@pytest.mark.parametrize("table_key", TABLES)
def test_every_path_leads_into_the_store(table_key: str, store: Path) -> None:
    (dataset,) = configuration(store, table_key=table_key)["datasets"]
    (file,) = dataset["files"]
    assert (file["fileType"], file["url"]) == ("spatialdata.zarr", f"{BASE}/toy%20slide.zarr")
    options = file["options"]
    drawn = options["obsSpots" if table_key == "table" else "obsSegmentations"]
    assert drawn["path"] == ("shapes/cell_circles" if table_key == "table" else "shapes/patches")
    assert set(options) == {"image", "obsFeatureMatrix", "obsSpots" if table_key == "table" else "obsSegmentations"}
    assert (store / drawn["path"] / "shapes.parquet").is_file()
    assert drawn["tablePath"] == f"tables/{table_key}"
    assert (store / options["obsFeatureMatrix"]["path"]).is_dir()
    assert (store / options["image"]["path"] / "zarr.json").is_file()
    frames = sd.read_zarr(store).coordinate_systems
    assert {drawn["coordinateSystem"], options["image"]["coordinateSystem"]} <= set(frames)
    assert file["coordinationValues"]["obsType"] == ("cell" if table_key == "table" else "patch")


@pytest.mark.parametrize("table_key", TABLES)
def test_every_scope_of_a_view_has_a_value(table_key: str, store: Path) -> None:
    config = configuration(store, table_key=table_key)
    space = config["coordinationSpace"]

    def check(kind: str, scopes: str | list[str]) -> None:
        for scope in [scopes] if isinstance(scopes, str) else scopes:
            assert scope in space[kind], (kind, scope)

    for view in config["layout"]:
        for kind, scopes in view["coordinationScopes"].items():
            check(kind, scopes)
    for meta in space["metaCoordinationScopes"].values():
        for kind, scopes in meta.items():
            check(kind, scopes)
    for by in space["metaCoordinationScopesBy"].values():
        for parent, children in by.items():
            for kind, of_parent in children.items():
                for parent_scope, scopes in of_parent.items():
                    check(parent, parent_scope)
                    check(kind, scopes)
    assert json.loads(json.dumps(config)) == config
    places = np.zeros((12, 12), int)
    for view in config["layout"]:
        places[view["y"] : view["y"] + view["h"], view["x"] : view["x"] + view["w"]] += 1
    assert (places == 1).all()  # the page is covered once


def test_the_colour_is_the_score_that_was_asked_for(store: Path) -> None:
    first, other = configuration(store), configuration(store, "Pericyte", "signatures")
    assert first["datasets"][0]["files"][0]["options"]["obsFeatureMatrix"]["path"] == "tables/signatures_pred/X"
    assert first["coordinationSpace"]["featureSelection"] == {"A": ["Immune_T"]}
    assert other["coordinationSpace"]["featureSelection"] == {"A": ["Pericyte"]}
    for view in other["layout"][:3]:
        assert view["coordinationScopes"]["featureSelection"] == "A"


def test_the_page_says_what_it_would_show_wrongly(store: Path) -> None:
    """The viewer takes units of the slide's frame for µm, and NaN for the lowest value."""
    labels = sp.io.read(store)["signatures"]
    lost = int(np.isnan(labels[:, "Immune_T"].X).sum())
    assert lost > 0
    note = configuration(store, "Immune_T", "signatures")["layout"][3]["props"]["description"]
    assert "px of 0.2125 µm as if they were µm: multiply what it says by 0.2125." in note
    assert f"{lost} of 81 have no value of Immune_T, and are drawn in its lowest colour" in note
    assert "lowest" not in configuration(store)["description"]


def _foreign(kind: str, sdata: sd.SpatialData) -> sd.SpatialData:
    if kind == "order":
        sdata["signatures_pred"] = sdata["signatures_pred"][::-1].copy()
    elif kind == "labels that changed":
        sp.pp.make_patches(sdata, patch_px=28, um_per_px=2.0, min_tissue=0.9)
    elif kind == "no place":
        sd.transformations.remove_transformation(sdata["patches"], "global")
    return sdata


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("order", InputError, r"the 81 rows of table 'signatures_pred' are not the 81 shapes 'patches' in their order"),
        ("labels that changed", StaleError, "call `sp.tl.predict` again"),
        ("no place", AlignmentError, "shapes 'patches' has no transformation to 'global'"),
        ("memory", InputError, r"is in memory, and Vitessce reads a store: `sp\.io\.write"),
    ],
)
def test_what_vitessce_would_show_wrongly_is_refused(
    kind: str, error: type[SpatialsigError], message: str, store: Path
) -> None:
    data = _foreign(kind, sd.deepcopy(sp.io.read(store)))
    with pytest.raises(error, match=message):
        configuration(data)


def test_what_is_in_memory_only_is_named(store: Path) -> None:
    data = sp.io.read(store)
    data["new"] = data["signatures"].copy()
    with pytest.raises(InputError, match=r"does not hold \['tables/new'\], which are in memory only"):
        configuration(data, table_key="new")


@pytest.mark.parametrize("url", ["our-lab.org/stores", "/data/stores", "ftp://our-lab.org", "https://", f"{BASE}?a=1"])
def test_an_address_that_no_browser_reaches_is_refused(url: str, store: Path) -> None:
    with pytest.raises(InputError, match=r"`url='.*'` is no address of a folder"):
        sp.pl.vitessce(store, url=url)


def test_names_that_are_not_there_are_listed(store: Path) -> None:
    for options, message in (
        ({"color": "Nope"}, r"`color='Nope'` is not in table 'signatures_pred' of slide 'toy'; .*'Immune_T'"),
        ({"table_key": "Nope"}, r"`table_key='Nope'`.*Call `sp\.tl\.aggregate_patches` first"),
        ({"image_key": "Nope"}, r"`image_key='Nope'`"),
    ):
        with pytest.raises(KeyMissingError, match=message):
            sp.pl.vitessce(store, url=BASE, **options)


def test_several_slides_are_refused(cohort: object) -> None:
    with pytest.raises(InputError, match=r"vitessce shows one slide; got 2"):
        sp.pl.vitessce(cohort, url=BASE)


def test_without_the_package_the_fix_is_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vitessce", None)
    with pytest.raises(InputError, match=r"pip install 'spatialsig\[vitessce\]', on Python 3\.12"):
        sp.pl.vitessce(store, url=BASE)


def test_the_command_writes_the_same_configuration(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "config.json"
    words = [
        "vitessce",
        str(store),
        "-o",
        str(out),
        "--url",
        f"{BASE}/",
        "--color",
        "Fibroblast",
        "--table-key",
        "signatures",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text()) == configuration(store, "Fibroblast", "signatures")


@pytest.mark.parametrize("table_key", TABLES)
def test_the_package_makes_the_same(table_key: str, store: Path) -> None:
    """Views, scopes and files as the package's own builder makes them, of one and the same page."""
    vitessce = the_package()
    ours = sp.pl.vitessce(store, url=BASE, table_key=table_key)
    assert isinstance(ours, vitessce.VitessceConfig)
    wanted = configuration(store, table_key=table_key)
    made = ours.to_dict()
    for part in ("version", "datasets", "coordinationSpace", "layout", "initStrategy"):
        assert made[part] == wanted[part], part
    circles, obs = table_key == "table", "cell" if table_key == "table" else "patch"
    theirs = vitessce.VitessceConfig(schema_version=wanted["version"], name="toy")
    (file,) = wanted["datasets"][0]["files"]
    wrapper = vitessce.SpatialDataWrapper(
        sdata_url=file["url"], image_path="images/he_image", table_path=f"tables/{table_key}",
        obs_feature_matrix_path=f"tables/{table_key}/X", coordinate_system="global", coordination_values=file["coordinationValues"],
        **({"obs_spots_path": "shapes/cell_circles"} if circles else {"obs_segmentations_path": "shapes/patches"}),
    )  # fmt: skip
    dataset = theirs.add_dataset(name="toy").add_object(wrapper)
    assert theirs.to_dict(base_url="")["datasets"][0]["files"] == [file]
    spatial, layers = (theirs.add_view(name, dataset=dataset) for name in ("spatialBeta", "layerControllerBeta"))
    level, prefix = vitessce.CoordinationLevel, vitessce.get_initial_coordination_scope_prefix
    coloured = {
        "obsColorEncoding": "geneSelection",
        "featureValueColormap": "viridis",
        "featureValueColormapRange": [0.0, 1.0],
    }
    theirs.link_views_by_dict(
        [spatial, layers],
        {"imageLayer": level([{"photometricInterpretation": "RGB"}])},
        scope_prefix=prefix("A", "image"),
    )
    if circles:
        drawn = {"spotLayer": level([{"obsType": obs, "spatialLayerOpacity": 0.6, **coloured}])}
    else:
        channel = {"obsType": obs, "spatialChannelOpacity": 0.6, "spatialSegmentationFilled": True, **coloured}
        drawn = {"segmentationLayer": level([{"spatialLayerOpacity": 1.0, "segmentationChannel": level([channel])}])}
    theirs.link_views_by_dict(
        [spatial, layers], drawn, scope_prefix=prefix("A", "obsSpots" if circles else "obsSegmentations")
    )
    own = theirs.to_dict(base_url="")
    for kind, scopes in own["coordinationSpace"].items():
        assert scopes.items() <= wanted["coordinationSpace"][kind].items(), kind
    meta = ("metaCoordinationScopes", "metaCoordinationScopesBy")
    for name in meta:
        assert own["layout"][0]["coordinationScopes"][name] == wanted["layout"][0]["coordinationScopes"][name]


def test_the_package_serves_a_store_of_this_machine(store: Path) -> None:
    the_package()
    config = sp.pl.vitessce(store, "Pericyte")
    (file,) = config.to_dict(base_url="http://localhost:8000")["datasets"][0]["files"]
    assert file["url"].startswith("http://localhost:8000/")
    assert file["options"] == configuration(store, "Pericyte")["datasets"][0]["files"][0]["options"]
    assert config.get_routes()
