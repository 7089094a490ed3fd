"""What the evaluation says, in a sentence and in tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.pl._methods import (
    HEADLINE,
    MODEL,
    display_name,
    mean_ceiling,
    method_order,
    signature_means,
    slide_means,
)

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = ("he_only_permuted", "coordinates", "density", "colour")


@dataclass(frozen=True)
class Row:
    """One line of a table of correlations."""

    name: str
    rs: list[float]
    mean: float
    share: float
    is_model: bool = False


@dataclass(frozen=True)
class Results:
    """Everything the report says about performance."""

    headline: str
    controls: str
    detail: str
    tiles: list[tuple[str, str, str]]  # name, value, small print
    signatures: list[str]
    rows: list[Row]  # methods, mean over held-out slides
    ceiling: Row
    samples: list[Row]  # held-out slides, one value per method
    methods: list[str]  # their columns


def summarise(evaluation: pd.DataFrame, *, synthetic: bool) -> Results:
    """Turn the table of ``tl.evaluate`` into the words and tables of the report."""
    methods = method_order(evaluation)
    by_signature = signature_means(evaluation)
    shares = signature_means(evaluation, "share_of_ceiling").mean(axis=1)
    means = by_signature.mean(axis=1)
    main = HEADLINE if HEADLINE in methods else methods[0]
    ceilings = evaluation.drop_duplicates(["sample", "signature"]).groupby("signature")["ceiling"].mean()
    signatures = list(by_signature.columns)
    return Results(
        headline=_headline(evaluation, main, means[main], shares[main], synthetic=synthetic),
        controls=_controls(means, [m for m in CONTROLS if m in methods]),
        detail=_detail(dict(zip(signatures, by_signature.to_numpy()[methods.index(main)], strict=True))),
        tiles=_tiles(means, shares, methods, main),
        signatures=signatures,
        rows=[
            Row(display_name(m), list(rs), means[m], shares[m], is_model=m in MODEL)
            for m, rs in zip(methods, by_signature.to_numpy(), strict=True)
        ],
        ceiling=Row("ceiling", ceilings[signatures].tolist(), mean_ceiling(evaluation), np.nan),
        samples=_samples(evaluation, main),
        methods=[display_name(m) for m in methods],
    )


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


def count(n: int, noun: str) -> str:
    """``1 slide``, ``2 slides``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _headline(evaluation: pd.DataFrame, method: str, r: float, share: float, *, synthetic: bool) -> str:
    n_patients, n_slides = evaluation["patient"].nunique(), evaluation["sample"].nunique()
    source = "the H&E alone" if method == HEADLINE else display_name(method)
    patients = "synthetic patient" if synthetic else "patient"
    start = "On synthetic tissue, from " if synthetic else "From "
    text = (
        f"{start}{source}, {count(evaluation['signature'].nunique(), 'signature')} of "
        f"{count(n_patients, 'held-out ' + patients)} ({count(n_slides, 'slide')}) were predicted with a mean Pearson r "
        f"of {number(r)}"
    )
    if np.isfinite(share):
        text += (
            f", {percent(share)} of what noise in the measurement allows (ceiling {number(mean_ceiling(evaluation))})"
        )
    return text + "."


def _controls(means: pd.Series, controls: list[str]) -> str:
    said = ", ".join(f"{display_name(m)} {number(means[m])}" for m in controls)
    return f"Controls on the same patches: {said}." if said else ""


def _detail(rs: dict[str, float]) -> str:
    known = sorted((r, name) for name, r in rs.items() if np.isfinite(r))
    if len(known) < 2:
        return ""
    (lowest, weakest), (highest, best) = known[0], known[-1]
    return f"Best signature: {best} ({number(highest)}); weakest: {weakest} ({number(lowest)})."


def _tiles(means: pd.Series, shares: pd.Series, methods: list[str], main: str) -> list[tuple[str, str, str]]:
    shown = [main, *(m for m in ("fused", "density", "he_only_permuted", "coordinates") if m in methods and m != main)]
    return [(display_name(m), number(means[m]), f"{percent(shares[m])} of the ceiling") for m in shown]


def _samples(evaluation: pd.DataFrame, main: str) -> list[Row]:
    means = slide_means(evaluation)
    shares = slide_means(evaluation, "share_of_ceiling")
    return [
        Row(str(sample), list(rs), float(means[main][sample]), float(shares[main][sample]))
        for sample, rs in zip(means.index, means.to_numpy(), strict=True)
    ]
