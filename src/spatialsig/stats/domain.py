"""How far patches lie from those that a model has learned from: distances, and what is far on a slide of the same kind.

Distances are those of Mahalanobis along the principal axes of the training patches, of which the strongest are kept; what lies
off these axes counts as one more. Patients weigh the same. How far patches of a *new* patient lie is not seen on patients that the
axes were made of: it is measured on patients left out in turn, and its spread over patients says where a further one may lie.

Floor 1, above the ground floor. Used by models/domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHRINK = 0.1  # of the covariance towards its diagonal, and of the variances of kept axes towards their mean
AWAY = 0.05  # share of the patches of a slide of the same kind that may lie beyond the threshold ...
SURE = 0.95  # ... on this share of such slides
# what is known of the spread over patients (of the logarithm of what is far) before any is seen, and what it is worth: patients
PRIOR_SD, PRIOR_N = 0.2, 4
ALONE_SD = 0.4  # of one patient, whose parts say nothing of others
PARTS = 4  # into which the patches of one patient are divided
MAX_FOLDS = 8  # patients left out in turn, one by one where there are no more


@dataclass(frozen=True)
class Distance:
    """Distance of numbers ``(n, d)`` from those of training patches, 1 on average for these."""

    mean: NDArray[np.float64]  # (d,)
    axes: NDArray[np.float64]  # (d, k), orthonormal
    variance: NDArray[np.float64]  # (k,), along the axes
    rest: float  # mean square off the axes; 0 where nothing is off them

    def __post_init__(self) -> None:
        """Raise :class:`ValueError` for parts that are not finite or do not belong together."""
        d, k = len(np.atleast_1d(self.mean)), len(np.atleast_1d(self.variance))
        shapes = (np.shape(self.mean), np.shape(self.axes), np.shape(self.variance))
        if shapes != ((d,), (d, k), (k,)):
            msg = f"mean, axes and variance of a distance are of shapes {shapes}; wanted (d,), (d, k), (k,)."
            raise ValueError(msg)
        if not all(np.isfinite(part).all() for part in (self.mean, self.axes, self.variance, self.rest)):
            msg = "a distance holds values that are not finite."
            raise ValueError(msg)
        if not (self.variance > 0).all() or self.rest < 0:
            msg = "a distance holds a variance that is not above 0."
            raise ValueError(msg)

    @classmethod
    def fit(cls, groups: Sequence[NDArray[np.float64]], *, floor: float | NDArray[np.float64], n_axes: int) -> Distance:
        """Distance from the rows of some groups (patients), which weigh the same; ``floor`` are deviations that mean nothing."""
        mean = np.mean([np.median(rows, axis=0) for rows in groups], axis=0)
        covariance = np.mean([(rows - mean).T @ (rows - mean) / len(rows) for rows in groups], axis=0)
        diagonal = np.diag(np.diag(covariance))
        covariance = (1 - SHRINK) * covariance + SHRINK * diagonal + np.eye(len(mean)) * np.square(floor)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        k = min(n_axes, len(mean))
        kept = values[:k] + SHRINK * values[:k].mean()
        return cls(mean, np.ascontiguousarray(vectors[:, :k]), kept, float(values[k:].sum()))

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distances ``(n,)``; NaN for rows that are not finite."""
        off = np.asarray(values, np.float64) - self.mean
        along = off @ self.axes
        square = (along**2 / self.variance).mean(axis=1)
        if self.rest > 0:
            left = np.maximum((off**2).sum(axis=1) - (along**2).sum(axis=1), 0)
            square = (square + left / self.rest) / 2
        distances: NDArray[np.float64] = np.sqrt(square)
        return distances


def fit_distance(
    values: NDArray[np.floating],
    patients: NDArray[np.str_],
    slides: NDArray[np.str_],
    *,
    floor: float | NDArray[np.float64],
    n_axes: int,
    share: float,
) -> tuple[Distance, float]:
    """Distance from all patches, and what ``share`` of the patches of a slide of a new patient may exceed.

    Parameters
    ----------
    values
        ``(n, d)``; rows that are not finite are left out.
    patients, slides
        Of each row, ``(n,)``; rows of a slide in the order of their place, so that parts of it hang together.
    floor, n_axes
        As of :meth:`Distance.fit`.
    share
        Of the patches of a slide.
    """
    known = np.isfinite(values).all(axis=1)
    rows_of: NDArray[np.float64] = np.asarray(values, np.float64)[known]
    patients, slides = patients[known], slides[known]
    alone = len(set(patients.tolist())) == 1
    groups = _parts(len(rows_of)) if alone else patients
    names = sorted(set(groups.tolist()))
    rows = {name: rows_of[groups == name] for name in names}
    whole = Distance.fit([rows_of] if alone else list(rows.values()), floor=floor, n_axes=n_axes)
    far: dict[str, list[float]] = {name: [] for name in names}
    for k in range(n_folds := min(len(names), MAX_FOLDS)):
        others = [rows[name] for i, name in enumerate(names) if i % n_folds != k]
        distance = Distance.fit(others, floor=floor, n_axes=n_axes)
        for name in names[k::n_folds]:
            own = groups == name
            of_slides = (distance(rows_of[own & (slides == slide)]) for slide in sorted(set(slides[own].tolist())))
            far[name] = [float(np.log(max(np.quantile(found, 1 - share), 1e-9))) for found in of_slides]
    return whole, float(np.exp(_bound(np.array([np.mean(of_patient) for of_patient in far.values()]), alone=alone)))


def _parts(n: int) -> NDArray[np.str_]:
    return np.array([f"part {k * PARTS // n}" for k in range(n)])


def _bound(logged: NDArray[np.float64], *, alone: bool) -> float:
    """What the logarithm of a further patient stays below in :data:`SURE` of all cases: a prediction interval of Student's t."""
    n = 1 if alone else len(logged)
    squares = 0.0 if alone else float(((logged - logged.mean()) ** 2).sum())
    freedom = PRIOR_N + n - 1
    sd = ALONE_SD if alone else np.sqrt((PRIOR_N * PRIOR_SD**2 + squares) / freedom)
    return float(logged.mean() + student.ppf(SURE, freedom) * sd * np.sqrt(1 + 1 / n))
