"""Order of rows and leaks on maps with a known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from spatialsig.referee.leaks import excess_over_ceiling
from spatialsig.referee.order import Sheet, best_order, lost_order, resemblance

SIDE, N_SIGNATURES = 20, 6


def sheet(seed: int, *, r: float = 0.8) -> Sheet:
    """Smooth labels, and predictions that agree with them at about ``r``, their error as smooth as they."""
    rng = np.random.default_rng(seed)
    maps = gaussian_filter(rng.normal(size=(2, SIDE, SIDE, N_SIGNATURES)), (0, 2, 2, 0))
    labels, error = (m.reshape(-1, N_SIGNATURES) / m.std() for m in maps)
    row, col = np.divmod(np.arange(SIDE**2), SIDE)
    return Sheet(np.arange(SIDE**2), r * labels + np.sqrt(1 - r**2) * error, labels, row, col, 1)


def moved(one: Sheet, rows: np.ndarray) -> Sheet:
    return Sheet(one.ids, one.predicted[rows], one.labels, one.row, one.col, one.step)


N = np.arange(SIDE**2)
TEXT = np.argsort(N.astype(str), kind="stable")
GRID = N.reshape(SIDE, SIDE)
MISTAKES = {
    "in the order of their ids as text": TEXT,
    "in the order of their ids as numbers": np.argsort(TEXT),
    "with x and y exchanged": GRID.T.ravel(),
    "mirrored left to right": GRID[:, ::-1].ravel(),
    "mirrored top to bottom": GRID[::-1].ravel(),
    "turned by 90 degrees": np.rot90(GRID).ravel(),
    "turned by 270 degrees": np.rot90(GRID, 3).ravel(),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named(mistake: str) -> None:
    found = {
        best_order([moved(sheet(2 * k), MISTAKES[mistake]), moved(sheet(2 * k + 1), MISTAKES[mistake])])[0]
        for k in range(5)
    }
    alike = {"with x and y exchanged": ("column by column", "row by row")}.get(mistake, ())
    assert all(name.startswith((mistake, *alike)) or _same_rows(name, mistake) for name in found), found


def _same_rows(name: str, mistake: str) -> bool:
    """On a whole square grid several mistakes give the same rows."""
    return {name.split(",")[0], mistake} <= {"turned by 90 degrees", "turned by 270 degrees"}


@pytest.mark.parametrize("r", [0.15, 0.5, 0.9])
def test_honest_rows_are_left_alone(r: float) -> None:
    for seed in range(10):
        sheets = [sheet(100 + 2 * seed, r=r), sheet(101 + 2 * seed, r=r)]
        assert best_order(sheets)[0] == ""
        assert not lost_order(sheets)[0]


def test_slides_that_were_exchanged() -> None:
    a, b = sheet(1), sheet(2)
    swapped = [
        Sheet(a.ids, b.predicted, a.labels, a.row, a.col, 1),
        Sheet(b.ids, a.predicted, b.labels, b.row, b.col, 1),
    ]
    assert best_order(swapped)[0].startswith("those of another slide")


def test_rows_without_any_order() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        one = sheet(seed)
        assert lost_order([moved(one, rng.permutation(N))])[0]
    rough = Sheet(one.ids, one.predicted[rng.permutation(N)], rng.normal(size=one.labels.shape), one.row, one.col, 1)
    assert not lost_order([rough])[0]  # labels without any order say nothing


def test_resemblance_is_the_correlation_with_the_mean_around() -> None:
    one = sheet(0)
    table = one.labels[:, 0].reshape(SIDE, SIDE)
    padded = np.pad(table, 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(SIDE, SIDE, 9)
    mean = np.nanmean(np.delete(windows, 4, axis=2), axis=2)
    assert resemblance(one.labels, one.row, one.col, 1)[0] == pytest.approx(
        np.corrcoef(table.ravel(), mean.ravel())[0, 1]
    )


def measured(rng: np.random.Generator, *, noise: float, share: float, n: int = 400, n_slides: int = 3) -> pd.DataFrame:
    """Evaluation of a prediction that is the truth and ``share`` of the noise of the labels; ``noise`` is its variance."""
    rows = []
    for slide in range(n_slides):
        for signature in range(N_SIGNATURES):
            truth, error = rng.normal(size=(2, n)) * np.sqrt([[1 - noise], [noise]])
            r_halves = (1 - noise) / (1 + noise) + rng.normal() * 0.5 * noise / np.sqrt(n)
            ceiling = np.sqrt(2 * r_halves / (1 + r_halves))
            r = np.corrcoef(truth + share * error, truth + error)[0, 1]
            rows.append(
                {"signature": f"s{signature}", "sample": f"S{slide}", "n_patches": n, "pearson": r, "ceiling": ceiling}
            )
    return pd.DataFrame(rows)


def test_a_perfect_honest_model_is_no_leak_in_999_of_1000() -> None:
    rng = np.random.default_rng(0)
    steps = {f"S{k}": 1 for k in range(3)}
    found = [
        any(one.is_leak for one in excess_over_ceiling(measured(rng, noise=0.05, share=0.0), steps)) for _ in range(300)
    ]
    assert sum(found) <= 1


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.3])
def test_a_model_that_knows_half_of_the_noise_is_one(noise: float) -> None:
    rng = np.random.default_rng(1)
    steps = {f"S{k}": 1 for k in range(3)}
    found = [excess_over_ceiling(measured(rng, noise=noise, share=0.5), steps)[0] for _ in range(30)]
    assert all(one.is_leak for one in found)
    assert np.mean([one.ratio for one in found]) < 0.5


def test_overlapping_patches_count_once() -> None:
    table = measured(np.random.default_rng(2), noise=0.05, share=0.5, n=30)
    one, many = (excess_over_ceiling(table, {f"S{k}": step for k in range(3)})[0] for step in (1, 2))
    assert one.high < many.high
    assert one.ratio == pytest.approx(many.ratio)
