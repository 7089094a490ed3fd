"""What a prediction must leave alone: images, files and folders of others, results changed by hand, stores with cells."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, SpatialsigError, SpatialsigWarning, StoreError

Model = sp.models.SignatureViT


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, toy_pixels: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds one small image."""
    sp.settings.progress = False
    monkeypatch.chdir(tmp_path)
    Image.fromarray(toy_pixels[0][:200, :200]).save("a.png")


def predict(model: Model, slides: object = "a.png", out: str = "out", **options: object) -> dict[str, str]:
    """Outcome of every slide."""
    done = sp.tl.predict_files(model, slides, out, **{"um_per_px": 1.0, "formats": ("csv",)} | options)
    return dict(zip(done["sample"], done["outcome"], strict=True))


def contents(but: tuple[str, ...] = ()) -> dict[str, str]:
    """All files below this folder with their checksums, and what links lead to."""
    files = [path for path in Path().rglob("*") if path.is_file() or path.is_symlink()]
    return {
        str(path): str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in but
    }


def write(path: str, text: str = "mine") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def measured_store(path: str) -> None:
    sp.io.write(sp.datasets.toy(size_um=150.0), path)


def added_table(model: Model) -> None:
    """A store that predict_files wrote, in which a user has put a table of cells."""
    predict(model, store="stores")
    cells = sp.datasets.toy(size_um=150.0)["table"]
    store = sp.io.read("stores/a.zarr")
    store["cells_of_mine"] = cells[:, :3].copy()
    del store["cells_of_mine"].uns["spatialdata_attrs"]
    store.write_element("cells_of_mine")


def edited(name: str) -> Callable[[Model], None]:
    def make(model: Model) -> None:
        predict(model)
        write(name)

    return make


def moved_in(model: Model) -> None:
    Path("out/a").mkdir(parents=True)
    Path("a.png").rename("out/a/a.png")


def linked_in(model: Model) -> None:
    Path("out/a").mkdir(parents=True)
    Path("out/a/a.png").symlink_to("../../a.png")


def mirax(model: Model) -> None:
    Path("a.png").rename("a.mrxs")
    write("a/Data0001.dat")


def done_with_table(name: str) -> Callable[[Model], None]:
    def make(model: Model) -> None:
        predict(model, store=True)
        measured_store(name)

    return make


# what is there -> how, what is called for, error, what it says; True where `overwrite` lets it go
NEVER = {
    "a measured store": (lambda _: measured_store("stores/a.zarr"), {"store": "stores"}, StoreError, r"stores/a\.zarr'.*not written by"),
    "a store that is read": (lambda _: measured_store("stores/a.zarr"), {"slides": "stores/a.zarr", "store": "stores"}, StoreError, "is read from it"),
    "cells in a store of ours": (added_table, {"store": "stores", "qc": True}, StoreError, r"tables/cells_of_mine"),
    "the image": (moved_in, {"slides": "out/a/a.png"}, InputError, r"out/a'.*a\.png' lies"),
    "a link to the image": (linked_in, {"slides": "out/a/a.png"}, InputError, "lies"),
    "another image": (lambda _: write("out/a/b.png"), {"slides": ["a.png", "out/a/b.png"]}, InputError, "lies"),
    "the pixels of a MIRAX": (mirax, {"slides": "a.mrxs", "out": "."}, InputError, r"a\.mrxs' lies"),
    "notes": (edited("out/a/notes.txt"), {"qc": True}, StoreError, r"notes\.txt.*did not write"),
    "a project": (edited("out/a/qupath/project.qpproj"), {"qc": True}, StoreError, r"project\.qpproj"),
    "a geojson of one's own": (edited("out/a/a.geojson"), {"formats": ("geojson",)}, StoreError, r"a\.geojson"),
    "a store among results": (done_with_table("out/a/cells.zarr"), {"qc": True, "store": True}, StoreError, r"cells\.zarr"),
    "a folder of others": (lambda _: write("out/a/Data0001.dat"), {}, StoreError, "holds no result"),
    "a file": (lambda _: write("out/a"), {}, StoreError, "holds no result"),
    "a damaged record": (edited("out/a/record.json"), {}, StoreError, r"record\.json' is damaged.*not JSON"),
    "a record of others": (lambda _: write("out/a/record.json", "{}"), {}, StoreError, "has format None; wanted 1"),
    "a page": (lambda _: write("out/index.html", "<!doctype html>\n<html>"), {}, StoreError, r"index\.html is not a page of"),
    "a table": (lambda _: write("out/slides.csv", "sample,image\n"), {}, StoreError, r"slides\.csv is not a table of"),
    "a page that is a folder": (lambda _: write("out/index.html/x"), {}, StoreError, r"index\.html is not a page"),
}  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", NEVER)
def test_what_is_not_ours_is_refused_by_name_and_stays(what: str, overwrite: bool, toy_vit: Model) -> None:
    make, options, kind, said = NEVER[what]
    make(toy_vit)
    ours = ("index.html", "slides.csv") if "page" not in what and "table" not in what else ()
    before = contents(ours)
    with pytest.raises(kind, match=said):
        predict(toy_vit, **options, overwrite=overwrite)
    assert contents(ours) == before


def damaged_field(model: Model) -> None:
    predict(model)
    record = json.loads(Path("out/a/record.json").read_text())
    del record["image"]["path"]
    write("out/a/record.json", json.dumps(record))


def test_a_record_without_a_field_is_damaged(toy_vit: Model) -> None:
    damaged_field(toy_vit)
    with pytest.raises(StoreError, match=r"damaged: \['image\.path'\] are missing"):
        predict(toy_vit, overwrite=True)


def other_image(model: Model) -> None:
    predict(model, store="stores")
    Path("b").mkdir()
    Image.open("a.png").transpose(Image.Transpose.ROTATE_90).save("b/a.png")


ASKED = {
    "a table that was edited": (edited("out/a/a.csv"), {}, r"a\.csv changed after"),
    "results of another image": (other_image, {"slides": "b/a.png"}, "another image"),
    "the store of another image": (other_image, {"slides": "b/a.png", "out": "new", "store": "stores"}, "of another image"),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_what_is_ours_and_differs_goes_when_that_is_asked_for(what: str, toy_vit: Model) -> None:
    make, options, said = ASKED[what]
    make(toy_vit)
    before = contents(("index.html", "slides.csv"))
    with pytest.raises(StoreError, match=said):
        predict(toy_vit, **options)
    assert contents(("index.html", "slides.csv")) == before
    assert predict(toy_vit, **options, overwrite=True) == {"a": "predicted"}


def test_our_own_store_is_written_again(toy_vit: Model) -> None:
    assert predict(toy_vit, store="stores") == {"a": "predicted"}
    assert predict(toy_vit, store="stores") == {"a": "skipped"}
    assert predict(toy_vit, store="stores", qc=True) == {"a": "predicted"}
    assert "qc_pass" in sp.io.read("stores/a.zarr")["patches"]
    write("out/a/.DS_Store")  # of the system
    assert predict(toy_vit, store=True, qc=True) == predict(toy_vit, store=True) == {"a": "predicted"}


def test_a_link_stays_and_what_it_leads_to_is_replaced(toy_vit: Model) -> None:
    Path("disk").mkdir()
    Path("out").mkdir()
    Path("out/a").symlink_to("../disk")
    assert predict(toy_vit) == {"a": "predicted"}
    assert predict(toy_vit, qc=True) == {"a": "predicted"}
    assert Path("out/a").is_symlink()
    assert "focus" in pd.read_csv("disk/a.csv")
    Path("out/a").unlink()
    Path("out/a").symlink_to("../gone")
    with pytest.raises(StoreError, match="is a link to '../gone', which is not there"):
        predict(toy_vit, overwrite=True)


def test_a_slide_that_broke_has_one_row(toy_vit: Model) -> None:
    Image.open("a.png").save("b.png")
    predict(toy_vit, ["a.png", "b.png"])
    Path("a.png").write_bytes(b"broken")
    with pytest.warns(SpatialsigWarning, match="1 of 2 slides"):
        predict(toy_vit, ["a.png", "b.png"], on_error="collect")
    table = pd.read_csv("out/slides.csv")
    assert sorted(table["sample"]) == ["a", "b"]
    row = table.set_index("sample").loc["a"]
    assert "a.png" in row["error"]
    assert pd.isna(row["n_patches"])  # of the image before


def test_images_that_a_manifest_misses_are_named_before_anything_is_predicted(toy_vit: Model) -> None:
    write("list.csv", "image\na.png\ngone.png\n\nlost.png\n")
    with pytest.raises(
        FileMissingError, match=r"2 image.*list\.csv, line 3: '.*gone\.png'.*list\.csv, line 5: '.*lost\.png'"
    ):
        predict(toy_vit, "list.csv")
    assert not Path("out").exists()
    with pytest.warns(SpatialsigWarning, match="2 of 3 slides"):
        done = sp.tl.predict_files(toy_vit, "list.csv", "out", um_per_px=1.0, on_error="collect")
    assert done["outcome"].tolist() == ["predicted", "failed", "failed"]
    assert done["error"].str.contains(r"FileMissingError: .*list\.csv, line \d").tolist() == [False, True, True]


def test_a_slide_keeps_the_name_of_its_results(toy_vit: Model) -> None:
    assert predict(toy_vit) == {"a": "predicted"}
    Image.open("a.png").save("a.jpg")
    assert predict(toy_vit, ["a.png", "a.jpg"]) == {"a": "skipped", "a.jpg": "predicted"}
    assert predict(toy_vit, ["a.jpg", "a.png"]) == {"a.jpg": "skipped", "a": "skipped"}


@pytest.mark.parametrize("options", [{"store": True}, {"store": "stores"}, {"out": "."}])
def test_results_are_no_slides(options: dict[str, object], toy_vit: Model) -> None:
    options = {"formats": sp.whole_slides.FORMATS} | options
    assert predict(toy_vit, "**/*", **options) == {"a": "predicted"}
    assert predict(toy_vit, "**/*", **options) == {"a": "skipped"}
    Path("out" if "out" not in options else ".").joinpath("a/record.json").unlink()  # below `out` nothing is looked for
    if options.get("store"):
        with pytest.raises(StoreError, match="holds no result"):
            predict(toy_vit, "**/*", **options)


SIZES = {
    "px that are too small": {"um_per_px": 0.05},
    "px that are too large": {"um_per_px": 20.0},
    "px of no known size": {"um_per_px": None},
    "no tissue": {"slides": "white.png"},
    "a store of no known size": {"slides": "bare.zarr"},
}


@pytest.mark.parametrize("what", SIZES)
def test_messages_name_what_can_be_given_here(what: str, toy_vit: Model) -> None:
    Image.fromarray(np.full((200, 200, 3), 255, np.uint8)).save("white.png")
    measured_store("bare.zarr")
    document = json.loads(Path("bare.zarr/zarr.json").read_text())
    del document["attributes"]["spatialsig"]
    write("bare.zarr/zarr.json", json.dumps(document))
    with pytest.raises(SpatialsigError) as error:
        predict(toy_vit, **SIZES[what])
    assert "um_per_px" in str(error.value)
    assert not any(word in str(error.value) for word in ("min_area_um2", "sdata", "ask for"))


def test_a_store_of_another_size_than_said_is_named(toy_vit: Model) -> None:
    measured_store("s.zarr")
    size = sp.io.mpp("s.zarr")
    with pytest.warns(SpatialsigWarning, match=rf"px are {size:.4g} µm, and not {2 * size:.4g} µm"):
        predict(toy_vit, "s.zarr", um_per_px=2 * size)
