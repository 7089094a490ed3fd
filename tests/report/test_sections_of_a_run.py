"""What else a run did stands in its report: intervals, validation slides, slides of one scale, and every step in the methods."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tests.report.test_document import Page, read

from spatialsig import _keys, pl
from spatialsig.report import write_report
from spatialsig.report.methods_section import methods_paragraph
from spatialsig.slide.slides import Slide

COVERAGE = 0.8


@pytest.fixture(scope="module")
def slides(drawn: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trains, V chooses the epoch, B is held out and has intervals, H is an H&E alone."""
    place = tmp_path_factory.mktemp("stores")
    made = {
        name: drawn.make_slide(name, size=(256, 320), fold=fold, seed=fold)
        for name, fold in (("A", 0), ("B", 1), ("V", 2), ("H", 3))
    }
    predicted = made["B"]["signatures_pred"]
    for name, sign in ((_keys.LOWER, -1), (_keys.UPPER, 1)):
        predicted.layers[name] = np.asarray(predicted.X) + sign * np.array([0.2, 9.0], np.float32)
    of_others = Slide(made["B"])
    of_others.put("signatures_pred", predicted.copy())
    del made["H"].tables["signatures"]
    made["H"]["signatures_pred"].X *= 0.1  # a scale of its own would stretch this to all colours
    for name, sdata in made.items():
        sdata.write(place / f"{name}.zarr")
    return drawn.Stores({name: place / f"{name}.zarr" for name in made})


def intervals() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "signature": ["Immune_T", "Fibroblast"], "inputs": "H&E", "coverage": COVERAGE, "half_width": [0.2, 9.0],
            "n_patches": 50, "n_slides": 2, "lowest": [0.7, 0.75], "highest": [0.9, 0.95],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn_limits() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def page(
    given: dict[str, Any],
    slides: Any,
    drawn: ModuleType,
    drawn_limits: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Page:
    record = {"coverage": COVERAGE, "guarantee": "slides", "scaled": True, "samples": ["V"]}
    config = {
        "members": [{"directory": "member-00"}] * 3,
        "net": {"vit": {"dim": 64, "depth": 1, "heads": 2}},
        "intervals": {"H&E": record},
    }
    models = {"image model": {"config": config, "run": {"training_samples": ["A"], "validation_fold": 2}}}
    whole = pl.compare

    def compare(data: Any, signature: str, **options: Any) -> Any:
        axes = whole(data, signature, **options)
        name = Path(data).stem if isinstance(data, Path) else data.attrs["spatialsig"]["sample"]
        drawn_limits.setdefault(name, {})[signature] = axes[0, -1].collections[0].get_clim()
        return axes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spatialsig.report.figures.DPI", 30)
        patch.setattr("spatialsig.report.slide_cards.pl.compare", compare)
        changes = {"cohort": slides, "evaluation": drawn.make_evaluation(("B",)), "histories": {}, "models": models}
        return read(write_report(tmp_path_factory.mktemp("r") / "r.html", **given | changes, intervals=intervals()))


def test_slides_that_choose_the_epoch_are_called_validation(page: Page) -> None:
    assert {row[0]: row[2] for row in page.rows["cohort"][1:]} == {
        "A": "training",
        "B": "held out",
        "V": "validation",
        "H": "H&E alone",
    }


def test_intervals_say_what_they_promise_how_wide_they_are_and_what_they_held(page: Page, slides: Any) -> None:
    rows = {row[0]: row[1:] for row in page.rows["intervals"][1:]}
    store = sd.read_zarr(slides.stores["B"])
    measured, guess = (np.asarray(store[name].X) for name in ("signatures", "signatures_pred"))
    known = np.isfinite(measured[:, 0])
    held = (np.abs(measured - guess) <= 0.2)[known, 0].mean()
    assert 0.1 < held < 0.9
    assert rows["Immune_T"] == ["H&E", "80 %", "± 0.20", "70 % to 90 %", f"{100 * held:.0f} %", str(known.sum())]
    assert rows["Fibroblast"][4] == "100 %"


def test_a_slide_alone_has_the_colours_of_what_was_measured(
    page: Page, slides: Any, drawn_limits: dict[str, Any]
) -> None:
    values = [np.asarray(sd.read_zarr(slides.stores[name])["signatures"].X)[:, 0] for name in "ABV"]
    wanted = np.nanpercentile(np.concatenate(values), [2, 98])
    assert drawn_limits["H"]["Immune_T"] == pytest.approx(wanted, abs=1e-5)
    assert "measured scores of all slides" in page.sections["alone"]


def test_without_intervals_there_is_no_section(given: dict[str, Any], report_path: Path) -> None:
    assert "intervals" not in read(report_path).sections


def test_ensemble_and_calibration_stand_in_the_methods(page: Page) -> None:
    text = page.sections["methods"]
    assert (
        "an ensemble of 3 models from different seeds whose predictions were averaged, each a vision transformer (64 wide"
        in text
    )
    assert (
        "to hold 80% of the scores of new slides, from the errors on 1 slide that had no part in training, in proportion"
        in text
    )


def test_tissue_and_quality_stand_in_the_methods(given: dict[str, Any]) -> None:
    facts = {
        "find_tissue": {"sensitivity": 1.5},
        "qc_patches": {"limits": {"min_focus": 0.2, "max_pen": 0.1}},
    }
    installed = dict.fromkeys(("spatialsig", "spatialdata", "torch", "python"), "1")
    evaluation = given["evaluation"]
    said = methods_paragraph([], evaluation, facts, {}, installed)
    assert "Tissue was outlined on the H&E by colour and texture (sensitivity 1.5)" in said
    assert "pen, folds and unusual stain (min focus 0.2, max pen 0.1)" in said
    assert "Tissue was outlined" not in methods_paragraph([], evaluation, {}, {}, installed)
