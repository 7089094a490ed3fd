"""Ridge regression on the principal components of features, with a penalty of its own for every target, chosen on folds held out.

Floor 5, above slide. Used by inference/probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig.stats.agreement import pearson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# per patch, in units of the variance of a standardised feature: `alpha / n` of scikit-learn
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 7))
USUAL_PENALTY = 1.0  # of a target that no fold held out can judge
CONSTANT = 1e-6  # deviation, in shares of the mean, of a feature that says nothing


@dataclass(frozen=True)
class Components:
    """Principal components of standardised features."""

    mean: Floats  # mean, scale: of every feature, (d,)
    scale: Floats
    axes: Floats  # (d, k), of unit length, the largest variance first
    variance: Floats  # (k,)

    def of(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Components of patches, ``(n, k)``."""
        return np.asarray(((features - self.mean) / self.scale) @ self.axes)


def principal_components(features: NDArray[np.float32], weights: Floats, n_components: int) -> Components:
    """At most ``n_components`` axes: there are no more than features, and than patches less one."""
    wide = features.astype(np.float64)
    share = weights / weights.sum()
    mean = share @ wide
    wide -= mean
    std = np.sqrt(share @ wide**2)
    scale = np.where(std <= CONSTANT * np.maximum(np.abs(mean), CONSTANT), 1.0, std)
    rows = wide / scale * np.sqrt(share)[:, None]
    n, d = rows.shape
    if n < d:
        _, singular, across = np.linalg.svd(rows, full_matrices=False)
        variance, axes = singular**2, across.T
    else:
        variance, axes = (part[..., ::-1] for part in np.linalg.eigh(rows.T @ rows))
    k = max(1, min(n_components, d, n - 1))
    return Components(mean, scale, np.ascontiguousarray(axes[:, :k]), np.maximum(variance[:k], 0))


@dataclass(frozen=True)
class LinearProbe:
    """Scores that a ridge regression reads from principal components."""

    components: Components
    coefficients: Floats  # (k, t)
    offset: Floats  # (t,)

    def predict(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Scores ``(n, t)`` of patches by their features ``(n, d)``."""
        return np.asarray(self.offset + self.components.of(features) @ self.coefficients)


@dataclass(frozen=True)
class _Ridge:
    """Ridge regressions of some targets on some components, solved for every penalty at once."""

    components_mean: Floats
    targets_mean: Floats
    variance: Floats  # (k,), along axes (k, k)
    axes: Floats
    along: Floats  # (k, t), what the targets share with each of them

    @classmethod
    def of(cls, z: Floats, targets: Floats, weights: Floats) -> _Ridge:
        share = weights / weights.sum()
        z_mean, y_mean = share @ z, share @ targets
        centred = z - z_mean
        weighted = (centred * share[:, None]).T
        variance, axes = np.linalg.eigh(weighted @ centred)
        return cls(z_mean, y_mean, np.maximum(variance, 0), axes, axes.T @ (weighted @ (targets - y_mean)))

    def coefficients(self, penalty: float | Floats) -> Floats:
        """Of every component in every target, ``(k, t)``; one penalty, or one for each target."""
        return np.asarray(self.axes @ (self.along / (self.variance[:, None] + penalty)))

    def offset(self, coefficients: Floats) -> Floats:
        """Scores ``(t,)`` where all components are 0."""
        return np.asarray(self.targets_mean - self.components_mean @ coefficients)

    def predict(self, z: Floats, penalty: float) -> Floats:
        """Scores ``(n, t)`` by components ``(n, k)``."""
        coefficients = self.coefficients(penalty)
        return np.asarray(self.offset(coefficients) + z @ coefficients)


def fit_linear_probe(
    features: NDArray[np.float32],
    targets: Floats,
    weights: Floats,
    *,
    n_components: Sequence[int],
    penalties: Sequence[float],
) -> LinearProbe:
    """Fit every target with its own number of components and penalty.

    Parameters
    ----------
    features, targets
        ``(n, d)`` and ``(n, t)``; a target that is NaN at a patch is fitted to the others.
    weights
        Of the patches, ``(n,)``, in components and regression.
    n_components, penalties
        Of each target, ``(t,)``; a penalty is added to the mean square of a component, so that scikit-learn's ``alpha`` is
        ``penalty * weights.sum()``.
    """
    components = principal_components(features, weights, max(n_components))
    z = components.of(features)
    n_targets = targets.shape[1]
    coefficients, offset = np.zeros((z.shape[1], n_targets)), np.zeros(n_targets)
    sizes, own_penalties = np.asarray(n_components), np.asarray(penalties, np.float64)
    for columns, rows in _measured_alike(targets):
        for k in np.unique(sizes[columns]).tolist():
            alike = columns[sizes[columns] == k]
            ridge = _Ridge.of(z[rows, :k], targets[np.ix_(rows, alike)], weights[rows])
            found = ridge.coefficients(own_penalties[alike])
            coefficients[: len(found), alike], offset[alike] = found, ridge.offset(found)
    return LinearProbe(components, coefficients, offset)


def choose_linear_probe(
    features: NDArray[np.float32],
    targets: Floats,
    weights: Floats,
    folds: NDArray[np.int64],
    *,
    names: Sequence[str],
    n_components: Sequence[int],
    penalties: Sequence[float] = PENALTIES,
) -> pd.DataFrame:
    """Every setting judged on folds held out in turn: components and regression see the other folds only.

    Returns
    -------
    One row per target, number of components and penalty: ``signature``, ``n_components``, ``penalty``, ``error`` (mean
    squared error in shares of that of the mean of the other folds), ``pearson`` (mean over folds), ``chosen`` (the
    setting of the smallest error of each target). ``error`` is NaN where no fold could judge.
    """
    shape = (len(n_components), len(penalties), targets.shape[1])
    errors, of_mean = np.zeros(shape), np.zeros(targets.shape[1])
    correlations: list[Floats] = []
    for fold in np.unique(folds):
        own = folds == fold
        r = np.full(shape, np.nan)
        for columns, alone, ridges in _fitted_to_others(features, targets, weights, own, n_components):
            truth, weight = targets[np.ix_(own, columns)], weights[own][:, None]
            of_mean[columns] += np.nansum(weight * (truth - alone) ** 2, axis=0)
            for i, (ridge, z) in enumerate(ridges):
                for j, penalty in enumerate(penalties):
                    scores = ridge.predict(z, penalty)
                    errors[i, j, columns] += np.nansum(weight * (truth - scores) ** 2, axis=0)
                    r[i, j, columns] = pearson(truth, scores)
        correlations.append(r)
    judged = of_mean > 0
    errors = np.where(judged, errors / np.where(judged, of_mean, 1.0), np.nan)
    return _as_table(errors, _mean_of_known(np.stack(correlations)), names, n_components, penalties)


def chosen_settings(table: pd.DataFrame, names: Sequence[str]) -> tuple[list[int], list[float]]:
    """Number of components and penalty of each target, as :func:`choose_linear_probe` chose them."""
    chosen = table[table["chosen"]].set_index("signature").loc[list(names)]
    return chosen["n_components"].astype(int).tolist(), chosen["penalty"].tolist()


def _fitted_to_others(
    features: NDArray[np.float32],
    targets: Floats,
    weights: Floats,
    own: NDArray[np.bool_],
    n_components: Sequence[int],
) -> Iterator[tuple[NDArray[np.int64], Floats, list[tuple[_Ridge, Floats]]]]:
    """Targets measured alike outside a fold, their means there, and for each number of components regression and fold."""
    rest = np.flatnonzero(~own)
    if not weights[rest].any():
        return
    components = principal_components(features[rest], weights[rest], max(n_components))
    z, z_own = components.of(features[rest]), components.of(features[own])
    for columns, rows in _measured_alike(targets[rest]):
        weight = weights[rest[rows]]
        if weight.any():
            known = targets[np.ix_(rest[rows], columns)]
            ridges = [(_Ridge.of(z[rows, :k], known, weight), z_own[:, :k]) for k in n_components]
            yield columns, weight @ known / weight.sum(), ridges


def _measured_alike(targets: Floats) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Columns that are measured on the same rows, and these rows; columns without any are left out."""
    measured = np.isfinite(targets)
    patterns, pattern = np.unique(measured, axis=1, return_inverse=True)
    for k, rows in enumerate(patterns.T):
        if rows.any():
            yield np.flatnonzero(pattern.reshape(-1) == k), np.flatnonzero(rows)


def _mean_of_known(values: Floats) -> Floats:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def _as_table(
    errors: Floats, r: Floats, names: Sequence[str], n_components: Sequence[int], penalties: Sequence[float]
) -> pd.DataFrame:
    chosen = np.zeros(errors.shape, bool)
    for t in range(errors.shape[2]):
        own = errors[:, :, t]
        best = (
            np.unravel_index(int(np.nanargmin(own)), own.shape)
            if np.isfinite(own).any()
            else (0, int(np.abs(np.log(np.asarray(penalties) / USUAL_PENALTY)).argmin()))
        )
        chosen[(*best, t)] = True
    of_size, of_penalty, of_target = np.moveaxis(np.indices(errors.shape), 3, 1).reshape(3, -1)
    return pd.DataFrame(
        {
            "signature": np.asarray(names, object)[of_target],
            "n_components": np.asarray(n_components)[of_size],
            "penalty": np.asarray(penalties, np.float64)[of_penalty],
            "error": errors.transpose(2, 0, 1).ravel(),
            "pearson": r.transpose(2, 0, 1).ravel(),
            "chosen": chosen.transpose(2, 0, 1).ravel(),
        }
    )
