"""Every change of a slide against every function that reads something made on it: used when fresh, refused when stale."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Sequence, Translation, get_transformation, set_transformation
from typer.testing import CliRunner
from xarray import DataTree

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import InputError, SpatialsigWarning, StaleError
from spatialsig.models.triage import Calibration
from spatialsig.slide import parts
from spatialsig.slide.slides import Slide
from spatialsig.store.metadata import read_attrs

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))

# what every part is made from, by hand: the oracle of this file
CALIBRATION = Calibration(  # one slide that was right
    np.array(["X"]), np.array(["PX"]), np.zeros(1), np.ones((1, 6)), np.ones((1, 6)), np.zeros((1, 6)), qc=False
)
MADE_FROM = {
    "tissue": {"pixels", "place"},
    "patches": {"pixels", "place", "tissue"},
    "stain": {"pixels", "patches"},
    "membership": {"positions", "patches", "place"},
    "scores": {"counts"},
    "variable genes": {"counts"},
    "layer": {"counts"},
    "embedding": {"counts"},
    "labels": {"patches", "place", "membership", "positions", "scores", "embedding"},
    "types": {"patches", "place", "membership", "positions", "cell types"},
    "mean layer": {"patches", "place", "membership", "positions", "layer", "scores"},
    "features": {"pixels", "patches", "stain"},
    "predictions": {"pixels", "patches", "stain"},
    "fused": {"pixels", "patches", "stain", "labels", "embedding of patches"},
    "by features": {"patches", "features"},
    "attention": {"pixels", "patches", "stain"},
    "map": {"pixels", "place", "tissue", "stain"},
    "nuclei": {"pixels", "place", "tissue"},
    "cells": {"pixels", "place", "tissue", "stain", "map", "positions"},
}


def is_stale(part: str, changed: set[str]) -> bool:
    """Whether something that a part was made from, near or far, is another one now, unless it was made again itself."""
    near = MADE_FROM.get(part, set())
    return part not in changed and any(source in changed or is_stale(source, changed) for source in near)


@pytest.fixture(scope="module")
def models() -> dict[str, object]:
    return {}


@pytest.fixture(scope="module")
def slide(models: dict[str, object]) -> sd.SpatialData:
    slide = sp.datasets.toy(size_um=300)
    cells = slide["table"]
    cells.obs["cell_type"] = cells.obs["cell_type"].astype("category")
    sp.pp.qc_alignment(slide)
    sp.pp.split(slide, by="block", n_folds=2, block_um=100, buffer_um=0)
    sp.pp.find_tissue(slide)
    sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
    sp.pp.normalize_stain(slide)
    sp.pp.assign_cells(slide)
    sp.tl.score_cells(slide, "seed")
    sp.pp.highly_variable_genes(slide, n_top_genes=80, test_fold=0)
    sp.pp.normalize(slide)
    models["ae"] = sp.tl.train_autoencoder(slide, signatures="seed", n_latent=4, hidden=(16,), max_epochs=1)
    sp.tl.embed_cells(slide, models["ae"])
    sp.tl.aggregate_patches(slide, min_cells=3)
    sp.tl.aggregate_patches(slide, targets={"obs": "cell_type"}, use_rep=None, min_cells=3, key_added="types")
    sp.tl.aggregate_patches(slide, layers=["lognorm"], use_rep=None, min_cells=3, key_added="mean_layer")
    models["vit"] = sp.tl.train_vit(slide, size=TINY, max_epochs=1)
    sp.tl.embed_patches(slide, sp.tl.pretrain_vit(slide, size=TINY, max_epochs=1), key_added="features")
    models["by features"] = sp.tl.train_vit(slide, backbone="table:features", use_rep=None, max_epochs=1)
    sp.tl.predict(slide, models["vit"])
    sp.tl.predict(slide, models["vit"], use_rep="X_ae", key_added="fused")
    sp.tl.predict(slide, models["by features"], key_added="by_features")
    models["vit"].triage = {"H&E": CALIBRATION}
    sp.tl.attention(slide, models["vit"], signatures=["Immune_T"], patches=[0, 1], n_steps=2)
    sp.tl.signature_map(slide, models["vit"], stride_um=56.0)
    sp.pp.find_nuclei(slide)
    sp.tl.predict_cells(slide, models["vit"])
    return slide


def replaced_pixels(slide: sd.SpatialData) -> None:
    before = slide["he_image"]
    pixels = before["scale0"]["image"].to_numpy()[:, ::-1, ::-1]
    frames = get_transformation(before, get_all=True)
    slide["he_image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], scale_factors=[2, 2], transformations=frames
    )


def replaced_level(slide: sd.SpatialData) -> None:
    """A coarser level alone, as other software writes it; the finest stays."""
    level = slide["he_image"]["scale1"]["image"]
    slide["he_image"]["scale1"]["image"] = level.copy(data=255 - level.data)


def moved_image(slide: sd.SpatialData) -> None:
    before = get_transformation(slide["he_image"], "global")
    set_transformation(slide["he_image"], Sequence([before, Translation([40, 0], ("x", "y"))]), "global")


def changed_counts(slide: sd.SpatialData) -> None:
    slide["table"].X = slide["table"].X * 2


def moved_cells(slide: sd.SpatialData) -> None:
    slide["table"].obsm["spatial"] = slide["table"].obsm["spatial"] + 30


def other_tissue(slide: sd.SpatialData) -> None:
    sp.pp.find_tissue(slide, sensitivity=0.5)


def other_patches(slide: sd.SpatialData) -> None:
    sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0, stride_um=50)
    sp.pp.normalize_stain(slide)


def other_stain(slide: sd.SpatialData) -> None:
    sp.pp.normalize_stain(slide, n_patches=12)


def other_scores(slide: sd.SpatialData) -> None:
    sp.tl.score_cells(slide, "seed", method="ucell")


def other_embedding(slide: sd.SpatialData) -> None:
    slide["table"].obsm["X_ae"] = slide["table"].obsm["X_ae"][::-1].copy()


def other_layer(slide: sd.SpatialData) -> None:
    sp.pp.normalize(slide, target_sum=50)


def other_types(slide: sd.SpatialData) -> None:
    slide["table"].obs["cell_type"] = slide["table"].obs["cell_type"].cat.rename_categories(str.upper)


def other_features(slide: sd.SpatialData) -> None:
    slide["features"].X = slide["features"].X + 1


def other_labels(slide: sd.SpatialData) -> None:
    slide["signatures"].obsm["X_ae"] = slide["signatures"].obsm["X_ae"] + 1


# change -> the parts that are other than before
CHANGES: dict[Callable[[sd.SpatialData], None], set[str]] = {
    replaced_pixels: {"pixels"},
    replaced_level: {"pixels"},
    moved_image: {"place"},
    changed_counts: {"counts"},
    moved_cells: {"positions"},
    other_tissue: {"tissue"},
    other_patches: {"patches", "stain"},
    other_stain: {"stain"},
    other_scores: {"scores"},
    other_embedding: {"embedding"},
    other_layer: {"layer"},
    other_types: {"cell types"},
    other_features: {"features"},
    other_labels: {"embedding of patches"},
}


Change = Callable[[sd.SpatialData], None]
Reader = Callable[[sd.SpatialData, dict[str, object], Path], object]
TRAIN = {"size": TINY, "max_epochs": 1, "use_rep": None}

# function -> what it reads, and a call of it
READERS: dict[str, tuple[set[str], Reader]] = {
    "make_patches": ({"tissue"}, lambda s, m, p: sp.pp.make_patches(s, patch_px=28, um_per_px=2.0, key_added="new")),
    "assign_cells": ({"patches"}, lambda s, m, p: sp.pp.assign_cells(s)),
    "qc_patches": ({"patches", "stain"}, lambda s, m, p: sp.pp.qc_patches(s)),
    "normalize_stain": ({"patches"}, lambda s, m, p: sp.pp.normalize_stain(s)),
    "train_autoencoder": (
        {"variable genes"},
        lambda s, m, p: sp.tl.train_autoencoder(s, signatures="seed", n_latent=4, hidden=(16,), max_epochs=1),
    ),
    "aggregate_patches": (
        {"patches", "membership", "scores", "embedding"},
        lambda s, m, p: sp.tl.aggregate_patches(s, min_cells=3, key_added="new"),
    ),
    "aggregate_patches of types": (
        {"patches", "membership"},
        lambda s, m, p: sp.tl.aggregate_patches(s, targets={"obs": "cell_type"}, use_rep=None, key_added="new"),
    ),
    "aggregate_patches of a layer": (
        {"patches", "membership", "layer"},
        lambda s, m, p: sp.tl.aggregate_patches(s, targets={"layers": "lognorm"}, use_rep=None, key_added="new"),
    ),
    "train_vit": ({"labels", "patches", "stain"}, lambda s, m, p: sp.tl.train_vit(s, **TRAIN)),
    "train_vit on features": (
        {"labels", "features", "patches"},
        lambda s, m, p: sp.tl.train_vit(s, backbone="table:features", max_epochs=1, use_rep=None),
    ),
    "train_probe": ({"labels", "features", "patches"}, lambda s, m, p: sp.tl.train_probe(s, "features")),
    "evaluate": ({"labels", "patches", "stain"}, lambda s, m, p: sp.tl.evaluate(s, m["vit"])),
    "baselines": ({"labels", "patches", "stain"}, lambda s, m, p: sp.tl.baselines(s)),
    "calibrate": (
        {"labels", "patches", "stain"},
        lambda s, m, p: sp.tl.calibrate(s, copy.copy(m["vit"]), fold=0, coverage=0.8),
    ),
    "embedding_leak": ({"labels", "patches"}, lambda s, m, p: sp.tl.embedding_leak(s)),
    "noise_ceiling": ({"labels", "patches", "membership"}, lambda s, m, p: sp.tl.noise_ceiling(s)),
    "predict": ({"patches", "stain"}, lambda s, m, p: sp.tl.predict(s, m["vit"], key_added="new")),
    "predict fused": (
        {"patches", "stain", "labels"},
        lambda s, m, p: sp.tl.predict(s, m["vit"], use_rep="X_ae", key_added="new"),
    ),
    "predict by features": (
        {"patches", "features"},
        lambda s, m, p: sp.tl.predict(s, m["by features"], key_added="new"),
    ),
    "embed_patches": ({"patches", "stain"}, lambda s, m, p: sp.tl.embed_patches(s, m["vit"], key_added="new")),
    "attention": (
        {"patches", "stain"},
        lambda s, m, p: sp.tl.attention(s, m["vit"], signatures=["Immune_T"], patches=[0], n_steps=2, key_added="new"),
    ),
    "signature_map": (
        {"tissue", "patches", "stain"},
        lambda s, m, p: sp.tl.signature_map(s, m["vit"], signatures=["Immune_T"], stride_um=56.0, key_added="new"),
    ),
    "triage": ({"predictions"}, lambda s, m, p: sp.tl.triage(s, m["vit"], error_rate=0.5)),
    "pl.patches": ({"predictions"}, lambda s, m, p: sp.pl.patches(s, "Immune_T", table_key="signatures_pred")),
    "pl.patches of labels": ({"labels"}, lambda s, m, p: sp.pl.patches(s, "Immune_T", table_key="signatures")),
    "pl.patches of types": ({"types"}, lambda s, m, p: sp.pl.patches(s, "T_cell", table_key="types")),
    "pl.patches of a layer": ({"mean layer"}, lambda s, m, p: sp.pl.patches(s, "Immune_T", table_key="mean_layer")),
    "pl.patches of fused": ({"fused"}, lambda s, m, p: sp.pl.patches(s, "Immune_T", table_key="fused")),
    "pl.patches by features": (
        {"by features"},
        lambda s, m, p: sp.pl.patches(s, "Immune_T", table_key="by_features"),
    ),
    "pl.compare": ({"labels", "predictions"}, lambda s, m, p: sp.pl.compare(s, "Immune_T")),
    "pl.scatter": ({"labels", "predictions"}, lambda s, m, p: sp.pl.scatter(s, ["Immune_T"])),
    "pl.calibration": ({"labels", "predictions"}, lambda s, m, p: sp.pl.calibration(s, "Immune_T")),
    "pl.atlas": ({"labels", "predictions"}, lambda s, m, p: sp.pl.atlas(s, p / "atlas.html")),
    "pl.gallery": ({"labels", "predictions", "stain"}, lambda s, m, p: sp.pl.gallery(s, "Immune_T", n=1)),
    "pl.attention": ({"attention", "predictions", "stain"}, lambda s, m, p: sp.pl.attention(s, "Immune_T", n=1)),
    "export_geojson": ({"predictions"}, lambda s, m, p: sp.io.export_geojson(s, p / "a.geojson")),
    "export_heatmap": ({"predictions"}, lambda s, m, p: sp.io.export_heatmap(s, p / "a.ome.tif", "Immune_T")),
    "predict_cells": (
        {"tissue", "patches", "stain"},
        lambda s, m, p: sp.tl.predict_cells(s, m["vit"], method="patch", key_added="new"),
    ),
    "predict_cells of nuclei": (
        {"nuclei", "patches", "stain"},
        lambda s, m, p: sp.tl.predict_cells(s, m["vit"], method="patch", cells="nuclei", key_added="new"),
    ),
    "train_cell_head": (
        {"scores", "tissue", "patches", "stain"},
        lambda s, m, p: sp.tl.train_cell_head(s, m["vit"]),
    ),
    "evaluate_cells": ({"cells", "scores"}, lambda s, m, p: sp.tl.evaluate_cells(s, n_repeats=1)),
    "export_explorer_groups": (
        {"cells"},
        lambda s, m, p: sp.io.export_explorer_groups(s, p / "g.csv", "Immune_T"),
    ),
    "export_geojson of cells": (
        {"cells"},
        lambda s, m, p: sp.io.export_geojson(s, p / "a.geojson", table_key="cells_pred"),
    ),
    "export_heatmap of a map": (
        {"map"},
        lambda s, m, p: sp.io.export_heatmap(s, p / "a.ome.tif", "Immune_T", map_key="signature_map"),
    ),
}


@pytest.fixture(scope="module")
def changed(slide: sd.SpatialData) -> Callable[[Change], sd.SpatialData]:
    """Slide after a change, made once: what refuses it must leave it as it was."""
    made: dict[Change, sd.SpatialData] = {}

    def of(change: Change) -> sd.SpatialData:
        if change not in made:
            made[change] = sd.deepcopy(slide)
            change(made[change])
        return made[change]

    return of


# name of a part in this file -> its name in the record
PARTS = {
    "tissue": "tissue",
    "patches": "patches",
    "stain": "patches/stain",
    "membership": "table/obsm/patch_membership",
    "scores": "table/obsm/signatures",
    "variable genes": "table/var/highly_variable",
    "layer": "table/layers/lognorm",
    "embedding": "table/obsm/X_ae",
    "labels": "signatures",
    "types": "types",
    "mean layer": "mean_layer",
    "features": "features",
    "predictions": "signatures_pred",
    "fused": "fused",
    "by features": "by_features",
    "attention": "attention",
    "map": "signature_map",
    "nuclei": "nuclei",
    "cells": "cells_pred",
}
STALE_READS = [
    (change, reader)
    for change, parts in CHANGES.items()
    for reader, (reads, _) in READERS.items()
    if any(is_stale(part, parts) for part in reads)
]


@pytest.mark.filterwarnings("ignore:.*fewer than 10 labelled patches")  # of so small a slide
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore:single cells of .* are predicted no better")
def test_what_is_fresh_is_used(reader: str, slide: sd.SpatialData, models: dict[str, object], tmp_path: Path) -> None:
    READERS[reader][1](sd.deepcopy(slide), models, tmp_path)
    plt.close("all")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_change_makes_stale_and_nothing_else(
    change: Change, changed: Callable[[Change], sd.SpatialData]
) -> None:
    state = sp.io.status(changed(change)).set_index("part")["state"]
    expected = {part for name, part in PARTS.items() if is_stale(name, CHANGES[change])}
    assert {part for part in PARTS.values() if state.get(part) == "stale"} == expected


@pytest.mark.parametrize(
    ("change", "reader"), STALE_READS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_what_is_stale_is_refused(
    change: Change,
    reader: str,
    models: dict[str, object],
    changed: Callable[[Change], sd.SpatialData],
    tmp_path: Path,
) -> None:
    before = sorted(name for _, name, _ in changed(change).gen_elements())
    with pytest.raises(StaleError, match=r"call `sp\.(pp|tl)\.\w+` again"):
        READERS[reader][1](changed(change), models, tmp_path)
    assert sorted(name for _, name, _ in changed(change).gen_elements()) == before  # nothing was written
    plt.close("all")


def test_the_grid_is_as_large_as_it_looks() -> None:
    assert len(READERS) >= 30
    assert len(STALE_READS) >= 150


def test_cells_and_genes_may_be_left_out(slide: sd.SpatialData) -> None:
    """What belongs to the cells that stay still holds; labels were made of all cells."""
    data = sd.deepcopy(slide)
    table = data["table"]
    data["table"] = table[table.obs["cell_type"] != "T_cell", table.var_names[3:]].copy()
    state = sp.io.status(data).set_index("part")["state"]
    assert set(state[state == "stale"].index) >= {"signatures", "fused"}
    assert set(state.filter(like="table/")) == {"fresh"}
    sp.tl.aggregate_patches(data, min_cells=3, key_added="new")


@pytest.mark.parametrize("form", ["cells", "genes", "columns", "dense"])
def test_order_and_form_of_a_table_do_not_matter(slide: sd.SpatialData, form: str) -> None:
    data = sd.deepcopy(slide)
    table = data["table"]
    if form == "cells":
        data["table"] = table[np.argsort(table.obs["cell_type"].astype(str), kind="stable")].copy()
    elif form == "genes":
        data["table"] = table[:, ::-1].copy()
    else:
        table.X = table.X.tocsc() if form == "columns" else table.X.toarray()
    assert set(sp.io.status(data)["state"]) == {"fresh"}


def test_values_that_change_places_with_another_form_are_seen(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    data["table"].X = data["table"].X.toarray()[::-1]
    assert sp.io.status(data).set_index("part").loc["table/obsm/signatures", "state"] == "stale"


def test_two_sets_of_patches_stand_side_by_side(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    sp.pp.make_patches(data, patch_px=28, um_per_px=2.0, stride_um=50, key_added="second")
    sp.pp.assign_cells(data, patches_key="second")
    sp.tl.aggregate_patches(data, patches_key="second", use_rep=None, min_cells=3, key_added="second_labels")
    sp.pl.patches(data, "Immune_T", table_key="signatures")
    plt.close("all")
    with pytest.raises(InputError, match="cells are assigned to the patches of 'second', not of 'patches'"):
        sp.tl.aggregate_patches(data, use_rep=None)


def test_a_selection_with_other_values_is_no_selection(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    data["table"] = data["table"][:400].copy()
    data["table"].X = data["table"].X * 3
    with pytest.raises(
        StaleError, match=r"`tables\['table'\]\.X`, which changed afterwards; call `sp\.tl\.score_cells`"
    ):
        sp.tl.aggregate_patches(data, use_rep=None)


def test_filtered_cells_need_new_labels(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    sp.pp.filter_cells(data, min_counts=60)
    with pytest.raises(StaleError, match=r"call `sp\.tl\.aggregate_patches` again"):
        sp.tl.train_vit(data, **TRAIN)


def test_a_store_knows_what_was_changed_by_others(slide: sd.SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    sp.io.write(slide, path)
    assert set(sp.io.status(path)["state"]) == {"fresh"}
    assert "stale" not in set(sp.io.verify(path)["status"])
    theirs = sd.read_zarr(path)
    patches = theirs["patches"]
    theirs["patches"] = patches.assign(y0=patches["y0"] + 3, geometry=patches.geometry.translate(0, 3))
    theirs.delete_element_from_disk("patches")
    theirs.write_element("patches")
    stale = sp.io.status(path).query("state == 'stale'")["part"]
    assert {"table/obsm/patch_membership", "signatures", "signatures_pred", "attention"} <= set(stale)
    with pytest.raises(StaleError, match=r"call `sp\.pp\.assign_cells` again"):
        sp.tl.aggregate_patches(path)
    done = CliRunner().invoke(app, ["status", str(path), "--quiet"])
    assert done.exit_code == 1
    assert "call `sp.pp.assign_cells` again" in done.stdout


def test_steps_on_a_store_leave_the_record_with_what_they_write(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    sp.io.write(sp.datasets.toy(size_um=200), path)
    sp.pp.make_patches(path, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(path)
    recorded = read_attrs(path)["spatialsig"]["lineage"]
    assert set(recorded) == {"patches", "table/obsm/patch_membership"}
    assert set(recorded["table/obsm/patch_membership"]["from"]) == {"patches", "table/obsm/spatial", "he_image/place"}
    sp.pp.make_patches(path, patch_px=28, um_per_px=2.0)  # the same patches: nothing is stale
    assert set(sp.io.status(path)["state"]) == {"fresh"}
    sp.pp.make_patches(path, patch_px=56, um_per_px=2.0)
    assert list(sp.io.status(path).query("state == 'stale'")["part"]) == ["table/obsm/patch_membership"]
    assert "stale" in set(sp.io.verify(path)["status"])


def test_what_carries_no_record_is_taken_as_it_is(slide: sd.SpatialData, models: dict[str, object]) -> None:
    data = sd.deepcopy(slide)
    moved_cells(data)
    del data.attrs["spatialsig"]["lineage"]
    sp.tl.aggregate_patches(data, min_cells=3)
    sp.tl.predict(data, models["vit"])


def test_a_model_is_not_judged_on_folds_that_were_laid_after_it(
    slide: sd.SpatialData, models: dict[str, object]
) -> None:
    data = sd.deepcopy(slide)
    sp.pp.split(data, by="block", n_folds=2, block_um=100, buffer_um=0, seed=1)
    for part in ("table/obsm/signatures", "table/obsm/X_ae", "table/var/highly_variable"):
        assert sp.io.status(data).set_index("part").loc[part, "state"] == "stale"
    del data.attrs["spatialsig"]["lineage"]
    with pytest.raises(StaleError, match="its folds were assigned again after the model was trained"):
        sp.tl.evaluate(data, models["vit"])
    with pytest.raises(StaleError, match="its folds were assigned again after the model was trained"):
        sp.tl.calibrate(data, copy.copy(models["vit"]), fold=0)


def test_maps_of_another_model_are_not_drawn_beside_its_scores(
    slide: sd.SpatialData, models: dict[str, object]
) -> None:
    data = sd.deepcopy(slide)
    other = sp.tl.train_vit(data, seed=5, **TRAIN)
    sp.tl.predict(data, other)
    with pytest.raises(StaleError, match="the maps are of another model than the scores in table 'signatures_pred'"):
        sp.pl.attention(data, "Immune_T", n=1)
    sp.tl.attention(data, other, signatures=["Immune_T"], patches=[0, 1], n_steps=2)
    sp.pl.attention(data, "Immune_T", n=1)
    plt.close("all")


def edit(slide: sd.SpatialData, part: str, aspect: str) -> None:
    """Change one value of a derived part, or of what an element holds beside, in place as users do."""
    key, _, inside = part.partition("/")
    section, _, name = (aspect or inside or "X").partition("/")
    if inside == "stain":
        slide.attrs["spatialsig"]["patches"][key]["stain"]["matrix"][0][0] += 0.01
    elif key in slide.images:
        image = slide[key]
        (image["scale0"]["image"] if isinstance(image, DataTree) else image).data[0, 0, 0] = 7.0
    elif key in slide.tables and section in {"X", "obsm", "layers"}:
        values = getattr(slide[key], section)
        values = values if section == "X" else values[name]
        values = values.data if hasattr(values, "indptr") else values
        if isinstance(values, pd.DataFrame):
            values.iloc[0, 0] += 1
        else:
            values[(0,) * values.ndim] += 1
    else:
        frame = getattr(slide[key], section) if key in slide.tables else slide[key]
        if key == "patches" and not name:  # moved, with their outlines
            frame["y0"] += 3
            frame["geometry"] = frame["geometry"].translate(0, 3)
            return
        column = name or "geometry"
        frame[column] = other_values(frame[column])


def other_values(column: pd.Series) -> pd.Series:
    if column.name == "geometry":
        return column.translate(1, 0)
    values = column.astype(object)
    values.iloc[0] = {bool: True, str: "another"}.get(type(values.iloc[0]), 99) if values.iloc[0] is not True else False
    return values


def test_whatever_is_changed_by_hand_is_reported_and_taken(slide: sd.SpatialData) -> None:
    """Every derived part, one at a time: it is ``changed``, what was made from it is stale, nothing else is."""
    parts = list(slide.attrs["spatialsig"]["lineage"])
    assert len(parts) >= 18
    for part in parts:
        data = sd.deepcopy(slide)
        edit(data, part, "")
        found = sp.io.status(data).set_index("part")
        assert list(found.index[found["state"] == "changed"]) == [part]
        assert f"changed since `{found.loc[part, 'made_by']}` wrote it" in found.loc[part, "detail"]
        name = next((name for name, named in PARTS.items() if named == part and name != "labels"), None)
        expected = set() if name is None else {PARTS[other] for other in PARTS if is_stale(other, {name})}
        assert set(found.index[found["state"] == "stale"]) == expected, part  # fused reads no labels, but their obsm


def test_outlines_of_patches_moved_alone_are_listed_and_refused(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    data["patches"]["geometry"] = data["patches"]["geometry"].translate(40, 0)
    found = sp.io.status(data).set_index("part")
    assert found.loc["patches", "state"] == "stale"
    assert "are not the squares that their columns x0, y0 say" in found.loc["patches", "detail"]
    with pytest.raises(StaleError, match="are not the squares that their columns x0, y0 say"):
        sp.tl.aggregate_patches(data)


def test_labels_go_with_the_membership_they_were_made_from(slide: sd.SpatialData) -> None:
    """Not with that of cells in other patches, which takes its place."""
    data = sd.deepcopy(slide)
    sp.pp.make_patches(data, patch_px=28, um_per_px=2.0, stride_um=90, key_added="others")
    sp.pp.assign_cells(data, patches_key="others")
    assert sp.io.status(data).set_index("part").loc["signatures", "state"] == "fresh"
    sp.pp.assign_cells(data)
    data["table"].obsm["patch_membership"].data[0] = 0
    found = sp.io.status(data).set_index("part")
    assert found.loc["signatures", "state"] == "stale"
    assert "made from `tables['table'].obsm['patch_membership']`, which changed" in found.loc["signatures", "detail"]


def test_rows_left_out_are_said_to_be(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    data["table"] = data.tables.pop("table")[10:].copy()
    detail = sp.io.status(data).set_index("part").loc["signatures", "detail"]
    assert "of which rows were left out afterwards; call `sp.tl.aggregate_patches` again" in detail


def test_so_is_whatever_elements_hold_beside(slide: sd.SpatialData) -> None:
    """Columns of patches and of labels, and their obsm and layers: more than 60 of them."""
    data = sd.deepcopy(slide)
    recorded = data.attrs["spatialsig"]["lineage"]
    held = {(part, aspect) for part, entry in recorded.items() for aspect in entry["held"]}
    assert len(held) >= 60
    for part, aspect in sorted(held):
        edit(data, part, aspect)
    lineage = Slide(data).lineage
    assert {(part, aspect) for part in recorded for aspect in lineage.by_hand(part)} == held
    found = sp.io.status(data).set_index("part")
    assert set(found.index[found["state"] == "changed"]) == {part for part, _ in held} - {"fused"}
    assert found.loc["fused", "state"] == "stale"  # made from the embedding of the patches
    assert "changed since `sp.tl.predict` wrote" in found.loc["fused", "detail"]


def test_what_was_changed_by_hand_is_never_booked_as_ours(slide: sd.SpatialData, tmp_path: Path) -> None:
    data = sd.deepcopy(slide)
    data["patches"].loc[3, "tissue_fraction"] = 0.123
    data["signatures"].X[2] += 1
    data["signatures"].obs["fold"] = 1
    data["signatures"].obs["mine"] = data["patches"]["mine"] = 1  # columns of the user's own are no change
    sp.pp.qc_patches(data)  # writes the patches again
    with pytest.warns(SpatialsigWarning, match=r"`tables\['signatures'\]\.obs\['fold'\]` was changed by hand"):
        model = sp.tl.train_vit(data, **TRAIN)
    assert model.run["inputs"]["targets"]["changed_by_hand"] == [data.attrs["spatialsig"]["sample"]]
    path = tmp_path / "a.zarr"
    data.write(path)
    for where in (data, path):
        found = sp.io.status(where).set_index("part")
        assert list(found.index[found["state"] == "changed"]) == ["patches", "signatures"]
    assert (
        "`shapes['patches']['tissue_fraction']` changed since `sp.pp.make_patches` wrote it"
        in found.loc["patches", "detail"]
    )
    assert set(sp.io.verify(path).query("status == 'changed'")["element"]) == {"patches", "signatures"}
    shown = CliRunner().invoke(app, ["status", str(path), "--quiet"])
    assert shown.exit_code == 0
    assert "table 'signatures' changed since `sp.tl.aggregate_patches` wrote it" in shown.stdout
    sp.pp.split(path, by="block", n_folds=2, block_um=100, buffer_um=0)
    sp.tl.aggregate_patches(path, min_cells=3)
    assert set(sp.io.status(path).query("part == 'signatures'")["state"]) == {"fresh"}


def of_no_patches(table: ad.AnnData) -> ad.AnnData:
    table = table[:0].copy()
    del table.uns["spatialdata_attrs"]  # spatialdata takes no table of nothing that annotates something
    return table


def of_another_slide(table: ad.AnnData) -> ad.AnnData:
    table = table.copy()
    table.obs["sample"] = "another"
    return table


def of_more_patches(table: ad.AnnData) -> ad.AnnData:
    table = table.copy()
    table.obs["patch_id"] = table.obs["patch_id"] + 1000
    return table


def of_ids_as_text(table: ad.AnnData) -> ad.AnnData:
    table = table.copy()
    table.obs["patch_id"] = table.obs["patch_id"].astype(str)
    return table


FOREIGN = {
    of_ids_as_text: r"table '\w+' of slide 'toy' names patches by str \('0'\), the ids of 'patches' are of type int: convert",
    of_no_patches: r"slide 'toy': table '\w+' has no rows; wanted those of the \d+ patches 'patches' of this slide \(0, 1, 2 and",
    of_another_slide: r"slide 'toy': \d+ of \d+ rows of table '\w+' belong to slide 'another' .* wanted those of the \d+ patches",
    of_more_patches: r"table '\w+' of slide 'toy' describes \d+ patches that are not in 'patches' \(1000, .* another slide\. Make",
}
OF_PATCHES = {"labels", "types", "mean layer", "features", "predictions", "fused", "by features"}
TABLE_READERS = [reader for reader, (reads, _) in READERS.items() if reads & OF_PATCHES and reader != "pl.attention"]


@pytest.fixture(scope="module")
def foreign(slide: sd.SpatialData) -> dict[object, sd.SpatialData]:
    """The slide with tables that are those of other patches, and no record that says so."""
    made = {}
    for change in FOREIGN:
        made[change] = data = sd.deepcopy(slide)
        del data.attrs["spatialsig"]["lineage"]
        data.attrs["spatialsig"]["sample"] = "toy"
        for key in set(data.tables) - {"table", "cells_pred"}:  # which describe cells
            data[key] = change(data[key])
    return made


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
@pytest.mark.parametrize("reader", TABLE_READERS)
def test_tables_of_other_patches_are_refused(
    change: object, reader: str, foreign: dict[object, sd.SpatialData], models: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=FOREIGN[change]):
        READERS[reader][1](foreign[change], models, tmp_path)
    plt.close("all")


@pytest.mark.filterwarnings("ignore:.*fewer than 10 labelled patches")
def test_rows_of_labels_may_be_left_out_and_in_any_order(slide: sd.SpatialData, models: dict[str, object]) -> None:
    """Where rows were read by their number: the noise ceiling, and with it every evaluation."""
    assert len(TABLE_READERS) >= 18
    data = sd.deepcopy(slide)
    del data.attrs["spatialsig"]["lineage"]
    before = sp.tl.noise_ceiling(data)
    data["signatures"] = data["signatures"][::-1].copy()
    pd.testing.assert_frame_equal(sp.tl.noise_ceiling(data), before)
    data["signatures"] = data["signatures"][5:].copy()
    assert len(sp.tl.evaluate(data, models["vit"]))


def test_every_result_is_called_by_a_word_of_the_field() -> None:
    """Each function that makes one has words, none too many, and they are told beside its key."""
    source = Path(sp.__file__).parent
    makers = {
        name for file in source.rglob("*.py") for name in re.findall(r'made_by="((?:pp|tl)\.\w+)"', file.read_text())
    }
    assert makers == parts.WHAT.keys()
    assert len(set(parts.WHAT.values())) == len(parts.WHAT)
    found = sp.io.status(sp.datasets.toy_study(predicted=True)).set_index("part")["what"]
    assert found["signatures"] == "measured scores of the patches, their labels"
    assert found["signatures_pred"] == "predicted scores of the patches"
    assert set(found) <= set(parts.WHAT.values())
