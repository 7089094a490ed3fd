"""Learning curves of every signature, and what they say of a target in words.

Floor 6, above expression, inference, labels. Used by pl/_power, tl/_power.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig._arguments import Count, Key, checked
from spatialsig._checks import check_key
from spatialsig.stats.learning_curve import Curve, fit_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 1000  # patients beyond which nobody plans
NEVER = 0.1  # share of the curves that reach a target, below which it will not be reached


@dataclass(frozen=True)
class LearningCurves:
    """What :func:`spatialsig.tl.power` returns.

    Attributes
    ----------
    points
        One row per subset and signature: ``n_patients``, ``repeat``, ``signature``, ``pearson`` and ``share_of_ceiling``.
    table
        One row per signature: ``share_now`` with all patients, ``plateau``, ``plateau_low``, ``plateau_high`` (where the curve
        levels off), ``needed``, ``needed_low``, ``needed_high`` patients for the target (infinite: not reached),
        ``chance`` that it can be reached.
    target, level
        As asked for.
    curves
        Of each signature: ``(share_of_ceiling, pearson)``.
    """

    points: pd.DataFrame
    table: pd.DataFrame
    target: float
    level: float
    curves: dict[str, tuple[Curve, Curve]] = field(repr=False)

    @checked
    def predict(self, n_patients: Count) -> pd.DataFrame:
        """What one cohort of ``n_patients`` may reach, with intervals: columns ``signature``, ``pearson``, ``low``, ``high``, and of the share."""
        rows = []
        for name, (share, r) in self.curves.items():
            row: dict[str, Any] = {"signature": name, "n_patients": n_patients}
            for prefix, curve in (("", r), ("share_", share)):
                low, middle, high = _interval(curve.of_one_cohort(n_patients), self.level)
                column = "pearson" if not prefix else "share_of_ceiling"
                row |= {column: middle, f"{prefix}low": low, f"{prefix}high": high}
            rows.append(row)
        return pd.DataFrame(rows)

    @checked
    def sentence(self, signature: Key) -> str:
        """The number of patients for a grant, in words."""
        rows = self.table.set_index("signature")
        check_key(list(rows.index), signature, name="signature", where="the learning curves")
        row = {str(key): value for key, value in rows.loc[signature].items()}
        return _sentence(signature, row, self.target)

    @property
    def sentences(self) -> list[str]:
        """:meth:`sentence` of every signature."""
        return [self.sentence(str(name)) for name in self.table["signature"]]


def summary_of(points: pd.DataFrame, *, n_pool: int, target: float, level: float, seed: int = 0) -> LearningCurves:
    """Curves through the points of every signature, and what they say of ``target``."""
    curves, rows = {}, []
    for name, part in points.groupby("signature", sort=False):
        fits = []
        for column in ("share_of_ceiling", "pearson"):
            wide = part.pivot(index="repeat", columns="n_patients", values=column)
            known = wide.loc[:, wide.notna().any()]
            if known.shape[1] < 3:
                break
            fits.append(fit_curve(known.columns.to_numpy(), known.to_numpy(np.float64), n_pool=n_pool, seed=seed))
        if len(fits) == 2:
            curves[str(name)] = (fits[0], fits[1])
            rows.append(_row(str(name), part, fits[0], target, level))
    return LearningCurves(points, pd.DataFrame(rows), target, level, curves)


def _row(name: str, part: pd.DataFrame, curve: Curve, target: float, level: float) -> dict[str, Any]:
    largest = part[part["n_patients"] == part["n_patients"].max()]
    needed = curve.needed(target)
    low, middle, high = (
        float(value) for value in np.quantile(needed, [(1 - level) / 2, 0.5, (1 + level) / 2], method="nearest")
    )
    plateau = _interval(curve.a, level)
    return {
        "signature": name, "n_now": int(largest["n_patients"].iloc[0]), "share_now": float(largest["share_of_ceiling"].mean()),
        "plateau": plateau[1], "plateau_low": plateau[0], "plateau_high": plateau[2],
        "needed": middle, "needed_low": low, "needed_high": high, "chance": float((needed <= MOST).mean()),
    }  # fmt: skip


def _interval(values: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return float(low), float(middle), float(high)


def _sentence(signature: str, row: dict[str, Any], target: float) -> str:
    wanted = f"r/ceiling {target:.2g} for {signature}"
    plateau = f"its curve levels off at {row['plateau']:.2f} ({row['plateau_low']:.2f} to {row['plateau_high']:.2f})"
    if row["chance"] < NEVER:
        return f"{signature} will not get to r/ceiling {target:.2g} with more patients of this kind: {plateau}."
    low, middle, high = (row[name] for name in ("needed_low", "needed", "needed_high"))
    upper = f"to {high:.0f}" if high <= MOST else "to no known limit"
    if middle > MOST:
        return f"{wanted}: chance of reaching it {row['chance']:.0%}, if at all with {low:.0f} patients of this kind or more; {plateau}."
    return f"{wanted} needs {middle:.0f} ({low:.0f} {upper}) patients of this kind."
