"""One page that zooms into the H&E: what it holds is what the slides hold, within its size, whatever they are called."""

import base64
import gc
import importlib
import io
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from PIL import Image
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.atlas.tiles import EDGE, pyramid
from spatialsig.atlas.values import NONE, quantised
from spatialsig.cli import app
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.slide.slides import Slide

from .conftest import content_of

page_module = importlib.import_module("spatialsig.atlas.page")


def values_of(entry: dict) -> np.ndarray:
    """Values as the page reads them."""
    steps = np.frombuffer(base64.b64decode(entry["steps"]), "<u2").astype(np.float64)
    return np.where(steps == NONE, np.nan, entry["low"] + steps / (NONE - 1) * ((entry["high"] - entry["low"]) or 1))


def picture_of(level: dict) -> np.ndarray:
    """Pixels of a level, put together from its tiles."""
    rows = [[np.asarray(Image.open(io.BytesIO(base64.b64decode(tile)))) for tile in row] for row in level["rows"]]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def test_the_page_holds_the_scores_of_the_slide(study: sd.SpatialData, page: Path) -> None:
    (slide,) = content_of(page)["slides"]
    patches, measured, predicted = study["patches"], study["signatures"], study["signatures_pred"]
    ids = patches.index.get_indexer(measured.obs["patch_id"])
    assert slide["patient"] == study.attrs["spatialsig"]["patient"]
    for number, name in enumerate(measured.var_names):
        found = values_of(slide["scores"]["measured"][name])
        wanted = np.full(len(patches), np.nan)
        wanted[ids] = measured.X[:, number]
        width = np.nanmax(wanted) - np.nanmin(wanted)
        np.testing.assert_allclose(found, wanted, atol=width / 60_000)
        wanted = np.asarray(predicted.X)[:, list(predicted.var_names).index(name)]
        np.testing.assert_allclose(values_of(slide["scores"]["predicted"][name]), wanted, atol=np.ptp(wanted) / 60_000)
    widths = predicted.layers["upper"] - predicted.layers["lower"]
    found = values_of(slide["scores"]["interval"][predicted.var_names[0]])
    np.testing.assert_allclose(found, widths[:, 0], atol=1e-4)
    np.testing.assert_allclose(values_of(slide["columns"]["tissue_fraction"]), patches["tissue_fraction"], atol=1e-4)
    assert not {"fold", "y0", "x0", "row", "col"} & set(slide["columns"])
    assert any("trained on" in note for note in slide["notes"])


def test_a_patch_lies_where_it_was_cut(study: sd.SpatialData, page: Path) -> None:
    (slide,) = content_of(page)["slides"]
    places = slide["patches"]
    kind = "<u4" if places["grid"] else "<f4"
    x, y = (np.frombuffer(base64.b64decode(places[name]), kind).astype(float) for name in ("x", "y"))
    if places["grid"]:
        x, y = places["x0"] + x * places["side"], places["y0"] + y * places["side"]
    np.testing.assert_allclose(x, study["patches"]["x0"], atol=0.5)
    np.testing.assert_allclose(y, study["patches"]["y0"], atol=0.5)


def test_levels_show_the_image(study: sd.SpatialData, page: Path) -> None:
    """As its mean over squares, as far as WebP keeps it."""
    (slide,) = content_of(page)["slides"]
    full = np.moveaxis(study["he_image"]["scale0"]["image"].to_numpy(), 0, -1).astype(float)
    for level in slide["levels"]:
        step = round(level["scale"])
        h, w = full.shape[0] // step * step, full.shape[1] // step * step
        wanted = full[:h, :w].reshape(h // step, step, w // step, step, 3).mean(axis=(1, 3))
        found = picture_of(level)
        assert found.shape[:2] == (level["height"], level["width"])
        inner = tuple(slice(0, n) for n in np.minimum(found.shape[:2], wanted.shape[:2]))
        off = found[inner] - wanted[inner]
        assert np.abs(off).mean() < 6  # of the grain of the image, which WebP smooths
        assert np.abs(off.mean(axis=(0, 1))).max() < 1


@pytest.mark.parametrize("max_chars", [60_000, 250_000, 2_000_000])
def test_an_image_is_as_fine_as_its_bytes_allow(max_chars: int) -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(120, 255, (3, 96, 128)), np.ones((1, 16, 16)))
    pixels = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    image = sd.models.Image2DModel.parse(pixels, dims=("c", "y", "x"), scale_factors=[2, 2, 2])
    levels = pyramid(image, slide="S", max_px=4096, max_chars=max_chars, told=lambda _: None)
    assert sum(level.n_chars for level in levels) <= max_chars or max(levels[0].width, levels[0].height) <= 700
    edges = [max(level.width, level.height) for level in levels]
    assert edges == sorted(edges, reverse=True)
    assert edges[-1] <= 700
    assert levels[0].scale == {60_000: 4, 250_000: 2, 2_000_000: 1}[max_chars]
    assert all(len(level.rows) == -(-level.height // EDGE) for level in levels)


def test_values_keep_four_digits_and_their_gaps() -> None:
    values = np.array([np.nan, -3.0, 7.25, 0.001, np.inf], np.float32)
    found = values_of(quantised(values))
    assert np.isnan(found[[0, 4]]).all()
    np.testing.assert_allclose(found[1:4], values[1:4], atol=10.25 / 65_000)
    assert values_of(quantised(np.full(3, 2.5, np.float32))).tolist() == [2.5] * 3
    assert np.isnan(values_of(quantised(np.full(3, np.nan, np.float32)))).all()


def test_names_cannot_leave_the_data(study: sd.SpatialData, tmp_path: Path) -> None:
    """A slide or signature of any name is a name, and no part of the page."""
    slide = sd.deepcopy(study)
    evil = "</script><script>document.title='x'</script>"
    slide["signatures"].var_names = [evil, *slide["signatures"].var_names[1:]]
    path = sp.pl.atlas(slide, tmp_path / "Übersicht 1.html", title="<b>A & B</b>")
    text = path.read_text(encoding="utf-8")
    assert evil not in text
    assert "<b>A & B</b>" not in text
    assert evil in content_of(path)["slides"][0]["scores"]["measured"]


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [word for word in ("http://", "https://", 'src="', "@import", "url(") if word in text]


def test_what_cannot_be_shown_is_refused(study: sd.SpatialData, tmp_path: Path) -> None:
    bare = sd.deepcopy(study)
    for key in ("signatures", "signatures_pred"):
        del bare.tables[key]
    with pytest.raises(InputError, match=r"neither measured scores \('signatures'\) nor predicted"):
        sp.pl.atlas(bare, tmp_path / "a.html")
    with pytest.raises(KeyMissingError, match="no_such"):
        sp.pl.atlas(study, tmp_path / "a.html", signatures=["no_such"])
    with pytest.raises(InputError, match="leaves no room for the H&E"):
        sp.pl.atlas(study, tmp_path / "a.html", max_mb=0.005)
    with pytest.raises(InputError, match="is a directory"):
        sp.pl.atlas(study, tmp_path)
    with pytest.raises(InputError, match=r"ends with '.png'; wanted \*\.html"):
        sp.pl.atlas(study, tmp_path / "a.png")
    with pytest.raises(InputError, match="`signatures"):
        sp.pl.atlas(study, tmp_path / "a.html", signatures=[])
    assert not list(tmp_path.iterdir())


def test_slides_are_let_go_one_after_another(
    study: sd.SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cohort may be larger than memory: of a slide that is drawn, values and tiles are kept."""
    opened: list[weakref.ref[sd.SpatialData]] = []
    alive: list[int] = []

    def slides(_: object) -> Iterator[Slide]:
        for _number in range(4):
            gc.collect()
            alive.append(sum(one() is not None for one in opened))
            slide = Slide(sd.deepcopy(study))
            opened.append(weakref.ref(slide.sdata))
            yield slide
            del slide

    monkeypatch.setattr(page_module, "open_slides", slides)
    sp.pl.atlas(study, tmp_path / "a.html")
    assert max(alive) <= 1  # the one that the loop still names


def test_the_command_writes_a_page_of_all_slides(study: sd.SpatialData, tmp_path: Path) -> None:
    other = sd.deepcopy(study)
    other.attrs["spatialsig"] |= {"sample": "alone", "patient": "Q"}
    other["signatures_pred"].obs["sample"] = "alone"
    del other.tables["signatures"]  # an H&E alone
    for name, slide in (("toy", study), ("alone", other)):
        sp.io.write(slide, tmp_path / "run" / "stores" / f"{name}.zarr")
    out = tmp_path / "atlas.html"
    done = CliRunner().invoke(
        app, ["atlas", str(tmp_path / "run"), "-o", str(out), "--signatures", "Immune_T", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    slides = {slide["name"]: slide for slide in content_of(out)["slides"]}
    assert set(slides) == {"toy", "alone"}
    assert set(slides["alone"]["scores"]) == {"predicted", "interval"}
    assert json.dumps(sorted(slides["toy"]["scores"]["measured"])) == '["Immune_T"]'


@pytest.fixture(scope="module")
def doubtful(study: sd.SpatialData) -> sd.SpatialData:
    """The slide as one that lies outside, some of whose patches fail and have the highest scores."""
    slide = sd.deepcopy(study)
    fails = np.arange(len(slide["patches"])) % 3 == 0
    slide["patches"]["qc_pass"] = ~fails
    slide["signatures_pred"].X[fails] = 50.0
    record = slide["signatures_pred"].uns["spatialsig"].setdefault("predict", {})
    record["ood"] = {"slide": 2.5, "share": 0.9, "reason": "tissue, sharpness"}
    del slide.tables["signatures"]
    return slide


def test_a_slide_outside_says_so_and_failing_patches_set_no_colours(doubtful: sd.SpatialData, tmp_path: Path) -> None:
    content = content_of(sp.pl.atlas(doubtful, tmp_path / "a.html"))
    (slide,) = content["slides"]
    said = "90% of its patches lie outside what the model learned from, in their tissue and sharpness"
    assert [note for note in slide["cautions"] if note.startswith(said)]
    assert set(slide["cautions"]) <= set(slide["notes"])
    assert all(scale["score"][1] < 50 for scale in content["scales"].values())
