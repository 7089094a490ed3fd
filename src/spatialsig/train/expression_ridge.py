"""Ridge regression of scores on the expression embedding, linear or of Gaussian kernels, chosen on folds held out.

Floor 3, above data, models. Used by inference/stacking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialsig.nn.stacking import gaussian_kernel
from spatialsig.train.ridge import Moments, penalty_errors, principal

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

WIDTHS = (0.0, 0.1, 0.3, 0.5, 1.0)  # of the kernel, see :func:`spatialsig.nn.stacking.gaussian_kernel`; 0 is linear
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-9, 4))  # per patch, for kernels that are 1 between equal codes
N_LANDMARKS = 512


@dataclass(frozen=True)
class ExpressionRidge:
    """A fitted regression: ``offset + codes @ linear + kernel(codes, landmarks) @ weights``."""

    landmarks: Tensor  # (m, d), standardised codes
    width: float
    linear: Tensor  # (d, t)
    weights: Tensor  # (m, t)
    offset: Tensor  # (t,)
    held_out: NDArray[np.float64]  # (n, t), scores of each patch by the fit on the other folds; NaN without a code


def fit_expression_ridge(
    codes: NDArray[np.floating], targets: NDArray[np.floating], fold: NDArray[np.int64], *, seed: int
) -> ExpressionRidge:
    """Regression of standardised scores on standardised codes.

    A Gaussian kernel follows scores that bend with the embedding; landmarks keep it small [1]_. Folds held out choose
    the width of the kernel by the smallest squared error and, for each score, the largest penalty within one standard
    error of the best. Unmeasured scores count as their mean.

    Parameters
    ----------
    codes
        ``(n, d)``, NaN rows where missing.
    targets
        ``(n, t)``, NaN where unmeasured.
    fold
        Part of every patch ``(n,)`` that is held out with it, best a patient.
    seed
        Of the choice of landmarks.

    References
    ----------
    .. [1] Williams C, Seeger M. Using the Nyström method to speed up kernel machines. Advances in Neural Information
       Processing Systems 13, 682-688 (2001).
    """
    known = np.isfinite(codes).all(axis=1)
    x = torch.from_numpy(codes[known]).double()
    y = torch.from_numpy(np.nan_to_num(targets[known])).double()
    chosen = np.random.default_rng(seed).choice(len(x), min(N_LANDMARKS, len(x)), replace=False)
    landmarks, parts = x[np.sort(chosen)], [np.flatnonzero(fold[known] == k) for k in np.unique(fold[known])]
    if len(parts) == 1:  # the others have no embedding
        parts = np.array_split(parts[0], 2)
    found = {width: _errors(width, x, y, parts, landmarks) for width in WIDTHS}
    width = min(found, key=lambda w: float(found[w].sum(dim=0).amin(dim=0).sum()))
    penalty = _cautious(found[width])
    features, back = _features(width, x, landmarks)
    of_parts = [_moments(features[rows], y[rows]) for rows in parts]
    held_out = np.full((len(codes), y.shape[1]), np.nan)
    rows_known = np.flatnonzero(known)
    for k, rows in enumerate(parts):
        weights, offset = _solved(Moments.of([part for i, part in enumerate(of_parts) if i != k]), penalty)
        held_out[rows_known[rows]] = (features[rows] @ weights + offset).numpy()
    weights, offset = _solved(Moments.of(of_parts), penalty)
    of_kernel, linear = back @ weights, torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    if not width:
        of_kernel, linear = torch.zeros(len(landmarks), y.shape[1], dtype=torch.float64), of_kernel
    return ExpressionRidge(landmarks, width, linear, of_kernel, offset, held_out)


def _features(width: float, codes: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``(n, m)`` whose products are the kernel, and the map ``(m, m)`` to them from kernels with landmarks."""
    d = codes.shape[1]
    if not width:
        return codes / d**0.5, torch.eye(d, dtype=torch.float64) / d**0.5
    eigenvalues, vectors = torch.linalg.eigh(gaussian_kernel(landmarks, landmarks, width))
    kept = eigenvalues > 1e-9 * eigenvalues.max()
    back = vectors[:, kept] / eigenvalues[kept].sqrt()
    return gaussian_kernel(codes, landmarks, width) @ back, back


def _errors(width: float, x: Tensor, y: Tensor, parts: list[NDArray[np.int64]], landmarks: Tensor) -> Tensor:
    """Squared errors on parts held out, ``(n_parts, len(PENALTIES), t)``, less what no kernel and no penalty changes."""
    features = _features(width, x, landmarks)[0]
    return penalty_errors([_moments(features[rows], y[rows]) for rows in parts], PENALTIES, scaled=False)


def _cautious(errors: Tensor) -> Tensor:
    """Largest penalty of each score ``(t,)`` whose error is within a standard error of the smallest.

    Parts of the same patients tell the best penalty for these patients; others need a larger one.
    """
    best = errors.sum(dim=0).argmin(dim=0)
    excess = errors - errors.gather(1, best.expand(len(errors), 1, -1))
    allowed = excess.sum(dim=0) <= excess.std(dim=0) * len(errors) ** 0.5
    return torch.where(allowed, torch.tensor(PENALTIES, dtype=torch.float64)[:, None], 0.0).amax(dim=0)


def _moments(x: Tensor, y: Tensor) -> Moments:
    return Moments(len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y)


def _solved(moments: Moments, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(m, t)`` and offsets ``(t,)`` of a ridge regression with one penalty per score."""
    eigenvalues, axes, along = principal(moments, scaled=False)
    weights = axes @ (along / (eigenvalues[:, None] + penalty))
    return weights, moments.targets / moments.n - moments.mean @ weights
