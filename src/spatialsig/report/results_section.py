"""Sentences and tables of the report from an evaluation and its summary.

Floor 10, above cohort. Used by report/comparisons, report/document, report/methods_section.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.pl.drawing.methods import (
    HEADLINE,
    MEAN,
    MODEL,
    display_name,
    main_method,
    mean_ceiling,
    method_order,
    slide_means,
)

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = ("he_only_permuted", "coordinates", "density", "colour")
TILES = ("fused", "density", "he_only_permuted", "coordinates")
BEYOND_CHANCE = 0.05


@dataclass(frozen=True)
class Row:
    """One line of a table of correlations."""

    name: str
    rs: list[float]
    mean: float
    share: float
    is_model: bool = False
    low: float = np.nan  # of the interval of the mean
    high: float = np.nan
    slope: float = np.nan  # of calibration


@dataclass(frozen=True)
class Results:
    """Everything the report says about performance."""

    headline: str
    controls: str
    detail: str
    worst: str
    chance: str
    tiles: list[tuple[str, str, str, str]]  # name, value, interval, small print
    signatures: list[str]
    rows: list[Row]  # methods, mean over held-out patients
    ceiling: Row
    slides: list[Row]  # held-out slides, one value per signature, worst first
    samples: list[Row]  # held-out slides, one value per method
    methods: list[str]  # their columns


def summarise(evaluation: pd.DataFrame, summary: pd.DataFrame, *, synthetic: bool) -> Results:
    """Turn the tables of ``tl.evaluate`` and ``tl.summarise`` into the words and tables of the report."""
    methods = method_order(evaluation)
    main = main_method(methods)
    signatures = list(dict.fromkeys(evaluation["signature"]))
    ceilings = evaluation.drop_duplicates(["sample", "signature"]).groupby("signature")["ceiling"].mean()
    rows = method_rows(evaluation, summary)
    slides = _slides(evaluation[evaluation["method"] == main], signatures)
    return Results(
        headline=_headline(evaluation, main, rows[main], synthetic=synthetic),
        controls=_controls({m: rows[m].mean for m in CONTROLS if m in rows}),
        detail=_detail(dict(zip(signatures, rows[main].rs, strict=True))),
        worst=_worst(slides),
        chance=_chance(summary[summary["method"] == main], main),
        tiles=[_tile(rows[m]) for m in (main, *(m for m in TILES if m in rows and m != main))],
        signatures=signatures,
        rows=list(rows.values()),
        ceiling=Row("ceiling", ceilings[signatures].tolist(), mean_ceiling(evaluation), np.nan),
        slides=slides,
        samples=_samples(evaluation, main),
        methods=[display_name(m) for m in methods],
    )


def _method_row(summary: pd.DataFrame, method: str, signatures: list[str]) -> Row:
    by_signature = summary.set_index("signature")
    mean = by_signature.loc[MEAN].to_dict()
    return Row(
        display_name(method),
        by_signature["pearson"].reindex(signatures).tolist(),
        float(mean["pearson"]),
        float(mean["share_of_ceiling"]),
        is_model=method in MODEL,
        low=float(mean["low"]),
        high=float(mean["high"]),
    )


def method_rows(evaluation: pd.DataFrame, summary: pd.DataFrame) -> dict[str, Row]:
    """One line per method, from the tables of ``tl.evaluate`` and ``tl.summarise``."""
    signatures = list(dict.fromkeys(evaluation["signature"]))
    return {m: _method_row(summary[summary["method"] == m], m, signatures) for m in method_order(evaluation)}


def _slides(of_main: pd.DataFrame, signatures: list[str]) -> list[Row]:
    """One line per held-out slide, worst first; slides without any number last."""
    rs = of_main.pivot(index="sample", columns="signature", values="pearson")[signatures]
    columns = [c for c in ("share_of_ceiling", "calibration_slope") if c in of_main]
    means = of_main.groupby("sample")[columns].mean().reindex(columns=["share_of_ceiling", "calibration_slope"])
    order = rs.mean(axis=1).sort_values(na_position="last").index
    return [
        Row(
            str(sample), rs.loc[sample].tolist(), float(rs.loc[sample].mean()),
            float(means["share_of_ceiling"][sample]), slope=float(means["calibration_slope"][sample]),
        )
        for sample in order
    ]  # fmt: skip


def number(value: float, *, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none, and no ``-0.00``."""
    if not np.isfinite(value):
        return "–"  # noqa: RUF001
    text = f"{value:.{digits}f}"
    zero = f"{0:.{digits}f}"
    return zero if text == f"-{zero}" else text.replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if not np.isfinite(value) else f"{number(100 * value, digits=0)} %"  # noqa: RUF001


def whole(value: float | None) -> str:
    """A count with its thousands apart; a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{int(value):,}"  # noqa: RUF001


def count(n: int, noun: str) -> str:
    """``1 slide``, ``2 slides``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _headline(evaluation: pd.DataFrame, method: str, row: Row, *, synthetic: bool) -> str:
    n_patients, n_slides = evaluation["patient"].nunique(), evaluation["sample"].nunique()
    source = "the H&E alone" if method == HEADLINE else display_name(method)
    patients = "synthetic patient" if synthetic else "patient"
    start = "On synthetic tissue, from " if synthetic else "From "
    text = (
        f"{start}{source}, {count(evaluation['signature'].nunique(), 'signature')} of "
        f"{count(n_patients, 'held-out ' + patients)} ({count(n_slides, 'slide')}) were predicted with a mean Pearson r "
        f"of {number(row.mean)}"
    )
    if np.isfinite(row.low):
        text += f" (95 % interval {number(row.low)} to {number(row.high)})"
    if np.isfinite(row.share):
        ceiling = number(mean_ceiling(evaluation))
        text += f", {percent(row.share)} of what noise in the measurement allows (ceiling {ceiling})"
    return text + "."


def _controls(means: dict[str, float]) -> str:
    said = ", ".join(f"{display_name(m)} {number(mean)}" for m, mean in means.items())
    return f"Controls on the same patches: {said}." if said else ""


def _detail(rs: dict[str, float]) -> str:
    known = sorted((r, name) for name, r in rs.items() if np.isfinite(r))
    if len(known) < 2:
        return ""
    (lowest, weakest), (highest, best) = known[0], known[-1]
    return f"Best signature: {best} ({number(highest)}); weakest: {weakest} ({number(lowest)})."


def _worst(slides: list[Row]) -> str:
    known = [row for row in slides if np.isfinite(row.mean)]
    if len(known) < 2:
        return ""
    return f"Worst slide: {known[0].name} ({number(known[0].mean)}); best: {known[-1].name} ({number(known[-1].mean)})."


def _chance(summary: pd.DataFrame, method: str) -> str:
    """Which signatures agree beyond what a shifted map would; empty where it was not tested."""
    tested = summary[summary["signature"] != MEAN]
    tested = tested.dropna(subset=["q"]) if "q" in tested else tested.iloc[:0]
    if tested.empty:
        return ""
    beyond, within = (tested[flag]["signature"].tolist() for flag in _split(tested["q"] < BEYOND_CHANCE))
    said = f"{display_name(method)}, beyond chance within slides (q < {BEYOND_CHANCE:g}): {', '.join(beyond) or 'none'}"
    return said + (f"; not: {', '.join(within)}." if within else ".")


def _split(flag: pd.Series) -> tuple[pd.Series, pd.Series]:
    return flag, ~flag


def _tile(row: Row) -> tuple[str, str, str, str]:
    interval = f"{number(row.low)} to {number(row.high)}" if np.isfinite(row.low) else ""
    return row.name, number(row.mean), interval, f"{percent(row.share)} of the ceiling"


def _samples(evaluation: pd.DataFrame, main: str) -> list[Row]:
    means = slide_means(evaluation)
    shares = slide_means(evaluation, "share_of_ceiling")
    return [
        Row(str(sample), list(rs), float(means[main][sample]), float(shares[main][sample]))
        for sample, rs in zip(means.index, means.to_numpy(), strict=True)
    ]
