"""The page in a browser: it draws, zooms where the pointer is, follows the mouse, switches, and its address keeps the view."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import spatialsig as sp

from .browser import CHROMIUM, SIZE, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to show a page")
CENTRE = SIZE[0] / 2, SIZE[1] / 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def state(browser: Browser) -> dict[str, float]:
    """Where the view is, of the address that the page keeps."""
    browser.ask("new Promise(r => setTimeout(r, 600))")  # it is written once the view rests
    kept = browser.ask("location.hash")
    return {name: float(value) for name, value in (part.split("=") for part in kept[1:].split("&")) if name in "xyz"}


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def test_the_first_view_is_the_whole_slide_with_its_predictions(browser: Browser, page: Path) -> None:
    assert browser.open(page).split("|")[:2] == ["toy", "predicted"]
    pixels = browser.picture()
    shown = pixels[60:, 200:800].reshape(-1, 3)
    assert np.ptp(shown.astype(int), axis=1).max() > 60  # colours over it
    assert not browser.errors


def test_layers_signatures_and_opacity_change_what_is_seen(browser: Browser, page: Path) -> None:
    browser.open(page)
    views = {"predicted": browser.picture()}
    for layer in ("measured", "difference", "split", "interval", "column:tissue_fraction"):
        assert browser.choose("layer", layer).split("|")[1] == layer
        views[layer] = browser.picture()
    names = list(views)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            assert difference(views[name], views[other]) > 0.05, (name, other)
    browser.choose("layer", "measured")
    assert browser.choose("signature", "Fibroblast").endswith("|Fibroblast")
    assert difference(browser.picture(), views["measured"]) > 0.5
    browser.ask("(o => { o.value = 0; o.dispatchEvent(new Event('input')); })(document.getElementById('opacity'))")
    bare = browser.picture()
    assert difference(bare[60:650, 300:700], views["measured"][60:650, 300:700]) > 3
    grey = np.ptp(bare[60:650, 300:700].astype(int), axis=2)
    assert grey.mean() < 4


def test_the_split_view_shows_measured_left_and_predicted_right(browser: Browser, page: Path) -> None:
    browser.open(page, "layer=measured&signature=Immune_T")
    measured = browser.picture()
    browser.choose("layer", "predicted")
    predicted = browser.picture()
    browser.choose("layer", "split")
    both = browser.picture()
    left, right = np.s_[150:600, 420:480], np.s_[150:600, 520:580]
    assert difference(both[left], measured[left]) < 0.5 < difference(both[left], predicted[left])
    assert difference(both[right], predicted[right]) < 0.5


def test_the_wheel_zooms_where_the_pointer_is_and_dragging_moves(browser: Browser, page: Path) -> None:
    browser.open(page)
    before, seen = state(browser), browser.picture()
    x, y = CENTRE[0] + 100, CENTRE[1] + 50
    top = browser.ask("document.getElementById('view').getBoundingClientRect().top")
    height = browser.ask("document.getElementById('view').clientHeight")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    after = state(browser)
    assert after["z"] == pytest.approx(before["z"] * np.exp(0.6), rel=0.01)

    def place(view: dict[str, float]) -> tuple[float, float]:
        return view["x"] + (x - SIZE[0] / 2) / view["z"], view["y"] + (y - top - height / 2) / view["z"]

    np.testing.assert_allclose(place(after), place(before), atol=1.5)  # the address keeps whole px
    zoomed = browser.picture()
    assert difference(zoomed, seen) > 2
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseMoved", x - 60, y - 30)
    browser.mouse("mouseReleased", x - 60, y - 30)
    moved = state(browser)
    assert moved["x"] - after["x"] == pytest.approx(60 / after["z"], abs=1.5)
    assert moved["y"] - after["y"] == pytest.approx(30 / after["z"], abs=1.5)
    now = browser.picture()
    assert difference(now[250:600, 100:600], zoomed[280:630, 160:660]) < 3  # the same tissue, moved
    browser.ask("document.getElementById('fit').click()")
    assert difference(browser.picture()[200:650, 100:700], seen[200:650, 100:700]) < 1


def test_an_address_shows_the_same_view_again(browser: Browser, page: Path) -> None:
    browser.open(page, "layer=measured&signature=Fibroblast&z=1.5&opacity=40&grey=0")
    seen, address = browser.picture(), browser.ask("location.hash")
    assert "layer=measured" in address
    browser.open(page, address[1:])
    inside = np.s_[200:650, 100:700]  # beside the panel of what lies under the pointer
    assert difference(browser.picture()[inside], seen[inside]) < 0.5
    assert browser.open(page, "layer=nothing&signature=none&slide=other&z=-1&x=a").split("|")[1] == "predicted"


def test_a_patch_under_the_pointer_shows_its_values(browser: Browser, page: Path, study) -> None:
    browser.open(page, "layer=measured&signature=Immune_T")
    view = state(browser)
    top = browser.ask("document.getElementById('view').getBoundingClientRect().top")
    height = browser.ask("document.getElementById('view').clientHeight")
    row = 40
    centre = study["patches"][["x0", "y0"]].to_numpy()[row] + 20
    browser.mouse(
        "mouseMoved",
        SIZE[0] / 2 + (centre[0] - view["x"]) * view["z"],
        top + height / 2 + (centre[1] - view["y"]) * view["z"],
    )
    browser.drawn()
    text = browser.ask("document.getElementById('readout').innerText")
    measured, patch = study["signatures"], study["patches"].index[row]
    at = list(measured.obs["patch_id"]).index(patch)
    value = float(measured[at, "Immune_T"].X[0, 0])
    assert f"{value:.3g}"[:5] in text, (value, text)


def test_slides_of_a_cohort_and_patches_off_a_grid(browser: Browser, study, tmp_path: Path) -> None:
    """Patches that another tool cut anywhere are drawn where they lie."""
    slide = sp.datasets.toy()
    sp.pp.split(slide, by="block", block_um=150, buffer_um=40, n_folds=2)
    sp.pp.make_patches(slide, patch_px=56, um_per_px=1.0)
    sp.pp.assign_cells(slide)
    sp.tl.score_cells(slide, "seed")
    sp.tl.aggregate_patches(slide, min_cells=5, use_rep=None)
    path = sp.pl.atlas(slide, tmp_path / "a.html")
    on_grid = browser.open(path) and browser.picture()
    text = path.read_text("utf-8")
    from .conftest import content_of

    content = content_of(path)
    import base64
    import json

    places = content["slides"][0]["patches"]
    for name, first in (("x", places["x0"]), ("y", places["y0"])):
        steps = np.frombuffer(base64.b64decode(places[name]), "<u4")
        places[name] = base64.b64encode((first + steps * places["side"]).astype("<f4").tobytes()).decode()
    places["grid"] = False
    start = text.index('id="content">') + len('id="content">')
    end = text.index("</script>", start)
    (tmp_path / "b.html").write_text(text[:start] + json.dumps(content) + text[end:], encoding="utf-8")
    browser.open(tmp_path / "b.html")
    assert difference(browser.picture(), on_grid) < 1


def test_patches_that_fail_quality_control_are_clear_until_asked_for(browser: Browser, study, tmp_path: Path) -> None:
    """And a slide that lies outside says so in its corner."""
    import spatialdata as sd

    slide = sd.deepcopy(study)
    slide["patches"]["qc_pass"] = False
    slide["signatures_pred"].uns["spatialsig"]["predict"]["ood"] = {"slide": 2.5, "share": 0.9, "reason": "stain"}
    path = sp.pl.atlas(slide, tmp_path / "a.html")
    browser.open(path)
    inside = np.s_[200:600, 350:650]
    clear = browser.picture()[inside]
    assert np.ptp(clear.astype(int), axis=2).mean() < 4  # the grey H&E alone
    about = browser.ask("document.getElementById('about').innerText")
    assert "90% of its patches lie outside what the model learned from, in their stain" in about
    assert "fail quality control and are left clear" in about
    browser.ask("(o => { o.checked = true; o.dispatchEvent(new Event('change')); })(document.getElementById('failed'))")
    assert difference(browser.picture()[inside], clear) > 5
    browser.open(path, "layer=column:tissue_fraction")  # what was measured of them is shown
    assert difference(browser.picture()[inside], clear) > 5
    browser.open(sp.pl.atlas(study, tmp_path / "b.html"))
    assert browser.ask("document.getElementById('of-failed').hidden")
