"""Simple predictors learn from training rows alone and are what their names say."""

from collections.abc import Callable

import numpy as np
import pytest

from spatialsig.evaluation.rows import Rows
from spatialsig.evaluation.simple_predictors import RIDGES, simple_predictions

MakeRows = Callable[..., Rows]


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
