"""The report holds every number it was given, says the doubtful things first, and needs no network."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from spatialsig import _keys
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl.drawing.methods import METHODS
from spatialsig.report import methods_section, write_report
from spatialsig.report import slide_cards as report_slides
from spatialsig.report.results_section import number

ADDRESSES = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Text of each section, tables as lists of rows, and every address."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.order: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self._section, self._cell = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ADDRESSES]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.order.append(self._section)
        if tag == "img":
            self.images.append(given["alt"])
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in {"td", "th"}:
            self.rows[self._section][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th"}:
            self._cell = False

    def handle_data(self, data):
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._cell:
            self.rows[self._section][-1][-1] += data


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Small pictures: nothing here looks at their pixels."""
    monkeypatch.setattr("spatialsig.report.figures.DPI", 30)


@pytest.fixture(scope="module")
def written(given, report_path):
    """One report that many tests read, and the arguments it was made from."""
    return report_path, given, read(report_path)


def test_one_small_file_that_calls_nobody(written):
    path, _, page = written
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 20_000_000
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    text = re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=\s]+", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)


def test_the_page_is_well_formed(written):
    page = written[2]
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)


def test_synthetic_and_warnings_stand_before_the_result(written):
    _, given, page = written
    assert page.order[:3] == ["synthetic", "warnings", "result"]
    assert all(warning in page.sections["warnings"] for warning in given["warnings"])
    assert "promise nothing about patients" in page.sections["synthetic"]
    assert "On synthetic tissue" in page.sections["result"]


def test_headline_holds_the_numbers_and_the_controls(written):
    _, given, page = written
    evaluation = given["evaluation"]
    means = evaluation.groupby("method")["pearson"].mean()
    text = page.sections["result"]
    assert f"mean Pearson r of {means['he_only']:.2f} (95 % interval " in text
    assert f"), {100 * means['he_only'] / 0.95:.0f} % of what noise" in text
    assert "2 held-out synthetic patients (2 slides)" in text
    assert "(ceiling 0.95)" in text
    assert f"coordinates only {number(means['coordinates'])}" in text
    assert f"images permuted {number(means['he_only_permuted'])}" in text
    by_signature = evaluation[evaluation["method"] == "he_only"].groupby("signature")["pearson"].mean()
    assert f"Best signature: {by_signature.idxmax()}" in text


def test_the_table_holds_every_mean(written):
    _, given, page = written
    evaluation, rows = given["evaluation"], page.rows["ladder"]
    assert rows[0] == ["Method", "Immune_T", "Fibroblast", "Mean", "Share of ceiling", "95 % interval"]
    table = {row[0]: row[1:] for row in rows[1:]}
    assert [row[0] for row in rows[1 : len(METHODS) + 1]] == list(METHODS.values())
    for method, name in METHODS.items():
        mine = evaluation[evaluation["method"] == method]
        means = mine.groupby("signature")["pearson"].mean()
        expected = [number(means["Immune_T"]), number(means["Fibroblast"]), number(mine["pearson"].mean())]
        assert table[name][:3] == expected
    assert table["Ceiling"][:3] == ["0.95"] * 3
    slide_c = evaluation[evaluation["sample"] == "C"].groupby("method")["pearson"].mean()
    assert table["C"] == [number(slide_c[method]) for method in METHODS]


def test_only_held_out_slides_have_maps(written):
    images = written[2].images
    shown = [alt.split(":")[0] for alt in images if " on " in alt]
    assert sorted(shown) == sorted(f"{s} on {n}" for n in "BC" for s in ("Immune_T", "Fibroblast"))


def test_training_slides_are_marked(written):
    rows = {row[0]: row[1:] for row in written[2].rows["cohort"][1:]}
    assert [row[3] for row in rows.values()] == ["–", "–", "–"]  # noqa: RUF001  # no cells: a dash, never 0
    assert {name: row[1] for name, row in rows.items()} == {"A": "training", "B": "held out", "C": "held out"}
    assert rows["A"][0] == "patient-A"
    assert [row[2] for row in rows.values()] == ["0", "1", "1"]
    assert rows["A"][-2:] == ["20", "150"]


def test_curves_coverage_methods_and_parameters_are_there(written):
    page = written[2]
    assert "autoencoder" in page.sections["training"]
    assert "Validation Pearson r" in page.sections["training"]
    assert page.rows["coverage"][2] == ["Fibroblast", "9", "2", "FAP, DCN", "2 genes measured, 3 wanted"]
    assert "32 × 32 px at 1 µm/px (32 µm)" in page.sections["methods"]  # noqa: RUF001
    assert "3 slides of 3 patients" in page.sections["methods"]
    assert "spatialdata 0." in page.sections["methods"]
    assert "seed: 17" in page.sections["reproduce"]
    assert "spatialsig run config.yaml" in page.sections["reproduce"]


def test_patches_to_look_at_and_calibration_are_there(written):
    page = written[2]
    galleries = [alt for alt in page.images if alt.startswith("Patches of")]
    assert [alt.split(":")[0] for alt in galleries] == ["Patches of Immune_T", "Patches of Fibroblast"]
    assert "slope" in page.sections["scatter"]


def test_slides_and_maps_stand_worst_first(written):
    _, given, page = written
    of_model = given["evaluation"].query("method == 'he_only'")
    expected = of_model.groupby("sample")["pearson"].mean().sort_values()
    rows = page.rows["slides"][1:]
    assert [row[0].split()[0] for row in rows] == expected.index.tolist()
    assert rows[0][0].endswith("worst")
    assert [row[4] for row in rows] == [number(r) for r in expected]
    assert [row[-1] for row in rows] == ["–", "–"]  # noqa: RUF001  # an evaluation without slopes
    assert page.images[0].endswith(f"on {expected.index[0]}: measured, predicted, difference")


def test_questions_are_answered(written):
    text = written[2].sections["ladder"]
    assert "Does gene expression help the image?" in text
    assert text.count("Too few patients.") == text.count("?") > 4


@pytest.fixture(scope="module")
def other(given, drawn, tmp_path_factory):
    """A report of one slide with findings, models and saved figures, without coverage and parameters; little room."""
    findings = pd.DataFrame(
        [
            {"name": "a", "severity": "note", "slide": "", "text": "Worth <knowing>."},
            {"name": "b", "severity": "error", "slide": "B", "text": "Everything is wrong."},
        ]
    )
    run = {"history": {"epoch": [0, 1, 2]}, "training_samples": ["A"], "seed": 5}
    net = {"vit": {"dim": 128, "depth": 2, "heads": 4}, "fusion": "gated", "modality_dropout": 0.3}
    changes = {
        "evaluation": drawn.make_evaluation(("B",)), "histories": {}, "warnings": [], "findings": findings,
        "coverage": None, "parameters": {},
        "models": {
            "autoencoder": {"config": {"net": {"hidden": [1024, 256], "n_latent": 32}}, "run": run | {"seed": 3}},
            "image model": {"config": {"net": net}, "run": run | {"distil": 1.0}},
        },
    }  # fmt: skip
    root = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spatialsig.report.figures.GALLERIES_MAX_CHARS", 10)
        patch.setattr("spatialsig.report.figures.DPI", 30)
        patch.setattr("spatialsig.report.figures.SAVED_DPI", 30)
        patch.setattr(report_slides, "MAPS_MAX_CHARS", 10_000)
        return read(write_report(root / "r.html", **(given | changes), figures=root / "figures")), root / "figures"


def test_findings_stand_first_by_severity(other):
    words = other[0].sections["warnings"].split("\n")
    assert [line for line in words if line] == [
        "Do not trust these numbers yet", "errorB: Everything is wrong.", "noteWorth <knowing>.",
    ]  # fmt: skip
    assert other[0].order[0] == "warnings"


def test_figures_are_saved_beside(other):
    assert {path.name for path in other[1].iterdir()} == {
        "ladder.svg", "ladder.png", "scatter.svg", "scatter.png", "calibration.svg", "calibration.png",
        "map-B-Immune_T.png", "patches-Immune_T.png",
    }  # fmt: skip


def test_what_does_not_fit_is_named(other):
    assert [alt for alt in other[0].images if " on " in alt] == ["Immune_T on B: measured, predicted, difference"]
    assert "Left out to keep this file small: Fibroblast." in other[0].sections["maps"]
    assert "Fibroblast: left out to keep this file small" in other[0].sections["patches"]


def test_what_was_not_kept_is_said(other):
    assert "coverage of the signatures was not kept" in other[0].sections["coverage"]
    assert "parameters of this run were not kept" in other[0].sections["reproduce"]


def test_models_stand_in_the_methods(other):
    text = other[0].sections["methods"]
    assert "An autoencoder (layers 1024-256-32) was trained for 3 epochs on 1 slide (seed 3)." in text
    assert "a vision transformer (128 wide, 2 blocks, 4 heads), was trained for 3 epochs on 1 slide (seed 5)" in text
    assert "(gated fusion) and was hidden from 30% of the training samples, while the network learned to say" in text


def test_a_cross_validation_stands_under_its_own_signatures(inputs, drawn, tmp_path):
    """Folds may have measured other signatures than the one that is shown, and in another order."""
    of_folds = drawn.make_evaluation(("A", "B", "C"), ("Fibroblast", "Pericyte", "Immune_T"))
    rows = read(write_report(tmp_path / "r.html", **inputs, cross_validation=of_folds)).rows["ladder"]
    headers = [place for place, row in enumerate(rows) if row[0] == "Method"]
    assert rows[headers[1]][:5] == ["Method", "Fibroblast", "Pericyte", "Immune_T", "Mean"]
    means = of_folds[of_folds["method"] == "he_only"].groupby("signature")["pearson"].mean()
    (ours,) = [row for row in rows[headers[1] :] if row[0] == METHODS["he_only"]]
    assert ours[1:4] == [number(means[name]) for name in ("Fibroblast", "Pericyte", "Immune_T")]


def test_the_same_inputs_give_the_same_file(inputs, drawn, tmp_path):
    options = {"evaluation": drawn.make_evaluation(("B",), ("Immune_T",)), "histories": {"a": drawn.make_history()}}
    first, second = (write_report(tmp_path / name, **(inputs | options)) for name in ("first.html", "second.html"))
    assert first.read_bytes() == second.read_bytes()


def test_real_data_without_warnings(inputs, tmp_path):
    options = {"parameters": {"command": "spatialsig run mine.yaml"}, "warnings": []}
    page = read(write_report(tmp_path / "r.html", **(inputs | options), title="Cohort <1> & co"))
    assert page.order[:2] == ["warnings", "result"]
    assert "No warnings" in page.sections["warnings"]
    assert "synthetic" not in page.sections["result"].lower()
    assert "Cohort <1> & co" in page.sections[""]
    assert "spatialsig run mine.yaml" in page.sections["reproduce"]
    assert "No training curves" in page.sections["training"]


def test_names_cannot_break_the_page(inputs, drawn, tmp_path):
    name = "<script>alert('S&1')</script>"
    options = {
        "cohort": drawn.make_slide(name, size=(256, 256)),
        "evaluation": drawn.make_evaluation((name,), ("Immune_T",)),
    }
    path = write_report(tmp_path / "r.html", **(inputs | options | {"warnings": [name]}))
    assert "<script" not in path.read_text(encoding="utf-8")
    page = read(path)
    assert name in page.sections["warnings"]
    assert page.rows["cohort"][1][0] == name
    assert "1 held-out synthetic patient (1 slide)" in page.sections["result"]


def test_blocks_of_one_slide(inputs, drawn, tmp_path, monkeypatch):
    """A slide split into blocks is both: only its test blocks may be shown."""
    sdata = drawn.make_slide("S1", size=(320, 320))
    sdata.attrs[_keys.NAMESPACE]["split"] = {
        "by": "block", "n_folds": 2, "block_um": 60.0, "buffer_um": 5.0, "seed": 0,
    }  # fmt: skip
    for key in (_keys.SIGNATURES, _keys.SIGNATURES_PRED):
        sdata.tables[key].obs[_keys.FOLD] = np.arange(sdata.tables[key].n_obs) % 2
    asked = []
    draw = report_slides.pl.compare
    monkeypatch.setattr(
        report_slides.pl,
        "compare",
        lambda *args, **keys: asked.append(keys["fold"]) or draw(*args, **keys),
        raising=False,
    )
    options = {"cohort": sdata, "evaluation": drawn.make_evaluation(("S1",), ("Immune_T",))}
    page = read(write_report(tmp_path / "r.html", **(inputs | options)))
    assert set(asked) == {1}
    assert page.rows["cohort"][1][2:4] == ["held-out blocks", "blocks"]
    assert "only held-out blocks are shown" in page.sections["maps"]
    assert "in blocks of 60 µm kept 5 µm from any training patch" in page.sections["methods"]


def test_errors(inputs, drawn, tmp_path):
    path = tmp_path / "r.html"
    with pytest.raises(InputError, match=r"none of the evaluated samples \['X'\] is in the cohort: \['A', 'B', 'C'\]"):
        write_report(path, **(inputs | {"evaluation": drawn.make_evaluation(("X",))}))
    with pytest.raises(InputError, match="no slide was held out"):
        write_report(path, **(inputs | {"evaluation": drawn.make_evaluation().iloc[:0]}))
    with pytest.raises(KeyMissingError, match="column='share_of_ceiling'"):
        write_report(path, **(inputs | {"evaluation": drawn.make_evaluation().drop(columns="share_of_ceiling")}))
    with pytest.raises(KeyMissingError, match=r"predictions_key='pred'.*slide 'B'"):
        write_report(path, **inputs, predictions_key="pred")
    assert not path.exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.004, "0.00"), (-0.01, "\N{MINUS SIGN}0.01"), (0.805, "0.81"), (np.nan, "–")],  # noqa: RUF001
)
def test_numbers_for_people(value, shown):
    assert number(value) == shown


def test_a_scorer_of_the_user_goes_by_its_name():
    said = methods_section._labels({"names": ["A", "B"], "method": "my_score"}, {"stat": "mean", "min_cells": 3})
    assert said.startswith("2 gene signatures were scored in every cell (my_score). The label of a patch is the mean")


@pytest.mark.parametrize(("head", "wanted"), [("ridge", "a ridge regression"), ("mlp", "a small network")])
def test_a_probe_is_told_by_its_head(head, wanted):
    run = {"probe": {"head": head}, "training_samples": ["A", "B"], "seed": 0}
    text = methods_section._image_model({"config": {"net": {"backbone": "table:uni", "fusion": "none"}}, "run": run})
    assert text == (
        f"The image model, {wanted} on principal components of features of the backbone table:uni, was trained in one step on 2 slides "
        "(seed 0)."
    )
