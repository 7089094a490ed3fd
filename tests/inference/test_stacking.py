"""Shares of expression, image and network: those of the planted truth, learned on patches held out, cautious with few patients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import torch

import spatialsig as sp
from spatialsig.data.features import FeatureSource
from spatialsig.inference import stacking, vit
from spatialsig.inference.stacking import HALVES, HeldOut, _halves, blocks, folds_to_hold_out, learn_shares
from spatialsig.inference.training_set import LabelledPatches
from spatialsig.models import SignatureViT
from spatialsig.nn.stacking import PARTS

EXPRESSION, IMAGE, FUSED = range(len(PARTS))


def held_out(*noise: float, n_patients: int = 1000, n: int = 4000) -> HeldOut:
    """Parts that are the truth and noise of their own, shrunk as regressions are."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(n, 2))
    parts = np.stack([(truth + sd * rng.normal(size=truth.shape)) / (1 + sd**2) for sd in noise])
    return HeldOut(parts, truth, np.ones(n), n_patients)


def test_shares_are_those_of_the_best_linear_estimate() -> None:
    shares = learn_shares(held_out(0.5, 1.0, 1e3))
    # independent parts weigh by their precision; the truth has variance 1
    precision = np.array([1 / 0.25, 1 / 1.0])
    expected = precision * np.array([1.25, 2.0]) / (1 + precision.sum())
    np.testing.assert_allclose(shares[:2], np.stack([expected] * 2, axis=1), atol=0.03)
    assert (shares >= 0).all()


@pytest.mark.parametrize(("noise", "best"), [((0.3, 2.0, 3.0), EXPRESSION), ((2.0, 0.3, 3.0), IMAGE)])
def test_one_patient_leaves_the_better_part_most_of_the_word(noise: tuple[float, ...], best: int) -> None:
    one, many = (learn_shares(held_out(*noise, n_patients=n)) for n in (1, 1000))
    other = EXPRESSION + IMAGE - best
    assert (one[best] > many[best]).all()
    assert (one[other] < many[other]).all()


def test_a_part_that_says_nothing_has_no_share() -> None:
    shares = learn_shares(held_out(0.3, 1e6, 1e6))
    assert (shares[EXPRESSION] > 0.9).all()
    rng = np.random.default_rng(1)
    parts = np.stack([rng.normal(size=(500, 1)) for _ in range(3)])
    assert (
        learn_shares(HeldOut(parts, -parts[0], np.ones(500), 5)).max() < 0.1
    )  # never below 0: no part is turned round


def test_patches_without_scores_or_parts_teach_nothing() -> None:
    full = held_out(0.5, 1.0, 2.0)
    parts, targets = full.parts.copy(), full.targets.copy()
    parts[0, ::3], targets[1::3, 0] = np.nan, np.nan
    keep = np.arange(len(targets)) % 3 == 2
    expected = learn_shares(HeldOut(parts[:, keep], targets[keep], full.weights[keep], 1000))
    np.testing.assert_allclose(
        learn_shares(HeldOut(parts, targets, full.weights, 1000))[:, 0], expected[:, 0], atol=0.02
    )
    targets[:, 0] = np.nan
    assert np.isfinite(learn_shares(HeldOut(parts, targets, full.weights, 1000))).all()


def patches(patient: str, n: int, *, measured: bool = True) -> LabelledPatches:
    rng = np.random.default_rng(n)
    targets = rng.normal(size=(n, 1)) if measured else np.full((n, 1), np.nan)
    source = FeatureSource(patient, np.zeros((n, 1), np.float32), 56)
    return LabelledPatches(source, targets, None, np.ones(n, np.float32), patient, rng.uniform(0, 1000, (n, 2)))


def test_halves_keep_patients_together_and_are_about_equal() -> None:
    train = [patches("A", 100), patches("B", 40), patches("A", 20), patches("C", 70), patches("D", 30)]
    half = _halves(train, seed=0)
    assert half is not None
    sides = [set(h) for h in half]
    assert all(len(side) == 1 for side in sides)
    assert sides[0] == sides[2]
    sizes = [sum((h == k).sum() for h in half) for k in range(HALVES)]
    assert abs(sizes[0] - sizes[1]) <= 20


def test_halves_of_one_patient_are_slides_and_of_one_slide_blocks() -> None:
    slides = _halves([patches("A", 50), patches("A", 60)], seed=0)
    assert slides is not None
    assert [set(h) for h in slides] in ([{0}, {1}], [{1}, {0}])
    one = patches("A", 100)
    (half,) = _halves([one], seed=0)
    assert sorted(np.bincount(half)) == [50, 50]
    axis = np.ptp(one.centres, axis=0).argmax()
    assert one.centres[half == 0, axis].max() <= one.centres[half == 1, axis].min()


def test_a_half_that_would_teach_nothing_is_cut_otherwise() -> None:
    mixed = _halves([patches("A", 100), patches("B", 100, measured=False)], seed=0)
    assert mixed is not None
    assert set(mixed[0]) == {0, 1}  # patient B measured nothing that A could be held out for
    assert _halves([patches("A", 6)], seed=0) is None


def test_folds_of_the_regression_are_patients_or_blocks() -> None:
    assert set(folds_to_hold_out([patches("A", 30), patches("B", 30), patches("A", 5)])[-5:]) == {0}
    assert len(set(folds_to_hold_out([patches("A", 100)]))) == stacking.N_BLOCKS
    assert len(set(folds_to_hold_out([patches("A", 100), patches("A", 80)]))) == stacking.N_BLOCKS


def test_blocks_are_compact_and_equal() -> None:
    centres = np.random.default_rng(0).uniform(0, [2000, 500], (160, 2))
    block = blocks(centres, 8)
    assert np.bincount(block).tolist() == [20] * 8
    assert max(np.ptp(centres[block == k], axis=0).max() for k in range(8)) < 800
    assert sorted(blocks(centres[:5], 8)) == list(range(5))  # never an empty one
    assert blocks(centres[:1], 8).tolist() == [0]


SIZE = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
TRAINING = {"test_fold": 0, "use_rep": "X_id", "size": SIZE, "max_epochs": 1}


@pytest.fixture
def embedded(patched: sd.SpatialData) -> sd.SpatialData:
    """The toy slide with an embedding that tells the first score."""
    table = patched["signatures"]
    noise = np.random.default_rng(0).normal(size=(table.n_obs, 3))
    table.obsm["X_id"] = np.c_[table.X[:, 0], noise].astype(np.float32)
    return patched


def inputs(model: SignatureViT) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 3, model.patch_px, model.patch_px), dtype=np.uint8)
    codes = rng.normal(size=(6, model.config.n_latent))
    codes[2] = np.nan
    return images, codes


def test_a_stacked_model_weighs_its_parts_and_is_kept_whole(embedded: sd.SpatialData, tmp_path: Path) -> None:
    plain, stacked = (sp.tl.train_vit(embedded, stacking=stacking, **TRAINING) for stacking in (False, True))
    images, codes = inputs(plain)
    alone, fused = plain.predict(images), plain.predict(images, codes)
    np.testing.assert_array_equal(stacked.predict(images), alone)  # the image alone is what it was
    assert plain.config.n_landmarks == 0
    assert "stacking" not in plain.run
    net = stacked.net.stacking
    code = ((np.nan_to_num(codes) - stacked.ae_mean) / stacked.ae_std).astype(np.float32)
    expression = net.expression(torch.from_numpy(code)).numpy()
    parts = [expression, *((scores - stacked.target_mean) / stacked.target_std for scores in (alone, fused))]
    expected = (
        sum(s * p for s, p in zip(net.shares.numpy(), parts, strict=True)) * stacked.target_std + stacked.target_mean
    )
    expected[2] = alone[2]  # no embedding
    np.testing.assert_allclose(stacked.predict(images, codes), expected, atol=2e-5)
    shares = stacked.run["stacking"]
    assert list(shares) == list(PARTS)
    assert shares["expression"]["Immune_T"] > max(shares["image"]["Immune_T"], shares["fused"]["Immune_T"])
    stacked.save(tmp_path / "model")
    loaded = SignatureViT.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(images, codes), stacked.predict(images, codes))
    np.testing.assert_array_equal(loaded.predict(images), alone)


def test_no_network_judges_what_it_was_fitted_to(embedded: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[set[tuple[int, ...]]] = []
    judged: list[set[tuple[int, ...]]] = []
    fit_tuned, scores = vit.fit_tuned, stacking._scores

    def places(sets: list[LabelledPatches]) -> set[tuple[int, ...]]:
        return {tuple(origin) for p in sets for origin in p.source.origins.tolist()}

    monkeypatch.setattr(vit, "fit_tuned", lambda t, s, **o: fitted.append(places(s.train)) or fit_tuned(t, s, **o))
    monkeypatch.setattr(stacking, "_scores", lambda m, p: judged.append(places([p])) or scores(m, p))
    sp.tl.train_vit(embedded, **TRAINING)
    everything, *halves = fitted
    assert len(halves) == len(judged) == HALVES
    for half, others in zip(halves, judged, strict=True):
        assert half.isdisjoint(others)
        assert half | others == everything


@pytest.mark.parametrize("fusion", ["token", "film", "add"])
def test_every_fusion_can_be_stacked(embedded: sd.SpatialData, fusion: str) -> None:
    model = sp.tl.train_vit(embedded, fusion=fusion, **TRAINING)
    images, codes = inputs(model)
    assert model.config.n_landmarks > 0
    assert np.isfinite(model.predict(images, codes)).all()


def test_a_stopped_run_resumes_in_its_halves(
    embedded: sd.SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sp.tl.train_vit(embedded, **TRAINING)
    images, codes = inputs(expected)
    fit_tuned, asked = vit.fit_tuned, []

    def stopped(*args: object, **options: object) -> object:
        asked.append(options.get("run_dir"))
        if len(asked) == HALVES + 1:
            raise KeyboardInterrupt
        return fit_tuned(*args, **options)

    monkeypatch.setattr(vit, "fit_tuned", stopped)
    with pytest.raises(KeyboardInterrupt):
        sp.tl.train_vit(embedded, run_dir=tmp_path, **TRAINING)
    monkeypatch.undo()
    model = sp.tl.train_vit(embedded, run_dir=tmp_path, **TRAINING)
    assert asked == [tmp_path, tmp_path / "half-0", tmp_path / "half-1"]
    assert all((place / "history.csv").exists() for place in asked)
    np.testing.assert_array_equal(model.predict(images, codes), expected.predict(images, codes))


def test_members_of_an_ensemble_share_what_the_first_learned(
    embedded: sd.SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(stacking, "_by_halves", _counted(stacking._by_halves, calls))
    ensemble = sp.tl.train_ensemble(embedded, n_members=2, **TRAINING)
    assert len(calls) == 1
    first, second = ensemble.members
    assert first.run["stacking"] == second.run["stacking"]
    images, codes = inputs(first)
    both = (first.predict(images, codes) + second.predict(images, codes)) / 2
    np.testing.assert_allclose(ensemble.predict(images, codes), both, rtol=1e-5)
    assert not np.array_equal(first.predict(images), second.predict(images))


def test_few_patches_leave_the_score_to_the_network(embedded: sd.SpatialData) -> None:
    table = embedded["signatures"]
    table.X[stacking.FEWEST - 1 :] = np.nan
    few = TRAINING | {"test_fold": None}
    plain, model = (sp.tl.train_vit(embedded, stacking=s, **few) for s in (False, True))
    images, codes = inputs(model)
    np.testing.assert_array_equal(model.predict(images, codes), plain.predict(images, codes))


def _counted(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        calls.append(1)
        return function(*args)

    return counted
