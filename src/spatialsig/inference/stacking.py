"""Weights of expression, image and network in the final score, learned on patches that none of them was fitted to.

Floor 5, above slide. Used by inference/probe, inference/vit, tl/_ensemble.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import nnls

from spatialsig._progress import track
from spatialsig.data.features import in_batches
from spatialsig.data.passes import ahead
from spatialsig.inference.inputs import AHEAD, BATCH
from spatialsig.models.ensemble import placed
from spatialsig.nn.signature import SignatureNet
from spatialsig.nn.stacking import PARTS, Stacking
from spatialsig.slide.folds import group_folds
from spatialsig.train.expression_ridge import fit_expression_ridge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spatialsig.inference.training_set import LabelledPatches, TrainingSet
    from spatialsig.models.vit import SignatureViT

    Fit = Callable[[TrainingSet, int], SignatureViT]

HALVES = 2  # networks are costly: each is fitted on one half of the training patches and judges the other
N_BLOCKS = 8  # of neighbouring patches, where there are too few patients to hold out
FEWEST = 16  # patches of which halves can be made
PATIENTS_TO_TRUST = 1.0  # of the learned weights, as much as of the better part alone


@dataclass(frozen=True)
class HeldOut:
    """Standardised scores of training patches by parts that were not fitted to them."""

    parts: NDArray[np.float64]  # (3, n, t), in the order of PARTS; NaN where one says nothing
    targets: NDArray[np.float64]  # (n, t), NaN where unmeasured
    weights: NDArray[np.float64]  # (n,)
    n_patients: int


def stack(model: SignatureViT, training_set: TrainingSet, fit: Fit, *, seed: int) -> None:
    """Let a trained model weigh what expression, image and both say, see :class:`spatialsig.nn.stacking.Stacking`.

    The network is fitted again on each half of the training patches, by patient where there is more than one, else by
    slide or by blocks of neighbours; nothing changes for images without expression.

    Parameters
    ----------
    model
        Trained with expression; changed.
    training_set
        What it learned from.
    fit
        Makes a model from a part of it; called with the number of the part.
    seed
        Of the landmarks, and of the order of patients of one size.
    """
    train = training_set.train
    half = _halves(train, seed=seed)
    if half is None:
        return
    embedding = np.concatenate([p.embedding for p in train])
    codes = (embedding.astype(np.float64) - model.ae_mean) / model.ae_std
    targets = (np.concatenate([p.targets for p in train]) - model.target_mean) / model.target_std
    ridge = fit_expression_ridge(codes, targets, folds_to_hold_out(train), seed=seed)
    image, fused = _by_halves(model, training_set, half, fit)
    held_out = HeldOut(
        np.stack([ridge.held_out, image, fused]),
        targets,
        np.concatenate([p.weights for p in train]).astype(np.float64),
        len({p.patient for p in train}),
    )
    shares = learn_shares(held_out)
    stacking = Stacking(len(ridge.landmarks), model.config.n_latent, len(model.signatures))
    for name, value in {**vars(ridge), "shares": torch.from_numpy(shares)}.items():
        if name != "held_out":
            getattr(stacking, name).copy_(torch.as_tensor(value))
    _attach(model, stacking.eval())


def share_stacking(first: SignatureViT, other: SignatureViT) -> None:
    """Give a model that learned from the same patches what :func:`stack` found with ``first``, where it did."""
    if isinstance(first.net, SignatureNet) and first.net.stacking is not None:
        _attach(other, copy.deepcopy(first.net.stacking))


def _attach(model: SignatureViT, stacking: Stacking) -> None:
    model.net.stack(stacking)  # type: ignore[operator]
    model.config = model.net.config
    rows = stacking.shares.double().numpy().round(4).tolist()
    model.run["stacking"] = {
        name: dict(zip(model.signatures, row, strict=True)) for name, row in zip(PARTS, rows, strict=True)
    }


def learn_shares(held_out: HeldOut) -> NDArray[np.float64]:
    """Weight of each part in every score, ``(3, t)``, none below 0.

    Least squares on patches held out, of each score and of all together, half and half: single scores are noisy. The less
    patients there are, the more the better of expression and image keeps for itself: how the others do on a patient
    whom nobody has seen is not known from neighbours of the patches that they learned from.
    """
    n_targets = held_out.targets.shape[1]
    known = np.isfinite(held_out.parts).all(axis=0) & np.isfinite(held_out.targets)
    pooled = _systems(held_out, known, range(n_targets))
    together = nnls(*pooled)[0]
    trust = held_out.n_patients / (held_out.n_patients + PATIENTS_TO_TRUST)
    shares = np.zeros((len(PARTS), n_targets))
    for t in range(n_targets):
        system = _systems(held_out, known, [t]) if known[:, t].any() else pooled
        learned = (nnls(*system)[0] + together) / 2
        shares[:, t] = trust * learned + (1 - trust) * _better(*system)
    return shares


def _systems(held_out: HeldOut, known: NDArray[np.bool_], targets: Sequence[int] | range) -> tuple[Any, Any]:
    """Weighted equations of some scores: parts ``(rows, 3)`` and measured scores ``(rows,)``."""
    root = np.sqrt(held_out.weights)
    parts = [(held_out.parts[:, known[:, t], t] * root[known[:, t]]).T for t in targets]
    return np.concatenate(parts), np.concatenate([(held_out.targets[:, t] * root)[known[:, t]] for t in targets])


def _better(parts: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of expression or image alone, whichever leaves the smaller error."""
    alone = np.zeros((2, len(PARTS)))
    errors = np.empty(2)
    for part in range(2):
        (alone[part, part],), errors[part] = nnls(parts[:, [part]], scores)
    return np.asarray(alone[errors.argmin()])


def _by_halves(
    model: SignatureViT, training_set: TrainingSet, half: list[NDArray[np.int64]], fit: Fit
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardised scores without and with expression by networks fitted on the other half, ``(n, t)`` each."""
    train = training_set.train
    without, with_expression = ([np.full(p.targets.shape, np.nan) for p in train] for _ in range(2))
    for k in track(range(HALVES), "weights of expression and image", unit="half"):
        others = [p.rows(np.flatnonzero(own != k)) for p, own in zip(train, half, strict=True)]
        part = fit(replace(training_set, train=[p for p in others if len(p)]), k)
        with placed(part):
            for i, (patches, own) in enumerate(zip(train, half, strict=True)):
                rows = np.flatnonzero(own == k)
                without[i][rows], with_expression[i][rows] = _scores(part, patches.rows(rows))
    return tuple((np.concatenate(s) - model.target_mean) / model.target_std for s in (without, with_expression))  # type: ignore[return-value]


def _scores(model: SignatureViT, patches: LabelledPatches) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores of patches without and with expression."""
    alone, fused = (np.empty(patches.targets.shape, np.float32) for _ in range(2))
    for batch, images in ahead(in_batches(patches.source, BATCH), depth=AHEAD):
        alone[batch] = model.predict(images)
        fused[batch] = model.predict(images, patches.embedding[batch])  # type: ignore[index]
    return alone, fused


def folds_to_hold_out(train: Sequence[LabelledPatches]) -> NDArray[np.int64]:
    """Fold of every training patch: its patient where there are several, else its block of neighbours."""
    patients = sorted({p.patient for p in train})
    if len(patients) > 1:
        return np.concatenate([np.full(len(p), patients.index(p.patient) % N_BLOCKS) for p in train])
    each = max(2, -(-N_BLOCKS // len(train)))
    return np.concatenate([i * each + blocks(p.centres, each) for i, p in enumerate(train)])


def _halves(train: list[LabelledPatches], *, seed: int) -> list[NDArray[np.int64]] | None:
    """Half of every patch, by slide: patients, else slides, else neighbours stay together; None where halves teach nothing."""
    for units in ([p.patient for p in train], [str(i) for i in range(len(train))]):
        half = _by_unit(train, units, seed=seed)
        if all(_teaches(train, half, k) for k in range(HALVES)):
            return half
    half = [blocks(p.centres, HALVES) for p in train]
    return half if all(_teaches(train, half, k) for k in range(HALVES)) else None


def _teaches(train: list[LabelledPatches], half: list[NDArray[np.int64]], k: int) -> bool:
    """Whether a half has enough patches, and measures all scores that the whole does."""
    targets = np.concatenate([p.targets[own == k] for p, own in zip(train, half, strict=True)])
    if len(targets) * HALVES < FEWEST:
        return False
    low, high = (
        f(np.where(np.isfinite(targets), targets, -s * np.inf), axis=0) for f, s in ((np.min, -1), (np.max, 1))
    )
    return bool((low < high).all())


def _by_unit(train: list[LabelledPatches], units: list[str], *, seed: int) -> list[NDArray[np.int64]]:
    """Half of every patch, whole units together and the halves about equal; one half is empty for a single unit."""
    sizes = dict.fromkeys(units, 0)
    for unit, patches in zip(units, train, strict=True):
        sizes[unit] += len(patches)
    half_of = group_folds(sizes, n_folds=HALVES, seed=seed)
    return [np.full(len(p), half_of[unit]) for unit, p in zip(units, train, strict=True)]


def blocks(centres: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Block of every patch ``(len(centres),)``: at least ``n`` of equal size where there are as many patches, each cut across its longer side."""
    parts = [np.arange(len(centres))]
    while len(parts) < min(n, len(centres)):
        along = [
            part[np.argsort(centres[part][:, np.ptp(centres[part], axis=0).argmax()], kind="stable")] for part in parts
        ]
        parts = [half for part in along for half in np.array_split(part, 2) if len(half)]
    block = np.empty(len(centres), np.int64)
    for number, part in enumerate(parts):
        block[part] = number
    return block
