"""What a referee says: findings on predictions of an outside model, the verdict, and the table to cite.

Floor 11, above report. Used by referee/doubts, referee/judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import first_few
from spatialsig.evaluation.findings_scores import LEAK, MARGIN
from spatialsig.evaluation.schema import ERROR, EVERY_SLIDE, NOTE, OUTSIDE, WARNING, Finding
from spatialsig.pl.drawing.methods import MEAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from spatialsig.referee.leaks import Excess

LEAKED, WRONG_UNIT, SHUFFLED, NOTHING, STANDS = (
    "leaked",
    "wrong unit",
    "rows out of order",
    "no better than the controls",
    "stands",
)
ENOUGH = 0.95  # share of the labelled held-out patches that should have a prediction
CONTROLS = ("density", "colour")  # what a model must say more than
CITED = (*CONTROLS, "hand_features", "coordinates")
_OF_VERDICT = {  # the first that is found decides
    "rows_out_of_order": SHUFFLED, "rows_without_order": SHUFFLED, "unit_contradicted": WRONG_UNIT, "scale_differs": WRONG_UNIT,
    "trained_on_test": LEAKED, "above_ceiling": LEAKED,
}  # fmt: skip


def of_order(best: tuple[str, float, float], lost: tuple[bool, float, float]) -> Iterator[Finding]:
    """Rows that are not those of their patches."""
    name, r, own = best
    if name:
        yield Finding(
            "rows_out_of_order", ERROR, EVERY_SLIDE,
            f"The predictions agree with the labels at r = {own:.2f} as they are, and at {r:.2f} taken {name}: rows were written in another "
            "order than their ids or places. Write each row with the id of its own patch.",
        )  # fmt: skip
    elif lost[0]:
        yield Finding(
            "rows_without_order", ERROR, EVERY_SLIDE,
            f"Predictions of neighbouring patches are no more alike than those of any two (r = {lost[1]:.2f}; labels {lost[2]:.2f}): rows "
            f"were shuffled, or the model says nothing of the tissue (r with the labels {own:.2f}). Check that ids or places were kept with "
            "their rows.",
        )  # fmt: skip


def of_leaks(found: Sequence[Excess], trained_on: Sequence[str]) -> Iterator[Finding]:
    """Predictions that know the measurement."""
    if trained_on:
        yield Finding(
            "trained_on_test", ERROR, EVERY_SLIDE,
            f"The model is said to have been trained on {first_few(list(trained_on))}, which {'is' if len(trained_on) == 1 else 'are'} held "
            "out here: nothing is shown about new patients. Judge it on others, or train it without them.",
        )  # fmt: skip
    leaking = [one for one in found if one.is_leak]
    if leaking:
        worst, others = leaking[0], [one.what for one in leaking[1:]]
        named = f" (each by itself: {first_few(others)})" if others else ""
        yield Finding(
            "above_ceiling", ERROR, EVERY_SLIDE,
            f"{worst.what[0].upper()}{worst.what[1:]}: r = {worst.r:.3f} lies above the noise ceiling of {worst.ceiling:.3f}: what is left of "
            f"the labels is {worst.ratio:.0%} of the noise of their measurement (at most {worst.high:.0%}){named}. No image shows this noise; "
            "the model has seen the labels of these patients, or was smoothed towards them. Ask what it was trained on.",
        )  # fmt: skip


def of_coverage(share: float, missing: Sequence[str], slides: Sequence[str]) -> Iterator[Finding]:
    """Patches, signatures and slides without predictions."""
    if slides:
        yield Finding(
            "slides_missing", WARNING, EVERY_SLIDE,
            f"{len(slides)} held-out slides have no predictions ({first_few(list(slides))}) and are not judged: a model may be asked only where "
            "it does well. Predict all of them.",
        )  # fmt: skip
    if share < ENOUGH:
        yield Finding(
            "patches_missing", WARNING, EVERY_SLIDE,
            f"{share:.0%} of the labelled held-out patches have a prediction; all methods are judged on these alone. Predict all patches, or "
            "say why some were left out.",
        )  # fmt: skip
    if missing:
        yield Finding(
            "signatures_missing", WARNING, EVERY_SLIDE,
            f"Not judged, since the model does not predict them or too few of their genes: {first_few(list(missing))}.",
        )  # fmt: skip


def of_units(another: str, scale: str, spots: str) -> Iterator[Finding]:
    """Values in another unit than stated."""
    if another:
        yield Finding("unit_contradicted", ERROR, EVERY_SLIDE, another)
    if scale:
        yield Finding("scale_differs", ERROR, EVERY_SLIDE, scale)
    if spots:
        yield Finding("spot_scale", NOTE, EVERY_SLIDE, spots)


def verdict_of(findings: Sequence[Finding], summary: pd.DataFrame) -> tuple[str, str]:
    """One of the verdicts, and the sentence that a paper can take."""
    names = {finding.name: finding for finding in findings}
    means = summary[summary["signature"] == MEAN].set_index("method").to_dict("index")
    r, share, n = (float(means[OUTSIDE][column]) for column in ("pearson", "share_of_ceiling", "n_patients"))
    low, high = (float(means[OUTSIDE][column]) for column in ("low", "high"))
    interval = f" (95 % interval {low:.2f} to {high:.2f})" if np.isfinite(low) else ""
    ceiling = f", {share:.0%} of the noise ceiling" if np.isfinite(share) else ""
    said = f"mean Pearson r {r:.2f}{interval} on {n:.0f} held-out patient{'s' * (n != 1)}{ceiling}"
    beside = ", ".join(f"{name.replace('_', ' ')} {means[name]['pearson']:.2f}" for name in CITED if name in means)
    decided = next((verdict for name, verdict in _OF_VERDICT.items() if name in names), "")
    if decided:
        first = next(names[name] for name in _OF_VERDICT if name in names)
        return decided, f"Verdict: {decided}. {first.text} (As given: {said}; {beside}.)"
    best = max((float(means[name]["pearson"]) for name in CONTROLS if name in means), default=-np.inf)
    verdict = STANDS if r > LEAK and r > best + MARGIN else NOTHING
    return verdict, f"Verdict: {verdict}. {said[0].upper()}{said[1:]}; on the same patches {beside}."


def citable(summary: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """One row per signature and their mean: r with its interval, the ceiling, and the controls beside it."""
    own = summary[summary["method"] == OUTSIDE].drop(columns="method").set_index("signature")
    once = evaluation[evaluation["method"] == OUTSIDE]
    ceilings = once.groupby("signature", sort=False)["ceiling"].mean()
    own.insert(3, "ceiling", ceilings.reindex(own.index).where(own.index != MEAN, ceilings.mean()))
    for method in CITED:
        of_method = summary[summary["method"] == method].set_index("signature")["pearson"]
        own[method] = of_method.reindex(own.index)
    return own.reset_index()
