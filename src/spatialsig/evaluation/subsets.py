"""What is learned from few patients and from more: nested subsets of the training patients, judged on the held-out ones.

Floor 6, above expression, inference, labels. Used by tl/_power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig.errors import InputError
from spatialsig.stats.agreement import MIN_PATCHES, pearson
from spatialsig.stats.baselines import ridge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows

    Learner = Callable[[Sequence[str]], Mapping[str, NDArray[np.floating]]]  # samples -> predictions of held-out rows

MEAN = "mean"
LEAST = 3  # training patients that make a curve
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Stores:
    """Some slides of a cohort, as if there were no others."""

    stores: Mapping[str, Path]


def training_patients(slides: Sequence[Rows]) -> dict[str, list[str]]:
    """Slides of each patient that may be learned from."""
    found: dict[str, list[str]] = {}
    for rows in slides:
        if rows.train.any():
            found.setdefault(rows.patient, []).append(rows.sample)
    if len(found) < LEAST:
        msg = (
            f"a learning curve needs at least {LEAST} training patients; there {'is' if len(found) == 1 else 'are'} {len(found)} "
            f"({', '.join(found)}). Read more slides, or split with fewer held out."
        )
        raise InputError(msg)
    return dict(sorted(found.items()))  # whatever the order of the slides: the subsets are drawn from it


def sizes_for(asked: Sequence[int] | None, n_pool: int) -> list[int]:
    """Sizes of the subsets, ascending; the whole pool among them."""
    if asked is None:
        return sorted({size for size in SIZES if size < n_pool} | {n_pool})
    sizes = sorted(set(asked))
    if len(sizes) < LEAST or sizes[-1] > n_pool:
        msg = f"`patients={list(asked)}` must name at least {LEAST} different numbers from 1 to {n_pool}, the training patients there are."
        raise InputError(msg)
    return sizes


def nested_orders(patients: Sequence[str], repeats: int, seed: int) -> list[list[str]]:
    """Patients in one random order per repeat: the first ``n`` of it are a subset, and lie within every larger one."""
    rng = np.random.default_rng(seed)
    return [[patients[k] for k in rng.permutation(len(patients))] for _ in range(repeats)]


def ridge_on(block: str, slides: Sequence[Rows]) -> Learner:
    """Ridge regression on a block of features."""
    by_name = {rows.sample: rows for rows in slides}

    def learn(samples: Sequence[str]) -> dict[str, NDArray[np.floating]]:
        trained = [by_name[name] for name in samples]
        x = np.concatenate([rows.features[block][rows.train] for rows in trained])
        y = np.concatenate([rows.targets[rows.train] for rows in trained])
        return {rows.sample: ridge(x, y, rows.features[block][rows.test]) for rows in slides if rows.test.any()}

    return learn


def judged(predictions: Mapping[str, NDArray[np.floating]], slides: Sequence[Rows]) -> pd.DataFrame:
    """Mean over held-out patients of r and of its share of the ceiling: one row per signature, and one of their mean."""
    parts = []
    for rows in slides:
        if rows.test.sum() < MIN_PATCHES:
            continue
        r = pearson(rows.targets[rows.test], np.asarray(predictions[rows.sample], np.float64))
        ceiling = rows.ceiling.set_index("signature")["ceiling"].reindex(rows.signatures).to_numpy(np.float64)
        share = r / np.where(ceiling > 0, ceiling, np.nan)
        parts.append(
            pd.DataFrame(
                {"patient": rows.patient, "signature": rows.signatures, "pearson": r, "share_of_ceiling": share}
            )
        )
    columns = ["pearson", "share_of_ceiling"]
    by_patient = pd.concat(parts).groupby(["signature", "patient"], sort=False)[columns].mean()
    means = by_patient.groupby("signature", sort=False).mean().reset_index()
    return pd.concat([means, pd.DataFrame([{"signature": MEAN, **means[columns].mean()}])], ignore_index=True)
