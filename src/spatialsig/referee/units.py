"""Whether values can be in the unit that they are said to be in.

What no value of a unit can be is refused. What can be, but agrees far better with the measured values in another unit, is named.

Floor 11, above report. Used by referee/doubts, referee/laid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig.errors import InputError
from spatialsig.referee.scores import COUNTS, CP10K, LOG1P, SCORES, Genes
from spatialsig.slide.counts import count_blocks
from spatialsig.stats.expression import TARGET_SUM, gene_moments, library_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

ZSCORED, LOG_COUNTS = "z-scores of genes", "log1p of counts that were not scaled"
BULK = "log1p of counts per 10,000 of whole spots or patches"
ROUNDING = 1.02  # above what a unit allows
FEW = 0.01  # share of the values that may lie beyond it: a regression reaches too far on some patches
FEW_BELOW = 0.2  # share of the values of a regression on log-normalised expression that may lie below 0
FARTHEST = 1.0  # log2: with half of the genes off by more than this factor a unit does not fit
BETTER = 0.5  # ... if another one is off by less than this part of it
FITS = 0.2  # log2: with half of the genes off by less than this a unit fits as well as one can
FAR_SD = 3.0  # standard deviations of the labels that scores may lie from them
WIDE = 3.0  # times that scores may spread wider
EXACT = 0.01  # from 0 and 1: means and deviations of what was standardised
MIN_COLUMNS = 3  # that show it
AWAY, NEARER = 1.0, 0.3  # deviations of the labels that scores lie from these, and part of it from mean expression
IN_WORDS = {
    SCORES: "scores like those of the labels", LOG1P: "log1p of counts per 10,000", CP10K: "counts per 10,000 (no logarithm)",
    COUNTS: "counts", ZSCORED: ZSCORED, LOG_COUNTS: LOG_COUNTS, BULK: BULK,
}  # fmt: skip


@dataclass(frozen=True)
class Levels:
    """Mean of every gene over the cells of slides, in each unit, ``(n_genes,)``."""

    of: Mapping[str, NDArray[np.float64]]


def measured_levels(slides: Iterable[Slide], table_key: str, genes: list[str]) -> Levels:
    """Read the counts of some slides once."""
    sums = {unit: np.zeros(len(genes)) for unit in (COUNTS, CP10K, LOG1P, LOG_COUNTS)}
    n = 0
    for slide in slides:
        for _, counts in count_blocks(slide, table_key, genes):
            library, n = library_size(counts), n + counts.shape[0]
            sums[COUNTS] += gene_moments(counts, None, log1p=False)[0]
            sums[CP10K] += gene_moments(counts, library, log1p=False)[0]
            sums[LOG1P] += gene_moments(counts, library)[0]
            logs = counts.astype(np.float64)
            logs.data = np.log1p(logs.data)
            sums[LOG_COUNTS] += np.asarray(logs.sum(axis=0)).ravel()
    means = {unit: total / max(n, 1) for unit, total in sums.items()}
    return Levels(means | {BULK: np.log1p(means[CP10K])})


def refuse_impossible(values: NDArray[np.float64], unit: str, *, where: str) -> None:
    """Refuse predicted expression ``(n, k)`` that holds what its unit cannot.

    Raises
    ------
    InputError
        Naming the value, the unit, and what the values look like.
    """
    known = values[np.isfinite(values)]
    if unit == SCORES or not len(known):
        return
    low, high = (float(value) for value in np.quantile(known, [FEW, 1 - FEW], method="nearest"))
    said = f"{where}: `unit={unit!r}` says {IN_WORDS[unit]}, "
    if unit in (COUNTS, CP10K) and low < 0:
        msg = f"{said}but {(known < 0).mean():.0%} of the values are below 0 (down to {known.min():.4g}), and no count is. Are they {_signed(known)}?"
        raise InputError(msg)
    limit = {LOG1P: np.log1p(TARGET_SUM), CP10K: TARGET_SUM}.get(unit, np.inf)
    if high > limit * ROUNDING:
        looks = "counts" if (known == np.rint(known)).all() else "counts, or counts per 10,000 without the logarithm"
        msg = f"{said}but {(known > limit).mean():.1%} of the values are above {limit:.4g} (up to {known.max():.4g}), and none can be. Are they {looks}? Pass the `unit` they are in."
        raise InputError(msg)
    if unit == LOG1P and (known < 0).mean() > FEW_BELOW:
        msg = f"{said}but {(known < 0).mean():.0%} of the values are below 0, and no logarithm of 1 + a count is. Are they {ZSCORED}? Turn them back: x * deviation + mean."
        raise InputError(msg)


def _signed(known: NDArray[np.float64]) -> str:
    return (
        ZSCORED
        if (known < 0).mean() > FEW_BELOW
        else "predictions of a regression on log-normalised values (`unit='log1p_cp10k'`)"
    )


def better_unit(genes: Genes, unit: str, levels: Levels) -> str:
    """Unit that genes are in by their means, where it is another than they are said to be; empty where that one fits."""
    off = _off_by_unit(genes, levels)
    best = min(off, key=lambda other: off[other])
    far = off[unit] > FARTHEST and off[best] < BETTER * off[unit]
    fits = best != COUNTS and off[best] < FITS and off[unit] > 2 * off[best] + FITS / 2  # counts fit at any depth
    return best if best != unit and (far or fits) else ""


def why_another(genes: Genes, unit: str, best: str, levels: Levels) -> str:
    """Sentence that says by how much a unit is off, and another one less."""
    off = _off_by_unit(genes, levels)
    fix = "take the logarithm of counts scaled to 10,000" if best == LOG_COUNTS else "pass the `unit` that they are in"
    return (
        f"The values are said to be {IN_WORDS[unit]}, but half of the {len(genes.names)} genes are off by a factor of "
        f"{2 ** off[unit]:.2f} or more; as {IN_WORDS[best]} by {2 ** off[best]:.2f}: {fix}."
    )


def _off_by_unit(genes: Genes, levels: Levels) -> dict[str, float]:
    means = np.nanmean(genes.values, axis=0)
    return {unit: _off(means, of[genes.columns], free=unit == COUNTS) for unit, of in levels.of.items()}


def _off(predicted: NDArray[np.float64], measured: NDArray[np.float64], *, free: bool) -> float:
    """Median of |log2| of predicted to measured means over genes; ``free``: whatever the depth of the counts."""
    floor = 0.05 * measured.mean() + 1e-12
    if free and predicted.mean() > 0:
        predicted = predicted * measured.mean() / predicted.mean()
    ratio = np.log2((np.maximum(predicted, 0) + floor) / (measured + floor))
    return float(np.median(np.abs(ratio)))


def standardised_by_slide(scores: Sequence[NDArray[np.float64]]) -> str:
    """Sentence where the scores of every slide ``(n, t)`` have a mean of 0 and a deviation of 1; empty where they do not."""
    tables = [pd.DataFrame(values).dropna(axis=1, how="all") for values in scores]
    means = np.concatenate([table.mean().to_numpy(np.float64) for table in tables])
    spreads = np.concatenate([table.std(ddof=0).to_numpy(np.float64) for table in tables])
    if len(means) < MIN_COLUMNS or np.abs(means).max() > EXACT or np.abs(spreads - 1).max() > 2 * EXACT:
        return ""
    return (
        "The scores of every signature on every slide have a mean of 0 and a standard deviation of 1: they were standardised slide by "
        "slide, so that no slide can be compared with another, or with the labels. r within slides holds; give the scores as they were "
        "predicted."
    )


def raw_expression(
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    names: list[str],
    levels: Levels | None,
    scored: Mapping[str, Any],
) -> str:
    """Sentence where scores lie where the mean expression of the genes of their signatures does, in one unit of it, not where the labels lie."""
    if levels is None:
        return ""
    by_name = pd.DataFrame(np.asarray(scored["weights"]), columns=[str(name) for name in scored["names"]])
    weights = by_name.reindex(columns=names).to_numpy(np.float64)
    spread = pd.DataFrame(labels).std(ddof=0).to_numpy(np.float64)
    mean = pd.DataFrame(scores).mean().to_numpy(np.float64)

    def off(places: NDArray[np.float64]) -> float:
        away = np.abs(mean - places)[spread > 0] / spread[spread > 0]
        return float(np.median(away[np.isfinite(away)])) if np.isfinite(away).any() else np.nan

    from_labels = off(pd.DataFrame(labels).mean().to_numpy(np.float64))
    of_units = {unit: off(means @ weights) for unit, means in levels.of.items()}
    best = min(of_units, key=lambda unit: of_units[unit])
    if not (from_labels > AWAY and of_units[best] < min(AWAY, NEARER * from_labels)):
        return ""
    return (
        f"The scores are said to be {IN_WORDS[SCORES]}, but lie {from_labels:.1f} standard deviations of the labels from these (median over "
        f"signatures), and {of_units[best]:.1f} from the mean expression of their genes as {IN_WORDS[best]}: the genes were averaged, and not "
        f"standardised as the labels are (z over training cells). Give the genes with `unit={best!r}`, or `recalibrate=True`, which fits the "
        "scale on training patients. r within slides holds."
    )


def other_scale(scores: NDArray[np.float64], labels: NDArray[np.float64], names: list[str]) -> str:
    """Sentence where scores ``(n, t)`` lie or spread as no prediction of the labels ``(n, t)`` does; empty where they do not."""
    off, wide = _place(scores, labels)
    known = np.isfinite(off)
    wrong = known & ((off > FAR_SD) | (wide > WIDE))
    if not known.any() or wrong.sum() <= known.sum() / 2:
        return ""
    worst = int(np.nanargmax(np.where(known, off, -np.inf)))
    return (
        f"The scores are on another scale than the labels: those of {int(wrong.sum())} of {int(known.sum())} signatures lie more than "
        f"{FAR_SD:g} standard deviations of the labels away or spread more than {WIDE:g} times as wide ({names[worst]}: mean "
        f"{np.nanmean(scores[:, worst]):.3g}, labels {np.nanmean(labels[:, worst]):.3g} ± {np.nanstd(labels[:, worst]):.2g}). "
        "Correlations hold; errors, R² and calibration compare nothing. Give genes with their unit, or `recalibrate=True`, which fits "
        "the scale on training patients."
    )


def _place(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far from the labels scores lie, in deviations of these, and how many times as wide they spread; ``(t,)`` each."""
    mine, theirs = pd.DataFrame(scores), pd.DataFrame(labels)  # whose means leave out what is missing
    spread = theirs.std(ddof=0)
    spread = spread.where(spread > 0)
    off = (mine.mean() - theirs.mean()).abs() / spread
    return off.to_numpy(np.float64), (mine.std(ddof=0) / spread).to_numpy(np.float64)
