"""Reasons to doubt predictions of an outside model: order of rows, unit, leaks, what is missing.

Floor 11, above report. Used by referee/judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.evaluation.schema import OUTSIDE
from spatialsig.referee import verdict as say
from spatialsig.referee.columns import CELL
from spatialsig.referee.leaks import excess_over_ceiling
from spatialsig.referee.order import Sheet, best_order, lost_order
from spatialsig.referee.scores import COUNTS, CP10K, LOG1P, SCORES, in_common
from spatialsig.referee.units import (
    BULK,
    IN_WORDS,
    Levels,
    better_unit,
    measured_levels,
    other_scale,
    raw_expression,
    standardised_by_slide,
    why_another,
)
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows
    from spatialsig.evaluation.schema import Finding
    from spatialsig.referee.laid import Judged, Terms


def findings_on(
    data: Data, slides: list[Rows], judged: list[tuple[Rows, Judged]], scores: Mapping[str, NDArray[np.float64]],
    terms: Terms, *, recalibrated: bool,
) -> list[Finding]:  # fmt: skip
    """Findings on order, unit and coverage; ``slides`` hold all labelled rows, ``judged`` those with a prediction."""
    sheets = [_sheet(rows, one) for rows, one in judged]
    found = list(say.of_order(best_order(sheets), lost_order(sheets)))
    found += say.of_units(*_units(data, judged, scores, terms, recalibrated=recalibrated))
    samples = {rows.sample for rows, _ in judged}
    labelled = {rows.sample: int(rows.test.sum()) for rows in slides}
    share = sum(int(rows.test.sum()) for rows, _ in judged) / sum(labelled[sample] for sample in samples)
    absent = [sample for sample, n in labelled.items() if n and sample not in samples]
    found += say.of_coverage(share, list(dict.fromkeys(name for _, one in judged for name in one.missing)), absent)
    return found


def leaks_in(evaluation: pd.DataFrame, tested: list[Rows], trained_on: Sequence[str]) -> list[Finding]:
    """Findings on predictions that know what was measured."""
    seen = [rows.sample for rows in tested if rows.sample in trained_on or rows.patient in trained_on]
    own = evaluation[evaluation["method"] == OUTSIDE]
    return list(say.of_leaks(excess_over_ceiling(own, {rows.sample: rows.step for rows in tested}), seen))


def _sheet(rows: Rows, one: Judged) -> Sheet:
    labels = np.full(one.scores.shape, np.nan)
    labels[rows.index[rows.test]] = rows.targets[rows.test]
    return Sheet(one.ids, one.scores, labels, one.row, one.col, rows.step)


def _units(
    data: Data, judged: list[tuple[Rows, Judged]], scores: Mapping[str, NDArray[np.float64]], terms: Terms, *,
    recalibrated: bool,
) -> tuple[str, str, str]:  # fmt: skip
    """What speaks against the unit: of the genes, of the scores; and a note where spots, not cells, were scaled."""
    levels, scored = _levels(data, judged, terms), judged[0][0].facts.scored
    another, spots = _of_genes(judged, terms, levels)
    if another or spots or recalibrated or terms.unit not in (SCORES, LOG1P):
        return another, "", spots
    mine = np.concatenate([scores[rows.sample][rows.index[rows.test]] for rows, _ in judged])
    labels = np.concatenate([rows.targets[rows.test].astype(np.float64) for rows, _ in judged])
    names = judged[0][0].signatures
    if terms.unit == SCORES:
        of_slides = [one.scores for _, one in judged]
        said = standardised_by_slide(of_slides) or raw_expression(mine, labels, names, levels, scored)
        if said:
            return said, "", ""
    return "", other_scale(mine, labels, names), spots


def _levels(data: Data, judged: list[tuple[Rows, Judged]], terms: Terms) -> Levels | None:
    """Measured means of the genes of the labels on the judged slides; None where the labels are no scores of genes."""
    scored, samples = judged[0][0].facts.scored, {rows.sample for rows, _ in judged}
    if "genes" not in scored:
        return None
    slides = (slide for slide in open_slides(data) if slide.name in samples)
    return measured_levels(slides, terms.table_key, [str(gene) for gene in scored["genes"]])


def _of_genes(judged: list[tuple[Rows, Judged]], terms: Terms, levels: Levels | None) -> tuple[str, str]:
    """Sentence on another unit that predicted genes are in, and on spots that were scaled as a whole."""
    genes = [one.genes for _, one in judged if one.genes is not None]
    if not genes or levels is None:
        return "", ""
    together = in_common(genes)
    best = better_unit(together, terms.unit, levels)
    of_spots = terms.unit == LOG1P and best == BULK
    if of_spots or (terms.unit in (COUNTS, CP10K) and all(one.by != CELL for _, one in judged)):
        what = IN_WORDS[BULK] if of_spots else f"{IN_WORDS[terms.unit]} of whole patches or spots"
        spots = (
            f"The values are {what}, and the labels are means over cells that were scaled one by one: r can be compared, the scale "
            "cannot. `recalibrate=True` fits it on training patients."
        )
    else:
        spots = ""
    return why_another(together, terms.unit, best, levels) if best and not of_spots else "", spots
