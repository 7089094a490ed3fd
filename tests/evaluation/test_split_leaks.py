"""Small cohorts: held-out smooth tissue raises no alarm, random patches do; numbers against scipy and plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

import spatialsig as sp
from spatialsig.evaluation.evaluate import simple_predictions
from spatialsig.evaluation.findings_scores import score_findings
from spatialsig.evaluation.metrics import _learned_beside, evaluation_table
from spatialsig.evaluation.rows import Rows
from spatialsig.stats.significance import exchange_p, most_of

N_COHORTS, N_SIGNATURES = 50, 6


def smooth_tissue(rng: np.random.Generator, side: int, *, length: float) -> np.ndarray:
    """Signatures ``(side * side, t)`` that vary over ``length`` patches and share half of their variance, as cell types do."""
    maps = ndimage.gaussian_filter(rng.normal(size=(N_SIGNATURES + 1, side, side)), (0, length, length), mode="wrap")
    maps /= maps.std(axis=(1, 2), keepdims=True)
    mixed = (maps[:-1] + maps[-1]) / np.sqrt(2) + 0.3 * rng.normal(size=(N_SIGNATURES, side, side))
    return mixed.reshape(N_SIGNATURES, -1).T.astype(np.float32)


def slide(rng: np.random.Generator, name: str, side: int, train: np.ndarray, *, length: float) -> Rows:
    row, col = (axis.ravel() for axis in np.mgrid[:side, :side])
    n = len(row)
    flat = {"colour": rng.normal(size=(n, 6)), "density": rng.normal(size=(n, 1)), "hand": rng.normal(size=(n, 15))}
    names = [f"s{k}" for k in range(N_SIGNATURES)]
    return Rows(
        sample=name, patient=name, signatures=names, train=train, targets=smooth_tissue(rng, side, length=length),
        position=np.stack([col, row], axis=1) / side, row=row, col=col, step=1, density=rng.normal(size=(n, 2)),
        facts=None, features=flat, index=np.arange(n),  # type: ignore[arg-type]  # metrics look at numbers alone
        ceiling=pd.DataFrame({"sample": name, "signature": names, "ceiling": 0.9}),
    )  # fmt: skip


def cohort(seed: int, *, random_patches: bool) -> list[Rows]:
    """Two to five small slides of smooth tissue; the first, often the smallest, is held out, or a quarter of all patches."""
    rng = np.random.default_rng(seed)
    sides = [int(rng.integers(4, 10)), *rng.integers(5, 15, size=rng.integers(1, 5)).tolist()]
    length = float(rng.uniform(1, 3))
    return [
        slide(
            rng, f"S{k}", side, rng.random(side**2) > 0.25 if random_patches else np.full(side**2, k > 0), length=length
        )
        for k, side in enumerate(sides)
    ]


def judged(slides: list[Rows]) -> pd.DataFrame:
    tested = [rows for rows in slides if rows.test.any()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "spatialsig.evaluation.evaluate.RIDGES", {}
        )  # which say nothing of leaks and take most of the time
        predictions = {rows.sample: simple_predictions(rows, slides) for rows in tested}
    return evaluation_table(tested, slides, predictions, pooled=False)


def leaks(table: pd.DataFrame) -> bool:
    return "split_leaks" in [finding.name for finding in score_findings(table)]


@pytest.fixture(scope="module")
def clean() -> list[pd.DataFrame]:
    return [judged(cohort(seed, random_patches=False)) for seed in range(N_COHORTS)]


def test_no_small_clean_cohort_is_called_a_leak(clean: list[pd.DataFrame]) -> None:
    assert [seed for seed, table in enumerate(clean) if leaks(table)] == []


def test_that_is_not_for_want_of_likeness_by_chance(clean: list[pd.DataFrame]) -> None:
    """Coordinates of many of these cohorts reach more than .05, some as much as a leak does."""
    r = pd.Series([table.query("method == 'coordinates'")["pearson"].mean() for table in clean])
    assert (r > 0.05).sum() >= 10
    assert r.max() > 0.3


def test_random_patches_are_found() -> None:
    found = [leaks(judged(cohort(seed, random_patches=True))) for seed in range(N_COHORTS)]
    assert sum(found) >= 49


def test_blocks_beside_each_other_are_found_and_blocks_apart_are_not() -> None:
    rng = np.random.default_rng(0)
    rows = slide(rng, "S", 12, np.ones(144, bool), length=1.0)
    stripes = (rows.col // 2) % 2 == 0  # every held-out patch lies beside one that trains
    rows.train = stripes
    assert leaks(judged([rows]))
    half = slide(rng, "S", 16, np.ones(256, bool), length=1.0)
    half.train = half.col < 8
    assert not _learned_beside(half)
    assert not leaks(judged([half]))


@pytest.mark.parametrize("step", [1, 2])
def test_beside_is_as_a_loop_finds_it(step: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = slide(rng, "S", 8, rng.random(64) < rng.uniform(0.02, 0.3), length=1.0)
        rows.step = step
        touching = [
            any(abs(rows.row[i] - rows.row[j]) <= 2 * step and abs(rows.col[i] - rows.col[j]) <= 2 * step for j in np.flatnonzero(rows.train))
            for i in np.flatnonzero(rows.test)
        ]  # fmt: skip
        assert _learned_beside(rows) == (np.mean(touching) > 0.5)


def test_chance_of_exchanged_patches_is_that_of_permutations() -> None:
    rng = np.random.default_rng(3)
    for strength in (0.0, 0.3, 0.6):
        x = rng.normal(size=40)
        y = strength * x + rng.normal(size=40)
        drawn = stats.permutation_test(
            (x,), lambda a, y=y: np.corrcoef(a, y)[0, 1], permutation_type="pairings", alternative="greater",
            n_resamples=4000, rng=0,
        )  # fmt: skip
        assert exchange_p(x, y) == pytest.approx(drawn.pvalue, abs=0.03)
    assert np.isnan(exchange_p(x, np.ones(40)))
    assert np.isnan(exchange_p(x[:2], y[:2]))


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9, 1.0])
def test_most_of_several_is_a_p_value_however_they_depend(shared: float) -> None:
    rng = np.random.default_rng(1)
    z = np.sqrt(shared) * rng.normal(size=(4000, 1)) + np.sqrt(1 - shared) * rng.normal(size=(4000, 7))
    p = np.array([most_of(row) for row in stats.norm.sf(z)])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 4000)


def test_most_of_several_by_hand() -> None:
    assert most_of(np.array([0.001, 0.5, 0.9])) == pytest.approx(0.5 * 3 / 2)  # one alone shows nothing of most
    assert most_of(np.array([0.01, 0.02, 0.9, np.nan, 0.8])) == pytest.approx(0.04)
    assert most_of(np.array([0.03])) == pytest.approx(0.03)
    assert most_of(np.array([0.9, 1.0])) == 1.0
    assert np.isnan(most_of(np.array([np.nan])))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_small_clean_cohorts_of_whole_slides(tmp_path: Path) -> None:
    found = [seed for seed in range(N_COHORTS) if leaks(of_slides(tmp_path / str(seed), seed, random_patches=False))]
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_small_leaking_cohorts_of_whole_slides(tmp_path: Path) -> None:
    found = [leaks(of_slides(tmp_path / str(seed), seed, random_patches=True)) for seed in range(N_COHORTS)]
    assert sum(found) >= 49


def of_slides(folder: Path, seed: int, *, random_patches: bool) -> pd.DataFrame:
    """Baselines of two synthetic slides of two patients, from H&E and counts on."""
    edges = [float(np.random.default_rng(seed).choice([250, 300, 400])), 500.0]
    stores = {f"S{k}": folder / f"S{k}.zarr" for k in range(len(edges))}
    for k, (sample, store) in enumerate(stores.items()):
        made = sp.datasets.toy(seed=100 * seed + k, size_um=edges[k], sample=sample, patient=f"P{k}")
        sp.io.write(made, store)
    both = sp.Cohort(stores)
    if random_patches:
        with pytest.warns(sp.errors.SpatialsigWarning, match="too high"):
            sp.pp.split(both, by="random", allow_leakage=True, n_folds=4, seed=seed)
    else:
        sp.pp.split(both, n_folds=2, seed=seed)
    sp.pp.make_patches(both, patch_px=56, um_per_px=1.0, stride_um=28.0)
    sp.pp.assign_cells(both)
    sp.tl.score_cells(both, "seed")
    sp.tl.aggregate_patches(both, min_cells=5, use_rep=None)
    return sp.tl.baselines(both)
