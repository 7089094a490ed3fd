"""The table of an evaluation holds the numbers of pandas, scipy and scikit-learn."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from spatialsig.evaluation.metrics import evaluation_table
from spatialsig.evaluation.rows import Rows
from spatialsig.evaluation.schema import COLUMNS, POOLED, slide_rows

MakeRows = Callable[..., Rows]


@pytest.fixture
def slides(gather_rows: MakeRows) -> list[Rows]:
    return [gather_rows("S1", seed=1), gather_rows("S2", patient="P2", seed=2), gather_rows("T", train=True, seed=3)]


def guesses(rows: Rows, *, noise: float) -> np.ndarray:
    seen = np.nan_to_num(rows.targets[rows.test])
    return 0.5 * seen + 1 + noise * np.random.default_rng(7).normal(size=seen.shape)


@pytest.fixture
def predictions(slides: list[Rows]) -> dict[str, dict[str, np.ndarray]]:
    return {
        rows.sample: {"good": guesses(rows, noise=0.1), "poor": guesses(rows, noise=3), "flat": np.ones((144, 3))}
        for rows in slides[:2]
    }


@pytest.fixture
def table(slides: list[Rows], predictions: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    return evaluation_table(slides[:2], slides, predictions, pooled=True)


def row(table: pd.DataFrame, method: str, signature: str, sample: str) -> pd.Series:
    chosen = (table["method"] == method) & (table["signature"] == signature) & (table["sample"] == sample)
    return table[chosen].squeeze()


def test_columns_are_those_of_the_schema(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert set(table["sample"]) == {"S1", "S2", POOLED}
    assert len(slide_rows(table)) == 2 * 3 * 3
    assert set(slide_rows(table)["sample"]) == {"S1", "S2"}


@pytest.mark.parametrize("method", ["good", "poor"])
@pytest.mark.parametrize("signature", [0, 1])
def test_agreement_is_that_of_other_libraries(
    table: pd.DataFrame, slides: list[Rows], predictions: dict, method: str, signature: int
) -> None:
    measured = pd.Series(slides[1].targets[:, signature]).astype(float)
    guess = pd.Series(predictions["S2"][method][:, signature]).where(measured.notna()).dropna()
    measured = measured.dropna()
    numbers = row(table, method, "AB"[signature], "S2")
    line = stats.linregress(guess, measured)
    spread = measured.var(ddof=0) + guess.var(ddof=0) + (measured.mean() - guess.mean()) ** 2
    expected = {
        "n_patches": len(measured),
        "pearson": measured.corr(guess),
        "spearman": measured.corr(guess, method="spearman"),
        "r2": r2_score(measured, guess),
        "mae": (measured - guess).abs().mean(),
        "ccc": 2 * measured.cov(guess, ddof=0) / spread,
        "calibration_slope": line.slope,
        "calibration_intercept": line.intercept,
    }
    assert numbers[list(expected)].astype(float).to_dict() == pytest.approx(expected, rel=1e-6)


def test_partial_correlation_is_that_of_the_residuals(
    table: pd.DataFrame, slides: list[Rows], predictions: dict
) -> None:
    design = np.c_[np.ones(144), slides[0].density]
    columns = np.c_[slides[0].targets[:, 0], predictions["S1"]["poor"][:, 0]]
    residuals = columns - design @ np.linalg.pinv(design) @ columns
    expected = np.corrcoef(residuals.T)[0, 1]
    assert row(table, "poor", "A", "S1")["partial_pearson"] == pytest.approx(expected)


def test_share_of_the_ceiling_needs_one(table: pd.DataFrame) -> None:
    numbers = row(table, "good", "A", "S1")
    assert numbers["share_of_ceiling"] == pytest.approx(numbers["pearson"] / 0.9)
    assert np.isnan(row(table, "good", "B", "S1")["share_of_ceiling"])  # the halves did not agree at all
    assert np.isnan(row(table, "good", "C", "S1")["share_of_ceiling"])


def test_what_is_not_measured_has_no_number(table: pd.DataFrame) -> None:
    unmeasured = table[table["signature"] == "C"]
    assert (unmeasured["n_patches"] == 0).all()
    assert unmeasured[["pearson", "r2", "mae", "p", "q", "partial_pearson"]].isna().all().all()


def test_a_constant_prediction_scores_nothing(table: pd.DataFrame) -> None:
    flat = row(table, "flat", "A", "S1")
    assert flat["pearson"] == 0
    assert np.isnan(flat["p"])


def test_false_discoveries_are_counted_per_method_and_slide(table: pd.DataFrame) -> None:
    for _, group in slide_rows(table).groupby(["method", "sample"]):
        known = group.dropna(subset=["p"])
        if len(known):
            np.testing.assert_allclose(known["q"], stats.false_discovery_control(known["p"]))
    assert row(table, "good", "A", "S1")["p"] < 0.01


def test_labels_that_follow_the_cells_show(table: pd.DataFrame, slides: list[Rows]) -> None:
    n_cells, counts = (pd.Series(column) for column in slides[0].density.T)
    measured = pd.Series(slides[0].targets[:, 1]).astype(float)
    numbers = row(table, "good", "B", "S1")
    assert numbers["r_n_cells"] == pytest.approx(measured.corr(n_cells))
    assert numbers["r_log_counts"] == pytest.approx(measured.corr(counts))


def test_stain_shift_is_the_largest_in_deviations_of_the_training_patches(
    table: pd.DataFrame, slides: list[Rows]
) -> None:
    def looks(rows: Rows) -> np.ndarray:
        return np.c_[rows.features["colour"][:, :3], rows.features["hand"][:, [11, 14]]]

    seen = looks(slides[2])
    expected = (np.abs(looks(slides[0]).mean(axis=0) - seen.mean(axis=0)) / seen.std(axis=0)).max()
    assert row(table, "good", "A", "S1")["stain_shift"] == pytest.approx(expected)


def test_pooled_rows_put_the_patches_together(table: pd.DataFrame, slides: list[Rows], predictions: dict) -> None:
    measured = np.concatenate([rows.targets[:, 0] for rows in slides[:2]])
    guess = np.concatenate([predictions[s]["poor"][:, 0] for s in ("S1", "S2")])
    pooled = row(table, "poor", "A", POOLED)
    assert pooled["pearson"] == pytest.approx(np.corrcoef(measured, guess)[0, 1])
    assert (pooled["n_patches"], pooled["patient"]) == (288, POOLED)
    assert np.isnan(pooled["p"])


def test_patches_in_one_place_have_no_p(slides: list[Rows], predictions: dict) -> None:
    slides[0].row[:2] = slides[0].col[:2] = 0
    table = evaluation_table(slides[:1], slides, predictions, pooled=False)
    assert table["p"].isna().all()
    assert np.isfinite(row(table, "good", "A", "S1")["pearson"])
