"""Metrics of predictions on held-out patches, as the tidy table of an evaluation.

Floor 6, above expression, inference, labels. Used by evaluation/evaluate, referee/judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from spatialsig._progress import track
from spatialsig.evaluation.schema import COLUMNS, POOLED
from spatialsig.stats.agreement import agreement, partial_pearson, pearson
from spatialsig.stats.significance import benjamini_hochberg, exchange_p, field, shift_p

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows
    from spatialsig.stats.significance import Field

_STAIN = ("colour", slice(0, 3)), ("hand", [11, 14])  # mean colour, dark ends of both stains


def evaluation_table(
    tested: list[Rows],
    slides: list[Rows],
    predictions: Mapping[str, Mapping[str, NDArray[Any]]],
    *,
    pooled: bool,
) -> pd.DataFrame:
    """Table with :data:`COLUMNS`; ``predictions`` holds the scores ``(n_test, t)`` of each method on each sample."""
    bar = track(tested, "judge", unit="slide")
    records = [record for rows in bar for record in _slide_records(rows, slides, predictions[rows.sample])]
    ceiling = pd.concat([rows.ceiling for rows in tested], ignore_index=True)
    table = pd.DataFrame(records).merge(ceiling, on=["sample", "signature"], how="left", validate="many_to_one")
    table["share_of_ceiling"] = table["pearson"] / table["ceiling"].where(table["ceiling"] > 0)
    table["q"] = table.groupby(["method", "sample"], sort=False)["p"].transform(
        lambda p: benjamini_hochberg(p.to_numpy())
    )
    if pooled:
        table = pd.concat([table, _pooled(tested, predictions)], ignore_index=True)
    return table[list(COLUMNS)]


def _slide_records(rows: Rows, slides: list[Rows], predictions: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    test = rows.test
    targets, density = rows.targets[test].astype(np.float64), rows.density[test]
    on_slide = {"sample": rows.sample, "patient": rows.patient, "stain_shift": _stain_shift(rows, slides)}
    follows = {
        column: pearson(np.broadcast_to(density[:, [k]], targets.shape), targets)
        for k, column in enumerate(("r_n_cells", "r_log_counts"))
    }
    fields = [_field(rows, column) for column in targets.T]
    beside = _learned_beside(rows)
    records = []
    for method, scores in predictions.items():
        for k, name in enumerate(rows.signatures):
            guess = np.asarray(scores[:, k], np.float64)
            agreed = agreement(targets[:, k], guess)
            defined = bool(np.isfinite(agreed["pearson"]))
            record: dict[str, Any] = {"method": method, "signature": name, **on_slide, **agreed}
            record["partial_pearson"] = partial_pearson(targets[:, k], guess, density) if defined else np.nan
            shifted = not (method == "coordinates" and beside)
            of_chance = _p(fields[k], _field(rows, guess)) if shifted else exchange_p(targets[:, k], guess)
            record["p"] = of_chance if defined else np.nan
            records.append(record | {column: float(values[k]) for column, values in follows.items()})
    return records


def _learned_beside(rows: Rows) -> bool:
    """Whether most held-out patches overlap one that trains, or lie no further from it than a patch is wide.

    What is known of a patch by its neighbours is then no chance of smooth tissue, but a leak. Shifts, under which few of the
    patches of a random split lie on each other, cannot show it.
    """
    if not rows.train.any():
        return False
    places = np.stack([rows.row, rows.col], axis=1)
    distance, _ = KDTree(places[rows.train]).query(places[rows.test], p=np.inf)
    return bool((distance <= 2 * rows.step).mean() > 0.5)


def _field(rows: Rows, values: NDArray[np.float64]) -> Field | None:
    """The test rows on their grid; None where several share a place, as patches of another tool may."""
    row, col = rows.row[rows.test], rows.col[rows.test]
    if len(np.unique(np.stack([row, col]), axis=1).T) < len(row):
        return None
    return field(values, row, col)


def _p(measured: Field | None, predicted: Field | None) -> float:
    return np.nan if measured is None or predicted is None else shift_p(measured, predicted)


def _stain_shift(rows: Rows, slides: list[Rows]) -> float:
    """Largest difference in colour to the training patches, in their standard deviations."""
    shifts = []
    for feature, columns in _STAIN:
        here = rows.features[feature][rows.test][:, columns]
        seen = np.concatenate([s.features[feature][s.train][:, columns] for s in slides if s.train.any()])
        shifts.append(np.abs(here.mean(axis=0) - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), 1e-6))
    return float(np.concatenate(shifts).max())


def _pooled(tested: list[Rows], predictions: Mapping[str, Mapping[str, NDArray[Any]]]) -> pd.DataFrame:
    """Rows over the patches of all slides together: differences between slides count too."""
    targets = np.concatenate([rows.targets[rows.test] for rows in tested]).astype(np.float64)
    density = np.concatenate([rows.density[rows.test] for rows in tested])
    records = []
    for method in next(iter(predictions.values())):
        scores = np.concatenate([predictions[rows.sample][method] for rows in tested]).astype(np.float64)
        for k, name in enumerate(tested[0].signatures):
            record: dict[str, Any] = {"method": method, "signature": name, "sample": POOLED, "patient": POOLED}
            record |= agreement(targets[:, k], scores[:, k])
            record["partial_pearson"] = partial_pearson(targets[:, k], scores[:, k], density)
            records.append(record)
    return pd.DataFrame(records, columns=list(COLUMNS))
