from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialsig._checks import first_few
from spatialsig.evaluation.evaluate import RIDGES, all_findings, findings_table, simple_predictions
from spatialsig.evaluation.findings_slides import SlideFacts
from spatialsig.evaluation.rows import Rows
from spatialsig.evaluation.schema import ERROR, NOTE, SEVERITIES, SHOWN, WARNING, Finding

NOTHING = {"scored": {}, "embedded": {}, "labelled": {}, "assigned": {}, "chosen": {}, "controls": [], "signatures": []}
MakeRows = Callable[..., Rows]


def facts(name: str = "S1", **changes: Any) -> SlideFacts:
    clean = {
        "patient": name,
        "patient_known": True,
        "split": {"by": "patient", "fold": 0},
        "alignment": {"verdict": "good", "shift_um": 1.0},
    }
    return SlideFacts(name=name, **NOTHING | clean | changes)


def model(run: dict[str, Any] | None = None, **config: Any) -> Any:
    """What the findings ask of a model."""
    settings = {"fusion": "none", "modality_dropout": 0.0} | config
    return SimpleNamespace(config=SimpleNamespace(**settings), run={"test_fold": 0} if run is None else run)


def names(*arguments: Any) -> list[str]:
    return [finding.name for finding in all_findings(*arguments)]


def test_nothing_given_is_nothing_found() -> None:
    assert all_findings([], None, None) == []
    assert all_findings([facts(), facts("S2")], model(), pd.DataFrame()) == []


def test_the_worst_comes_first() -> None:
    slides = [facts(alignment={}, split={"by": "random"}, controls=["Blank-1"])]
    findings = all_findings(slides, None, None)
    assert [finding.severity for finding in findings] == [ERROR, WARNING, NOTE]
    assert [finding.name for finding in findings] == ["random_split", "controls_in_counts", "registration_unchecked"]
    assert SEVERITIES == (ERROR, WARNING, NOTE)


def test_the_test_fold_is_that_of_the_model() -> None:
    looked = [facts(chosen={"test_fold": 1})]
    assert names(looked, None, None) == []
    assert names(looked, model(), None) == ["genes_from_test"]
    assert names(looked, model({"test_fold": 1}), None) == []


@pytest.mark.parametrize(
    ("fusion", "dropout", "distil", "expected"),
    [
        ("none", 0.0, 0, []),
        ("gated", 0.3, 0, []),
        ("gated", 0.0, 0.5, []),
        ("gated", 0.0, 0, ["never_without_embedding"]),
    ],
)
def test_a_model_that_never_saw_an_image_alone(fusion: str, dropout: float, distil: float, expected: list[str]) -> None:
    trained = model({"test_fold": 0, "distil": distil}, fusion=fusion, modality_dropout=dropout)
    assert names([], trained, None) == expected


def test_the_table_has_its_columns_even_without_rows() -> None:
    assert list(findings_table([]).columns) == ["name", "severity", "slide", "text"]
    table = findings_table([Finding("a", NOTE, "S1", "Why."), Finding("b", ERROR, "", "What.")])
    assert table.to_numpy().tolist() == [["a", NOTE, "S1", "Why."], ["b", ERROR, "", "What."]]


def test_long_lists_are_cut() -> None:
    assert first_few(["a"]) == "a"
    assert first_few(list("abcd"), n=SHOWN) == "a, b, c, d"
    assert first_few(list("abcdef"), n=SHOWN) == "a, b, c, d and 2 more"
    assert first_few(list("abc"), n=1) == "a and 2 more"


@pytest.fixture
def slides(gather_rows: MakeRows) -> list[Rows]:
    return [gather_rows("S1", seed=1), gather_rows("T1", train=True, seed=2), gather_rows("T2", train=True, seed=3)]


def test_every_block_of_features_has_its_ridge(slides: list[Rows]) -> None:
    assert set(simple_predictions(slides[0], slides)) == {
        "hand_features", "colour", "density", "coordinates", "neighbours", "train_mean",
    }  # fmt: skip
    for rows in slides:
        rows.features["ae"] = rows.features["embedding"] = np.ones((len(rows.row), 2))
    predictions = simple_predictions(slides[0], slides)
    assert set(RIDGES) <= set(predictions)
    assert {scores.shape for scores in predictions.values()} == {(144, 3)}


def test_the_mean_is_over_all_training_patches(slides: list[Rows]) -> None:
    with np.errstate(all="ignore"):
        measured = np.concatenate([slides[1].targets, slides[2].targets]).astype(np.float64)
    scores = simple_predictions(slides[0], slides)["train_mean"]
    np.testing.assert_allclose(scores[:, :2], np.broadcast_to(np.nanmean(measured[:, :2], axis=0), (144, 2)))
    assert np.isnan(scores[:, 2]).all()


def test_a_ridge_finds_what_depends_on_its_features(slides: list[Rows]) -> None:
    for rows in slides:
        rows.targets[:, 0] = 3 * rows.features["colour"][:, 4] - 2
    predictions = simple_predictions(slides[0], slides)
    np.testing.assert_allclose(predictions["colour"][:, 0], slides[0].targets[:, 0], atol=0.05)
    assert abs(np.corrcoef(predictions["hand_features"][:, 0], slides[0].targets[:, 0])[0, 1]) < 0.5


def test_nothing_is_learnt_from_test_rows(slides: list[Rows]) -> None:
    before = simple_predictions(slides[0], slides)
    slides[0].targets[:, :2] = np.random.default_rng(9).normal(size=(144, 2))
    after = simple_predictions(slides[0], slides)
    for method in before.keys() - {"neighbours"}:  # which reads the labels around, as it says
        np.testing.assert_array_equal(before[method], after[method])
    assert not np.allclose(before["neighbours"][:, 0], after["neighbours"][:, 0])


def ten_nearest(train_xy: np.ndarray, targets: np.ndarray, xy: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(xy[:, None] - train_xy[None], axis=2)
    return np.stack([targets[np.argsort(d, kind="stable")[:10]].mean(axis=0) for d in distance])


def jittered(rows: Rows, seed: int) -> None:
    """Move patches off their grid, so that no two are equally far."""
    rows.position = rows.position + np.random.default_rng(seed).normal(0, 0.01, rows.position.shape)


def test_coordinates_are_the_nearest_training_patches_of_other_slides(slides: list[Rows]) -> None:
    for seed, rows in enumerate(slides):
        jittered(rows, seed)
    xy = np.concatenate([rows.position for rows in slides[1:]])
    targets = np.concatenate([rows.targets[:, 0] for rows in slides[1:]])
    scores = simple_predictions(slides[0], slides)["coordinates"]
    np.testing.assert_allclose(scores[:, 0], ten_nearest(xy, targets, slides[0].position), rtol=1e-5)


def test_coordinates_take_the_slide_itself_where_training_patches_lie_on_it(gather_rows: MakeRows) -> None:
    train = np.arange(144) % 3 == 0
    rows, other = gather_rows("S1", train=train, seed=1), gather_rows("T", train=True, seed=2)
    jittered(rows, 5)
    scores = simple_predictions(rows, [rows, other])["coordinates"]
    expected = ten_nearest(rows.position[train], rows.targets[train, 0], rows.position[~train])
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-5)


def test_neighbours_are_the_eight_around(slides: list[Rows]) -> None:
    rows = slides[0]
    scores = simple_predictions(rows, slides)["neighbours"]
    for k in (0, 17, 143):
        around = (np.abs(rows.row - rows.row[k]) <= 1) & (np.abs(rows.col - rows.col[k]) <= 1)
        around[k] = False
        np.testing.assert_allclose(scores[k, :2], np.nanmean(rows.targets[around, :2], axis=0), rtol=1e-5)
