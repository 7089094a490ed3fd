"""Slides predicted from their image file: the same numbers as from a store, and what becomes of folders of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from tests.quick import all_of
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import FileMissingError, InputError, SpatialsigError, SpatialsigWarning, StoreError
from spatialsig.whole_slides import FORMATS

Study = tuple[sp.Cohort, sp.models.SignatureViT, str, Path]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    sp.settings.progress = False


def call(*words: object):
    return CliRunner().invoke(app, [*map(str, words), "--quiet"])


def predict(model: object, slides: object, out: Path, **options: object) -> dict[str, str]:
    """Outcome of every slide."""
    done = sp.tl.predict_files(model, slides, out, um_per_px=1.0, **options)
    return dict(zip(done["sample"], done["outcome"], strict=True))


@pytest.fixture(scope="module")
def forms(study: Study, pyramid: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The held-out slide as its own OME-TIFF, its store, pyramids of a scanner, read by tifffile and by openslide."""
    cohort, _, sample, file = study
    image = cohort[sample]["he_image"]
    levels = [level["image"].transpose("y", "x", "c").to_numpy() for level in image.children.values()]
    folder = tmp_path_factory.mktemp("forms")
    um = sp.io.mpp(cohort[sample])
    svs = pyramid(folder / "scan.svs", levels, um_per_px=um)
    assert openslide.OpenSlide(svs).level_count == len(levels) > 1
    forms = {"its OME-TIFF": file, "store": cohort.stores[sample], "SVS": svs}
    forms["OME-TIFF"] = pyramid(folder / "pyramid.ome.tif", levels, um_per_px=um, ome=True)
    return forms | {"openslide": Path(shutil.copy(svs, folder / "by_openslide.scn"))}


@pytest.mark.parametrize(
    "form", all_of(["its OME-TIFF", "store", "SVS", "OME-TIFF", "openslide"], quick={"store", "SVS"})
)
def test_a_held_out_slide_gets_the_scores_of_its_store(
    form: str, study: Study, forms: dict[str, Path], tmp_path: Path
) -> None:
    cohort, model, sample, _ = study
    wanted, patches = cohort[sample]["signatures_pred"], cohort[sample]["patches"]
    done = sp.tl.predict_files(model, forms[form], tmp_path / "out")
    (name,) = done["sample"]
    table = ad.read_h5ad(tmp_path / "out" / name / f"{name}.h5ad")
    assert table.obs[["x0_px", "y0_px"]].to_numpy().tolist() == patches[["x0", "y0"]].to_numpy().tolist()
    assert model.stain == "macenko"
    for found, same in [(table.X, wanted.X), *((table.layers[k], wanted.layers[k]) for k in ("lower", "upper"))]:
        np.testing.assert_allclose(found, same, atol=1e-6)
    assert np.ptp(wanted.X, axis=0).min() > 1e-3  # they are not all alike
    um = table.uns["spatialsig"]["predict_files"]["model"]["um_per_px"]
    assert um == 2.0
    np.testing.assert_allclose(table.obsm["spatial"], table.obs[["x_um", "y_um"]])


def test_every_format_says_the_same(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    assert predict(toy_vit, scans / "a.svs", tmp_path / "out", qc=True) == {"a": "predicted"}
    place = tmp_path / "out" / "a"
    table = ad.read_h5ad(place / "a.h5ad")
    frame = pd.read_csv(place / "a.csv")
    np.testing.assert_allclose(frame[list(table.var_names)], table.X, rtol=1e-5)
    assert {"x_um", "y_um", "x0_px", "y0_px", "size_px", "row", "col", "focus", "qc_pass"} <= set(frame) & set(
        table.obs
    )
    features = json.loads((place / "a.geojson").read_text())["features"]
    assert len(features) == len(table)
    first = features[0]
    assert first["geometry"]["coordinates"][0][0] == table.obs[["x0_px", "y0_px"]].iloc[0].tolist()
    assert first["properties"]["measurements"]["Immune_T"] == pytest.approx(
        float(table[:, "Immune_T"].X[0, 0]), rel=1e-5
    )
    heat = tifffile.imread(place / "heatmaps" / "Immune_T.ome.tif")
    row, col = (table.obs[axis] - table.obs[axis].min() for axis in ("row", "col"))
    np.testing.assert_allclose(heat[row, col], table[:, "Immune_T"].X[:, 0], rtol=1e-6)
    assert not list(place.glob("*.zarr"))  # the image is not copied


@pytest.mark.parametrize("chosen", FORMATS)
def test_only_the_formats_that_are_asked_for_are_written(
    chosen: str, toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    predict(toy_vit, scans / "a.svs", tmp_path / "out", formats=[chosen])
    endings = {"h5ad": {".h5ad"}, "csv": {".csv"}, "geojson": {".geojson"}, "heatmap": {""}, "html": {".npz", ".webp"}}
    found = {path.suffix for path in (tmp_path / "out" / "a").iterdir()}
    assert found == endings[chosen] | {".json"}
    assert (tmp_path / "out" / "index.html").exists() == (chosen == "html")


@pytest.mark.parametrize("door", ["python", "command"])
def test_one_broken_file_of_five_is_named_and_four_are_done(
    door: str, toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if door == "command":
        toy_vit.save(tmp_path / "vit")
        result = call("predict", tmp_path / "vit", scans, "-o", out, "--um-per-px", 1)
        assert result.exit_code == 1
        assert re.search(r"error: broken: InputError: .*broken\.svs", result.output)
        assert result.output.count("error:") == 1
    else:
        with pytest.raises(InputError, match="1 of 5 slides failed, the others are done:\n  broken: ") as error:
            predict(toy_vit, scans, out)
        assert error.value.failed == ("broken",)
    done = {path.name for path in out.iterdir() if path.is_dir()}
    assert done == {"a", "b", "d", "Präparat 3 µ"}
    page = (out / "index.html").read_text()
    assert "1 slide could not be predicted" in page
    assert not re.search(r"(src|href)=\"?(https?:|//)", page)  # needs nothing else
    table = pd.read_csv(out / "slides.csv").set_index("sample")
    assert table["error"].notna().sum() == 1
    assert "broken.svs" in table.loc["broken", "error"]


def test_failures_are_collected_and_the_next_call_does_what_is_left(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    with pytest.warns(SpatialsigWarning, match="1 of 5 slides could not be predicted"):
        assert predict(toy_vit, scans, tmp_path / "out", on_error="collect")["broken"] == "failed"
    shutil.copy(scans / "a.svs", scans / "broken.svs")
    outcomes = predict(toy_vit, scans, tmp_path / "out")
    assert outcomes.pop("broken") == "predicted"
    assert set(outcomes.values()) == {"skipped"}
    assert "could not be predicted" not in (tmp_path / "out" / "index.html").read_text()


CHANGES = {
    "nothing": (lambda scans, out: None, {}, "skipped"),
    "fewer formats": (lambda scans, out: None, {"formats": ["csv"]}, "skipped"),
    "an option": (lambda scans, out: None, {"min_tissue": 0.5}, "predicted"),
    "quality": (lambda scans, out: None, {"qc": True}, "predicted"),
    "a file that is gone": (lambda scans, out: (out / "a" / "a.csv").unlink(), {}, "predicted"),
    "a file that was cut": (
        lambda scans, out: (out / "a" / "a.csv").write_text("x"),
        {"overwrite": True},
        "predicted",
    ),
    "the image": (lambda scans, out: shutil.copy(scans / "b.ome.tif", scans / "a.svs"), {}, "predicted"),
    "asked to": (lambda scans, out: None, {"overwrite": True}, "predicted"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_is_skipped_until_something_changes(
    change: str, toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    out, (apply, options, outcome) = tmp_path / "out", CHANGES[change]
    predict(toy_vit, scans / "a.svs", out)
    apply(scans, out)
    assert predict(toy_vit, scans / "a.svs", out, **options) == {"a": outcome}
    assert predict(toy_vit, scans / "a.svs", out, **options | {"overwrite": False}) == {"a": "skipped"}


def test_another_model_computes_again(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    toy_vit.save(tmp_path / "vit")
    out, other = tmp_path / "out", sp.models.load_signature_model(tmp_path / "vit")
    assert predict(toy_vit, scans / "a.svs", out) == {"a": "predicted"}
    assert predict(tmp_path / "vit", scans / "a.svs", out) == {"a": "skipped"}  # the same, from its directory
    before = pd.read_csv(out / "a" / "a.csv")["Immune_T"]
    other.target_mean = other.target_mean + 1
    assert predict(other, scans / "a.svs", out) == {"a": "predicted"}
    np.testing.assert_allclose(pd.read_csv(out / "a" / "a.csv")["Immune_T"], before + 1, rtol=1e-4)


KILLED = """
import os, signal, sys
import spatialsig as sp
from spatialsig.whole_slides import one_slide
whole = one_slide.write_results
def stops(draft, sdata, *others, **options):
    n = whole(draft, sdata, *others, **options)
    if draft.name.startswith(".b."):
        os.kill(os.getpid(), signal.SIGKILL)
    return n
one_slide.write_results = stops
sp.settings.progress = False
sp.tl.predict_files(sys.argv[1], [sys.argv[2] + "/" + name for name in ("a.svs", "b.ome.tif", "d.jpg")], sys.argv[3], um_per_px=1.0)
"""


def test_a_run_that_was_killed_goes_on_where_it_stood(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    toy_vit.save(tmp_path / "vit")
    out = tmp_path / "out"
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "vit", scans, out], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"a"}
    assert any(path.name.startswith(".b.") for path in out.iterdir())  # what it left
    (scans / "broken.svs").unlink()
    names = ["a.svs", "b.ome.tif", "d.jpg"]
    outcomes = predict(tmp_path / "vit", [scans / name for name in names], out)
    assert outcomes == {"a": "skipped", "b": "predicted", "d": "predicted"}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_files_of_one_name_do_not_replace_each_other(
    toy_vit: sp.models.SignatureViT,
    scans: Path,
    toy_pixels: list[np.ndarray],
    pyramid: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pyramid(scans / "a.tif", [np.ascontiguousarray(level[:, ::-1]) for level in toy_pixels], um_per_px=1.0)
    out = tmp_path / "out"
    assert predict(toy_vit, [scans / "a.svs", scans / "a.tif"], out) == {"a.svs": "predicted", "a.tif": "predicted"}
    one, other = (pd.read_csv(out / name / f"{name}.csv") for name in ("a.svs", "a.tif"))
    assert not np.allclose(one["Immune_T"].mean(), other["Immune_T"].mean(), atol=1e-9)
    (tmp_path / "x").mkdir()
    shutil.copy(scans / "a.svs", tmp_path / "x" / "a.svs")
    assert set(predict(toy_vit, [scans / "a.svs", tmp_path / "x"], out)) == {
        "a.svs",
        "x_a.svs",
    }  # the first keeps its name


def test_results_of_another_image_are_not_replaced(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "next batch"
    elsewhere.mkdir()
    predict(toy_vit, scans / "a.svs", out)
    shutil.copy(scans / "b.ome.tif", elsewhere / "a.tif")
    with pytest.raises(StoreError, match="holds the predictions of another image.*my scans é/a.svs.*column `sample`"):
        predict(toy_vit, elsewhere / "a.tif", out)
    assert predict(toy_vit, scans / "a.svs", out) == {"a": "skipped"}
    assert predict(toy_vit, elsewhere / "a.tif", out, overwrite=True) == {"a": "predicted"}
    (out / "mine").mkdir()
    (out / "mine" / "notes.txt").write_text("keep me")
    frame = pd.DataFrame({"sample": ["mine"], "image": [scans / "a.svs"]})
    with pytest.raises(StoreError, match="holds no result of `sp.tl.predict_files`"):
        predict(toy_vit, frame, out)
    assert (out / "mine" / "notes.txt").read_text() == "keep me"


def test_nothing_is_written_beside_the_images(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    (scans / "broken.svs").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in scans.iterdir()}
    scans.chmod(0o555)
    try:
        outcomes = predict(toy_vit, scans, tmp_path / "out", qc=True)
    finally:
        scans.chmod(0o755)
    assert set(outcomes.values()) == {"predicted"}
    assert {path.name: path.stat().st_mtime_ns for path in scans.iterdir()} == before


def test_a_store_is_written_where_one_is_asked_for(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    places = [tmp_path / "out" / "a" / "a.zarr", tmp_path / "stores" / "a.zarr"]
    for place, asked in zip(places, (True, tmp_path / "stores"), strict=True):
        predict(toy_vit, scans / "a.svs", tmp_path / "out", store=asked)
        sdata = sp.io.read(place)
        np.testing.assert_array_equal(
            sdata["he_image"]["scale0"]["image"].to_numpy().transpose(1, 2, 0), tifffile.imread(scans / "a.svs")
        )
        assert sdata["signatures_pred"].shape == (len(sdata["patches"]), 6)
    assert sp.tl.predict(tmp_path / "stores" / "a.zarr", toy_vit, skip_done=True)["outcome"].tolist() == ["skipped"]


def test_where_patches_overlap_maps_show_their_mean(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    predict(toy_vit, scans / "a.svs", tmp_path / "out", stride_um=14.0)
    place = tmp_path / "out" / "a"
    table = ad.read_h5ad(place / "a.h5ad")
    x0, y0, score = (table.obs["x0_px"].to_numpy(), table.obs["y0_px"].to_numpy(), table[:, "Immune_T"].X[:, 0])
    # the image painted patch by patch, px by px: the same means, by another way
    total, count = np.zeros((2, 400, 400))
    for x, y, value in zip(x0, y0, score, strict=True):
        total[y : y + 56, x : x + 56] += value
        count[y : y + 56, x : x + 56] += 1
    wanted = [
        (total[y + 21 : y + 35, x + 21 : x + 35] / count[y + 21 : y + 35, x + 21 : x + 35]).mean()
        for x, y in zip(x0, y0, strict=True)
    ]
    found = table[:, "Immune_T"].layers["blended"][:, 0]
    # a middle that some patches cover in part is weighted by area here, px by px there
    inner = np.array(
        [len(np.unique(count[y + 21 : y + 35, x + 21 : x + 35])) == 1 for x, y in zip(x0, y0, strict=True)]
    )
    assert inner.sum() > 20
    np.testing.assert_allclose(found[inner], np.array(wanted)[inner], atol=1e-5)
    heat = tifffile.imread(place / "heatmaps" / "Immune_T.ome.tif")
    row, col = (table.obs[axis] - table.obs[axis].min() for axis in ("row", "col"))
    np.testing.assert_allclose(heat[row, col], found, rtol=1e-6)
    assert not np.allclose(found, score)
    features = json.loads((place / "a.geojson").read_text())["features"]  # of patches, not of their means
    np.testing.assert_allclose([f["properties"]["measurements"]["Immune_T"] for f in features], score, rtol=1e-5)


def test_several_slides_at_once_give_the_same(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    (scans / "broken.svs").unlink()
    predict(toy_vit, scans, tmp_path / "one")
    sp.settings.n_jobs = 2
    try:
        assert set(predict(toy_vit, scans, tmp_path / "two").values()) == {"predicted"}
    finally:
        sp.settings.n_jobs = 1
    for name in ("a", "b", "d"):
        one, two = (pd.read_csv(tmp_path / place / name / f"{name}.csv") for place in ("one", "two"))
        pd.testing.assert_frame_equal(one, two, rtol=1e-5)


def test_what_a_reader_remarks_stands_on_the_page(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": [scans / "a.svs"], "um_per_px": [1.2]})
    with pytest.warns(SpatialsigWarning, match=r"says that its px are 1 um.*1\.2 um"):
        sp.tl.predict_files(toy_vit, frame, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "a" / "record.json").read_text())["remarks"]
    assert "says that its px are 1 um" in (tmp_path / "out" / "index.html").read_text()


def test_a_size_for_all_stands_in_where_a_file_says_none(
    toy_vit: sp.models.SignatureViT, scans: Path, toy_pixels: list[np.ndarray], tmp_path: Path
) -> None:
    tifffile.imwrite(scans / "plain.tif", toy_pixels[0], tile=(128, 128), photometric="rgb")
    names = ["a.svs", "b.ome.tif", "d.jpg", "plain.tif"]
    with pytest.warns(SpatialsigWarning) as caught:
        sp.tl.predict_files(toy_vit, [scans / name for name in names], tmp_path / "out", um_per_px=1.4)
    said = [str(each.message) for each in caught if each.category is SpatialsigWarning]
    assert [bool(re.search(r"(a\.svs|b\.ome\.tif)'.* 1 µm, and not 1\.4 µm", text)) for text in said] == [True, True]
    table = pd.read_csv(tmp_path / "out" / "slides.csv").set_index("sample")
    assert table["um_per_px"].to_dict() == {"a": 1.0, "b": 1.0, "d": 1.4, "plain": 1.4}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_views": 3}, r"`n_views=3`|n_views"),
        ({"device": "toaster"}, "`device='toaster'` is not a device"),
        (
            {"stride_um": 1.0},
            r"`stride_um=1` would lay 3\.14e\+03 patches of 56 µm over each other; wanted 3\.5 µm or more",
        ),
        ({"formats": ["pdf"]}, "formats"),
    ],
)
def test_what_cannot_be_done_is_said_before_slides_are_opened(
    options: dict[str, object], said: str, toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as error:
        predict(toy_vit, scans, tmp_path / "out", **options)
    assert not error.value.failed
    assert not (tmp_path / "out").exists()


def test_a_model_that_reads_features_is_refused(tmp_path: Path, scans: Path, study: Study) -> None:
    cohort, _, sample, _ = study
    slide = sp.io.read(cohort.stores[sample])
    del slide.attrs["spatialsig"]["split"]
    rng = np.random.default_rng(0)
    slide["signatures"].obsm["X_f"] = rng.normal(size=(len(slide["signatures"]), 3)).astype(np.float32)
    model = sp.tl.train_vit(slide, backbone="table:signatures/X_f", use_rep=None, test_fold=None, max_epochs=1)
    with pytest.raises(InputError, match="reads the features of patches in table 'signatures/X_f'"):
        predict(model, scans, tmp_path / "out")


def test_every_command_that_takes_a_model_takes_an_ensemble(
    study: Study, forms: dict[str, Path], tmp_path: Path
) -> None:
    cohort, model, sample, _ = study
    model.save(tmp_path / "vit")
    members = [sp.models.load_signature_model(tmp_path / "vit") for _ in range(2)]
    members[1].target_mean = members[1].target_mean + 1
    sp.models.SignatureEnsemble(members).save(tmp_path / "both")
    stores = shutil.copytree(cohort.stores[sample].parent, tmp_path / "stores")
    for words in (
        ("predict", "--model", tmp_path / "both", stores), ("predict", tmp_path / "both", stores),
        ("predict", tmp_path / "both", forms["SVS"], "--out", tmp_path / "out", "--formats", "h5ad,html"),
        ("evaluate", stores, "--model", tmp_path / "both", "--out", tmp_path / "e.csv"),
    ):  # fmt: skip
        result = call(*words)
        assert result.exit_code == 0, (words, result.output, result.exception)
    table = ad.read_h5ad(tmp_path / "out" / "scan" / "scan.h5ad")
    np.testing.assert_allclose(table.layers["std"], np.sqrt(0.5), rtol=1e-3)
    np.testing.assert_allclose(table.X, sp.io.read(stores / f"{sample}.zarr")["signatures_pred"].X, atol=1e-5)


def test_the_command_takes_some_slides_of_a_manifest(
    toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path
) -> None:
    toy_vit.save(tmp_path / "vit")
    (scans / "list.csv").write_text(
        'sample,image,um_per_px,patient\nS1,a.svs,,P1\n# S0,gone.svs,,\nS2,Präparat 3 µ.png,"1,0",P2\n',
        encoding="utf-8",
    )
    words = ("predict", tmp_path / "vit", scans / "list.csv", "-o", tmp_path / "out")
    for index, there in ((1, {"S2"}), (0, {"S1", "S2"})):
        result = call(*words, "--index", index, "--qc", "--store")
        assert result.exit_code == 0, (result.output, result.exception)
        assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == there
    assert pd.read_csv(tmp_path / "out" / "slides.csv")["patient"].tolist() == ["P1", "P2"]
    assert "S3" in str(call(*words, "--only", "S3").exception)


def test_words_of_the_command_that_do_not_fit(toy_vit: sp.models.SignatureViT, scans: Path, tmp_path: Path) -> None:
    toy_vit.save(tmp_path / "vit")
    vit, out, svs = tmp_path / "vit", tmp_path / "out", scans / "a.svs"
    for words, said in (
        ((vit,), "wanted `spatialsig predict MODEL SLIDES... --out OUT`"),
        ((vit, svs), r"no store.* Or predict from image files: `spatialsig predict MODEL SLIDES\.\.\. --out OUT`"),
        ((vit, svs, scans / "d.jpg"), "2 places of slides"),
        ((vit, svs, "--qc"), "`--qc` is for image files"),
        ((vit, svs, "-o", out, "--use-rep", "X_ae"), "`--use-rep` is for stores"),
        ((vit, svs, "-o", out, "--formats", "pdf"), "formats"),
        ((svs, vit, "-o", out), "vit.* holds no image of a slide.* It is the directory of a saved model"),
    ):
        result = call("predict", *words)
        assert isinstance(result.exception, SpatialsigError), (words, result.output, result.exception)
        assert re.search(said, str(result.exception)), (words, str(result.exception))
    with pytest.raises(FileMissingError, match="slides: missing"):
        predict(toy_vit, tmp_path / "nowhere", out)
    assert not os.path.exists(out)


@pytest.mark.filterwarnings("always::spatialsig.errors.SpatialsigWarning")
def test_the_page_gives_numbers_and_what_they_rest_on(scans: Path, tmp_path: Path) -> None:
    """How far within, what the domain was learned from, what a score is, unknown patients, warnings; means of patches that pass."""
    model = sp.tl.train_vit(sp.datasets.toy_study(), test_fold=None, use_rep=None, max_epochs=1, size="tiny")
    model.save(tmp_path / "vit")
    out = tmp_path / "out"
    frame = pd.DataFrame(
        {"image": [scans / "a.svs", scans / "b.ome.tif"], "um_per_px": [1.2, None], "patient": [None, "P7"]}
    )
    frame.to_csv(scans / "list.csv", index=False)
    done = call("predict", tmp_path / "vit", scans / "list.csv", "-o", out, "--qc", "--set", "min_tissue=0.01")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / "slides.csv").set_index("sample")
    reference = "patches of 1 patient: of fewer than 10 patients, only gross shifts are seen."
    assert f"{table.loc['b', 'ood']:.2f}" in done.output
    assert reference in done.output
    page = (out / "index.html").read_text(encoding="utf-8")
    for said in (
        f"no ({table.loc['b', 'ood']:.2f})",
        reference,
        "0 is the mean of the training cells",
        "<td>P7</td>",
        "<td>\u2013</td>",
    ):
        assert said in page, said
    assert "says that its px are 1 um" in table.loc["a", "warnings"]
    assert page.count('class="mark"') == table["warnings"].notna().sum()
    results = ad.read_h5ad(out / "b" / "b.h5ad")
    passed = results.obs["qc_pass"].to_numpy(bool)
    assert 0 < passed.sum() < len(passed)
    assert table.loc["b", "mean Immune_T"] == pytest.approx(results.X[passed, 0].mean(), abs=1e-5)
