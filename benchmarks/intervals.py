"""Do the intervals hold the truth as often as they say, and are p-values uniform where nothing is predicted?

Slides are simulated as two smooth maps on ragged tissue whose correlation is drawn per patient; the planted truth is the
mean correlation over a large population of such slides. Goals: the default interval of ``tl.summarise`` holds it in
93-97 % of 800 cohorts at every number of patients (the others are shown for comparison); under the null the p-values of
shifted maps are uniform (Kolmogorov-Smirnov p > .01) at every smoothness, where those of independent patches are not.

Written down before: bootstraps of few clusters are far too narrow; Student's t over patients is right though the
correlations are skewed (it was not: .911 to .949; on Fisher's z it should hold .94 to .96); maps that wrap around are
wrong on ragged tissue.

    python benchmarks/intervals.py [--quick] [--json PATH]
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from machine import keep_record, record_options
from scipy import ndimage, stats

import spatialsig as sp
from spatialsig.stats.agreement import pearson
from spatialsig.stats.significance import field, shift_p

SIDE = 24  # patches per edge of a slide
N_PATIENTS = (2, 3, 4, 6, 8, 12)
SLIDES_PER_PATIENT = 2
SIGNATURES = ("a", "b")


def smooth(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """A cut from a larger smooth map, standardised; its borders know nothing of each other."""
    values = ndimage.gaussian_filter(rng.normal(size=(3 * side, 3 * side)), sigma)[side:-side, side:-side]
    return (values - values.mean()) / values.std()


def tissue(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the patches on ragged tissue: about half of the square."""
    return np.nonzero(smooth(rng, side, 4.0) > 0)


def slide_r(rng: np.random.Generator, r: float) -> float:
    row, col = tissue(rng, SIDE)
    truth, noise = (smooth(rng, SIDE, 2.0)[row, col] for _ in range(2))
    return float(pearson(truth[:, None], (r * truth + np.sqrt(1 - r * r) * noise)[:, None])[0])


def cohort(rng: np.random.Generator, n_patients: int) -> pd.DataFrame:
    """What ``tl.evaluate`` would give: patients differ, and so do the slides of a patient."""
    rows = []
    for patient in range(n_patients):
        z = rng.normal(0.8, 0.35)
        for slide in range(SLIDES_PER_PATIENT):
            for signature in SIGNATURES:
                r = slide_r(rng, float(np.tanh(z + rng.normal(0, 0.1))))
                rows.append((signature, f"{patient}-{slide}", str(patient), r))
    table = pd.DataFrame(rows, columns=["signature", "sample", "patient", "pearson"])
    return table.assign(method="he_only", share_of_ceiling=table["pearson"], p=np.nan)


def coverage(n_cohorts: int, n_population: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    truth = cohort(rng, n_population)["pearson"].mean()
    rows = []
    for n_patients in N_PATIENTS:
        held = dict.fromkeys(("fisher", "t", "bca", "percentile"), 0)
        for number in range(n_cohorts):
            table = cohort(rng, n_patients)
            for interval in held:
                mean = sp.tl.summarise(table, interval=interval, seed=number).query("signature == 'mean'").iloc[0]
                held[interval] += int(mean["low"] <= truth <= mean["high"])
        rows.append({"n_patients": n_patients, "truth": truth} | {k: n / n_cohorts for k, n in held.items()})
    return pd.DataFrame(rows)


def null(n_slides: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = []
    for side, sigma in ((20, 0.0), (20, 1.0), (20, 2.0), (20, 3.0), (40, 2.0), (40, 4.0)):
        for ragged in (False, True):
            shifted, naive = [], []
            for _ in range(n_slides):
                row, col = tissue(rng, side) if ragged else np.indices((side, side)).reshape(2, -1)
                maps = [smooth(rng, side, sigma)[row, col] for _ in range(2)]
                shifted.append(shift_p(*(field(values, row, col) for values in maps)))
                naive.append(stats.pearsonr(*maps, alternative="greater").pvalue)
            rows.append(
                {
                    "side": side, "smoothness": sigma, "ragged": ragged,
                    "ks_p": stats.kstest(shifted, "uniform").pvalue, "ks_p_goal": 0.01,
                    "below_05": float(np.mean(np.array(shifted) < 0.05)),
                    "naive_ks_p": stats.kstest(naive, "uniform").pvalue,
                    "naive_below_05": float(np.mean(np.array(naive) < 0.05)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    args = record_options(__doc__, "intervals", quick="ten cohorts, forty slides").parse_args()
    started = time.perf_counter()
    covered = coverage(10, 50) if args.quick else coverage(800, 5000)
    print(covered.round(3).to_string(index=False), "\n(goal for fisher: .93 to .97)")
    p_values = null(40 if args.quick else 300)
    print(p_values.round(3).to_string(index=False))
    result = {
        "coverage": covered.to_dict("records"), "null": p_values.to_dict("records"),
        "coverage_in_goal": bool(covered["fisher"].between(0.93, 0.97).all()),
        "null_in_goal": bool((p_values["ks_p"] > 0.01).all()),
        "seconds": time.perf_counter() - started, "quick": args.quick,
    }  # fmt: skip
    keep_record(args.json, result, shown=("coverage_in_goal", "null_in_goal", "seconds"))


if __name__ == "__main__":
    main()
