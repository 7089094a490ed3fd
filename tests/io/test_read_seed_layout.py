"""The prototype's files read back: what was exported, what the prototype itself wrote, and every damage by its name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from PIL import Image
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.data.patches import read_patches
from spatialsig.errors import FileMissingError, InputError, KeyMissingError, SpatialsigError, StoreError
from spatialsig.slide.slides import Slide

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    """A slide with labels, of which some are missing, and embeddings, of which one is."""
    sdata = sp.datasets.toy_study()
    table = sdata["signatures"]
    table.X[5, 1] = np.nan
    table.obsm["X_ae"] = np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    table.obsm["X_ae"][7] = np.nan
    return sdata


@pytest.fixture(scope="module")
def exported(study: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seed")
    sp.io.export_seed_layout(study, folder, images=True)
    return folder


@pytest.fixture
def layout(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "layout"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("where", ["memory", "store"])
def test_what_was_exported_comes_back(where: str, study: sd.SpatialData, exported: Path, tmp_path: Path) -> None:
    um = sp.io.mpp(study)
    out = None if where == "memory" else tmp_path / "toy.zarr"
    back = sp.io.read_seed_layout(exported, um_per_px=um, patient="P7", out=out)
    slide, before = Slide(back), Slide(study)
    assert (slide.name, slide.patient, sp.io.mpp(back)) == ("toy", "P7", pytest.approx(um))
    patches, ours = slide.patches(), before.patches()
    rows = np.flatnonzero(ours.labels("signatures").measured)
    assert patches.spec.design == pytest.approx(ours.spec.design)
    np.testing.assert_array_equal(patches.origins, ours.origins[rows])
    np.testing.assert_array_equal(patches.ids, np.arange(len(rows)))
    table, labels = back["signatures"], study["signatures"][rows]
    assert list(table.var_names) == list(labels.var_names)
    np.testing.assert_array_equal(table.X, labels.X)
    assert np.isnan(table.X).any()
    np.testing.assert_array_equal(table.obsm["X_ae"], labels.obsm["X_ae"])
    assert np.isnan(table.obsm["X_ae"]).any(axis=1).sum() == 1
    np.testing.assert_array_equal(table.obs["n_cells"], labels.obs["n_cells"])
    np.testing.assert_allclose(table.obsm["spatial"], patches.centres_px * um)
    np.testing.assert_array_equal(
        read_patches(patches.source(), np.arange(len(rows))), read_patches(ours.source(rows), np.arange(len(rows)))
    )
    # and once more: the same files, byte by byte
    sp.io.export_seed_layout(back, tmp_path / "again", images=True)
    assert files(tmp_path / "again") == files(exported)


def test_what_is_read_can_be_learned_from(exported: Path, study: sd.SpatialData) -> None:
    back = sp.io.read_seed_layout(exported, um_per_px=sp.io.mpp(study))
    model = sp.tl.train_vit(back, test_fold=None, size=TINY, max_epochs=1)
    assert model.run["use_rep"] == "X_ae"
    sp.tl.predict(back, model)
    assert np.isfinite(back["signatures_pred"].X).all()
    with pytest.raises(KeyMissingError, match=r"without cells, and `score_cells` needs what comes from cells"):
        sp.tl.score_cells(back, "seed")


def test_pictures_of_patches_that_overlap_lie_on_each_other(patched: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.export_seed_layout(patched, tmp_path, use_rep=None, images=True)
    back = Slide(sp.io.read_seed_layout(tmp_path, um_per_px=1.0)).patches()
    ours = Slide(patched).patches()
    rows = np.flatnonzero(ours.labels("signatures").measured)
    assert back.spec.stride_l0 < back.spec.size_l0
    np.testing.assert_array_equal(
        read_patches(back.source(), np.arange(len(rows))), read_patches(ours.source(rows), np.arange(len(rows)))
    )


def test_labels_alone_are_a_slide_without_an_image(study: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.export_seed_layout(study, tmp_path / "a", use_rep=None)
    back = sp.io.read_seed_layout(tmp_path / "a", um_per_px=0.5, out=tmp_path / "s.zarr")
    assert not list(back.images)
    assert not list(back["signatures"].obsm.keys() - {"spatial"})
    assert (sp.io.verify(tmp_path / "s.zarr")["status"] == "ok").all()
    np.testing.assert_allclose(back["signatures"].obsm["spatial"], Slide(back).patches().centres_px * 0.5)
    sp.io.export_seed_layout(back, tmp_path / "b", use_rep=None)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(KeyMissingError, match="`image_key='he_image'` is not in the images of slide 'toy'"):
        sp.pp.find_tissue(back)


def test_files_as_the_prototype_wrote_them(tmp_path: Path) -> None:
    """Paths of another machine and bare names, tables of any name, columns of text for nothing, patches of two slides."""
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "ae").mkdir()
    for slide, y0, x0 in (("out-0001", 0, 512), ("out-0001", 512, 0), ("out-0002", 1024, 1024)):
        name = f"{slide}_y{y0}_x{x0}"
        Image.fromarray(np.full((512, 512, 3), y0 // 8, np.uint8)).save(tmp_path / f"{name}.png")
        np.save(tmp_path / "ae" / f"{name}.npy", rng.normal(size=32).astype(np.float32))
        rows.append(
            {"slide": slide, "y0": y0, "x0": x0, "size_l0": 512, "n_cells": 40, "png_path": f"{name}.png", "ae_path": f"ae/{name}.npy",
             "Immune_T": 0.25, "Pericyte": np.nan if x0 else 1.5}
        )  # fmt: skip
    rows[0]["png_path"] = f"/cluster/home/someone/patches/{rows[0]['png_path']}"
    pd.DataFrame(rows).to_csv(tmp_path / "patch_labels.csv", index=False)
    with pytest.raises(InputError, match=r"holds the slides \['out-0001', 'out-0002'\]; wanted one: pass `sample=`"):
        sp.io.read_seed_layout(tmp_path, um_per_px=0.25, labels="patch_labels.csv")
    back = sp.io.read_seed_layout(tmp_path, um_per_px=0.25, labels="patch_labels.csv", sample="out-0001")
    assert back["signatures"].var_names.tolist() == ["Immune_T", "Pericyte"]
    np.testing.assert_array_equal(back["signatures"].X, np.array([[0.25, np.nan], [0.25, 1.5]], np.float32))
    np.testing.assert_array_equal(back["signatures"].obsm["X_ae"][1], np.load(tmp_path / "ae" / "out-0001_y512_x0.npy"))
    image = back["he_image"]["scale0"]["image"].to_numpy()
    assert image.shape == (3, 1024, 1024)
    assert [int(image[0, y, x]) for y, x in ((0, 512), (511, 1023), (512, 0), (0, 0))] == [0, 0, 64, 255]


def _edit(column: str, value: object, line: int = 4) -> Callable[[Path], None]:
    """Put a value into a line of the table, counted as an editor does."""

    def edit(folder: Path) -> None:
        table = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
        table.loc[line - 2, column] = value
        table.to_csv(folder / "labels.csv", index=False)

    return edit


def _without(*columns: str) -> Callable[[Path], None]:
    return lambda folder: (
        pd.read_csv(folder / "labels.csv").drop(columns=list(columns)).to_csv(folder / "labels.csv", index=False)
    )


def _twice(folder: Path) -> None:
    table = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    pd.concat([table, table.iloc[[2]]]).to_csv(folder / "labels.csv", index=False)


def _first(folder: Path, kind: str) -> Path:
    return sorted((folder / kind).iterdir())[3]


def _all(folder: Path, kind: str) -> None:
    shutil.rmtree(folder / kind)


def _pictures(folder: Path, width: int, height: int) -> None:
    for picture in (folder / "patches").iterdir():
        Image.new("RGB", (width, height)).save(picture)


SCORES = ("Immune_T", "Immune_B", "Pericyte", "SmoothMuscle", "Fibroblast", "Proliferation")
DAMAGES: dict[str, tuple[Callable[[Path], object], type[SpatialsigError], str]] = {
    "no table": (lambda f: (f / "labels.csv").unlink(), FileMissingError, r"missing \['.*labels\.csv'\].*`labels=`"),
    "a folder": (lambda f: ((f / "labels.csv").unlink(), (f / "labels.csv").mkdir()), InputError, "is a folder; wanted a file"),
    "no text": (lambda f: (f / "labels.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), InputError, "is not UTF-8 text"),
    "empty": (lambda f: (f / "labels.csv").write_text(""), InputError, r"labels\.csv' cannot be read as csv \(it is empty\)"),
    "header alone": (lambda f: (f / "labels.csv").write_text("slide,y0,x0,size_l0,A\n"), InputError, "it lists no patch"),
    "ragged": (lambda f: (f / "labels.csv").open("a").write("toy,1\n"), InputError, r"cannot be read as csv \(.*line"),
    "no place": (_without("x0"), InputError, r"has no column\(s\) \['x0'\]; it has \['slide', 'y0'"),
    "no size": (_without("size_l0"), InputError, r"no column\(s\) \['size_l0'\]"),
    "no slide": (_edit("slide", ""), InputError, "`slide` is empty in line 4"),
    "no score": (_without(*SCORES), InputError, "has no column of a signature"),
    "a place of text": (_edit("y0", "left"), InputError, "line 4: `y0` is 'left'; wanted a whole number"),
    "a place below 0": (_edit("x0", "-56"), InputError, "line 4: `x0` is '-56'"),
    "half a px": (_edit("x0", "56.5"), InputError, r"line 4: `x0` is '56\.5'"),
    "a place without a number": (_edit("x0", ""), InputError, "line 4: `x0` is ''"),
    "a place on the moon": (_edit("x0", "1e12"), InputError, "whole number from 0 to 1,000,000"),
    "two sizes": (_edit("size_l0", "57"), InputError, r"`size_l0` is \[56, 57\]; wanted one size"),
    "a score of text": (_edit("Immune_T", "high"), InputError, "line 4: `Immune_T` is 'high'; wanted a number, or nothing"),
    "an infinite score": (_edit("Immune_T", "inf"), InputError, "line 4: `Immune_T` is 'inf'"),
    "cells of text": (_edit("n_cells", "many"), InputError, "line 4: `n_cells` is 'many'"),
    "a patch twice": (_twice, InputError, r"the patch at y0 \d+, x0 \d+ stands in lines 4, \d+; wanted it once"),
    "no embeddings": (lambda f: _all(f, "embeddings"), FileMissingError, r"files of `ae_path` in .*: missing.*use_rep=None"),
    "no pictures": (lambda f: _all(f, "patches"), FileMissingError, r"files of `png_path` in .*: missing.*images=False"),
    "an embedding of text": (lambda f: _first(f, "embeddings").write_text("1,2,3"), InputError, r"npy' cannot be read as numbers"),
    "half an embedding": (lambda f: _first(f, "embeddings").write_bytes(_first(f, "embeddings").read_bytes()[:-4]), InputError, r"npy' cannot be read"),
    "an embedding of objects": (lambda f: np.save(_first(f, "embeddings"), np.array([{}]), allow_pickle=True), InputError, r"npy' cannot be read"),
    "an embedding of words": (lambda f: np.save(_first(f, "embeddings"), np.array(["a"])), InputError, r"holds <U1 of shape \(1,\)"),
    "a matrix": (lambda f: np.save(_first(f, "embeddings"), np.eye(3)), InputError, r"holds float64 of shape \(3, 3\)"),
    "an infinite embedding": (lambda f: np.save(_first(f, "embeddings"), np.full(3, np.inf)), InputError, "holds 3 infinite values"),
    "another width": (lambda f: np.save(_first(f, "embeddings"), np.zeros(4)), InputError, r"holds 4 numbers, others \[3, 4\]"),
    "a picture of text": (lambda f: _first(f, "patches").write_text("no"), InputError, r"png' is no picture that can be read"),
    "a picture of another size": (lambda f: Image.new("RGB", (20, 20)).save(_first(f, "patches")), InputError, r"has 20 x 20 px \(y, x\); wanted squares of one size"),
    "an oblong picture": (lambda f: Image.new("RGB", (28, 20)).save(_first(f, "patches")), InputError, r"has 20 x 28 px"),
    "oblong pictures": (lambda f: _pictures(f, 28, 20), InputError, r"has 20 x 28 px .*wanted squares"),
    "pictures finer than the slide": (lambda f: _pictures(f, 60, 60), InputError, r"has 60 x 60 px .*of at most the 56 px of the slide"),
    "half a picture": (lambda f: _first(f, "patches").write_bytes(_first(f, "patches").read_bytes()[:200]), InputError, r"image '.*png'"),
    "a gray picture": (lambda f: Image.new("L", (28, 28)).save(_first(f, "patches")), InputError, "a gray image has no stain colours"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named(damage: str, layout: Path, tmp_path: Path) -> None:
    harm, kind, message = DAMAGES[damage]
    harm(layout)
    with pytest.raises(kind, match=message):
        sp.io.read_seed_layout(layout, um_per_px=1.0, out=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_arguments_that_cannot_be(layout: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyMissingError, match=r"`sample='other'` is not in the column `slide` of .*'toy'"):
        sp.io.read_seed_layout(layout, um_per_px=1.0, sample="other")
    sp.io.read_seed_layout(layout, um_per_px=1.0, images=False, use_rep=None, out=tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="exists"):
        sp.io.read_seed_layout(layout, um_per_px=1.0, out=tmp_path / "s.zarr")


def test_the_command_reads_every_slide_into_a_store(layout: Path, tmp_path: Path) -> None:
    table = pd.read_csv(layout / "labels.csv")
    table.loc[table.index[::2], "slide"] = "second"
    table.to_csv(layout / "labels.csv", index=False)
    words = ["import", str(layout), "--out", str(tmp_path / "stores"), "--patient", "P1", "--quiet"]
    refused = CliRunner().invoke(app, words)
    assert "as `--um-per-px`" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--um-per-px", "1"])
    assert done.exit_code == 0, done.output
    cohort = sp.Cohort(tmp_path / "stores")
    assert (sorted(cohort), set(cohort.obs["patient"])) == (["second", "toy"], {"P1"})
    assert len(cohort["second"]["patches"]) + len(cohort["toy"]["patches"]) == len(table)
    one = CliRunner().invoke(app, [*words[:3], str(tmp_path / "one"), *words[4:], "--um-per-px", "1", "--only", "toy"])
    assert one.exit_code == 0, one.output
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["toy.zarr"]
