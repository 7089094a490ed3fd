"""Folds of slides, and of places on a slide, from what ``pp.split`` recorded.

Floor 4, above train. Used by 17 modules of evaluation, expression, inference, labels, maps, pl, pp, slide, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import first_few
from spatialsig.errors import InputError, KeyMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

BUFFER = -1  # fold of a place too near to another fold
INSIDE = (
    "block",
    "random",
)  # splits of places on a slide, both sides of which lie on slides that were seen; others hold out whole slides


def group_folds(
    sizes: Mapping[str, int], *, n_folds: int, seed: int, strata: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Fold of each group, largest group first into the smallest fold; ties in an order drawn from ``seed``.

    With ``strata`` (a label per group) every stratum is spread over the folds as evenly as it can be.
    """
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(sorted(sizes))]
    labels = {name: "" if strata is None else strata[name] for name in names}
    load = np.zeros(n_folds, np.int64)
    of_stratum = {label: np.zeros(n_folds, np.int64) for label in labels.values()}
    folds = {}
    for name in sorted(names, key=lambda n: (labels[n], -sizes[n])):
        fold = int(np.lexsort((load, of_stratum[labels[name]]))[0])
        folds[name] = fold
        load[fold] += sizes[name]
        of_stratum[labels[name]][fold] += sizes[name]
    return folds


def inner_group_folds(
    folds: Mapping[str, int], sizes: Mapping[str, int], *, n_folds: int, n_inner: int, seed: int
) -> dict[str, list[int]]:
    """Second level of folds: for every test fold, the groups outside it are dealt to ``n_inner`` folds.

    Each group gets a list: its inner fold while fold 0, 1, ... is tested; :data:`BUFFER` while it is tested itself.
    """
    inner: dict[str, list[int]] = {name: [] for name in folds}
    for test_fold in range(n_folds):
        rest = {name: sizes[name] for name, fold in folds.items() if fold != test_fold}
        dealt = group_folds(rest, n_folds=n_inner, seed=seed + 1 + test_fold)
        for name, of_name in inner.items():
            of_name.append(dealt.get(name, BUFFER))
    return inner


def block_folds(
    xy_um: NDArray[Any], *, block_um: float, buffer_um: float, n_folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each point by square blocks; :data:`BUFFER` where another fold is nearer than ``buffer_um / 2``, and for NaN.

    Two points of different folds therefore differ by at least ``buffer_um`` in x or in y.
    """
    return _buffered(xy_um, lambda stripe: stripe % n_folds, block_um=block_um, buffer_um=buffer_um, seed=seed)


def inner_block_folds(
    xy_um: NDArray[Any], *, block_um: float, buffer_um: float, n_folds: int, n_inner: int, seed: int, test_fold: int
) -> NDArray[np.int64]:
    """Second level of folds by blocks; :data:`BUFFER` in the test fold and near to another inner fold or to it."""

    def inner(stripe: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(stripe % n_folds == test_fold, n_inner, stripe // n_folds % n_inner)

    folds = _buffered(xy_um, inner, block_um=block_um, buffer_um=buffer_um, seed=seed)
    return np.where(folds == n_inner, BUFFER, folds)


def _buffered(
    xy_um: NDArray[Any], fold_of: Callable[[NDArray[np.int64]], NDArray[np.int64]], *, block_um: float,
    buffer_um: float, seed: int,
) -> NDArray[np.int64]:  # fmt: skip
    xy, there = _finite(xy_um)

    def at(points: NDArray[np.float64]) -> NDArray[np.int64]:
        block = np.floor(points / block_um).astype(np.int64)
        # diagonal stripes: every fold meets every part of the slide, whatever its outline
        return fold_of(block[..., 0] + block[..., 1] * 2 + seed)

    folds = np.where(there, at(xy), BUFFER)
    for dx in (-0.5, 0.5):
        for dy in (-0.5, 0.5):
            for step in ((dx, 0.0), (0.0, dy), (dx, dy)):
                folds = np.where(at(xy + np.array(step) * buffer_um) == folds, folds, BUFFER)
    return folds


def _finite(xy_um: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points with zeros for those that are nowhere, and which are somewhere."""
    xy = np.asarray(xy_um, np.float64)
    there = np.asarray(np.isfinite(xy).all(axis=1))
    return np.where(there[:, None], xy, 0.0), there


def random_folds(xy_um: NDArray[Any], *, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each point drawn by its position alone, whatever lies around it: the split that leaks."""
    xy, there = _finite(xy_um)
    nm = np.ascontiguousarray(np.rint(xy * 1000).astype(np.int64)).view(np.uint64)
    with np.errstate(over="ignore"):  # a hash of 64 bits, after Steele and others (2014)
        mixed = nm[:, 0] * np.uint64(0x9E3779B97F4A7C15) + nm[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.where(there, ((mixed >> np.uint64(33)) % np.uint64(n_folds)).astype(np.int64), BUFFER)


def folds_of(slide: Slide, xy_um: NDArray[Any], *, extent_um: float = 0.0) -> NDArray[np.int64]:
    """Fold of each position on a slide, as ``pp.split`` assigned it; 0 everywhere for a slide without a split.

    ``extent_um`` is the width of what lies around a position: a patch that straddles two blocks is in the buffer.
    """
    split = slide.attrs.get("split")
    if split is None:
        return np.zeros(len(xy_um), np.int64)
    if split["by"] == "block":
        return block_folds(xy_um, **_block_options(split, extent_um))
    if split["by"] == "random":
        return random_folds(xy_um, n_folds=split["n_folds"], seed=split["seed"])
    return np.full(len(xy_um), int(split["fold"]), np.int64)


def inner_folds_of(slide: Slide, xy_um: NDArray[Any], *, test_fold: int, extent_um: float = 0.0) -> NDArray[np.int64]:
    """Inner fold of each position while ``test_fold`` is held out; :data:`BUFFER` for what may not be used.

    Choose a model on the rows of one inner fold, train it on those of the others, and judge it on ``test_fold``.

    Raises
    ------
    KeyMissingError
        If the slide has no inner folds.
    """
    split = slide.attrs.get("split", {})
    if "n_inner_folds" not in split:
        msg = f"slide {slide.name!r} has no inner folds; call `sp.pp.split(..., n_inner_folds=...)` again."
        raise KeyMissingError(msg)
    n_inner = int(split["n_inner_folds"])
    if split["by"] == "block":
        options = _block_options(split, extent_um)
        return inner_block_folds(xy_um, **options, n_inner=n_inner, test_fold=test_fold)
    if split["by"] == "random":
        inner = random_folds(xy_um, n_folds=n_inner, seed=split["seed"] + 1)
        return np.where(folds_of(slide, xy_um) == test_fold, BUFFER, inner)
    return np.full(len(xy_um), int(split["inner"][test_fold]), np.int64)


def _block_options(split: Mapping[str, Any], extent_um: float) -> dict[str, Any]:
    options = {key: split[key] for key in ("block_um", "n_folds", "seed")}
    return options | {"buffer_um": max(float(split["buffer_um"]), extent_um)}


def is_split_inside(slide: Slide) -> bool:
    """Whether places on the slide were dealt to folds, not the slide as a whole."""
    return slide.attrs.get("split", {}).get("by") in INSIDE


def check_fold(slide: Slide, fold: int, *, name: str) -> None:
    """Raise :class:`InputError` for a fold that ``pp.split`` did not make: nothing would be held out."""
    n_folds = int(slide.attrs["split"].get("n_folds", fold + 1))
    if not 0 <= fold < n_folds:
        msg = f"`{name}={fold}`: slide {slide.name!r} was split into folds 0 to {n_folds - 1}; choose one of them."
        raise InputError(msg)


def torn_patients(slides: Mapping[str, tuple[str, Mapping[str, Any]]], held_out: Collection[int] | None = None) -> str:
    """Say which patients are of several sides: the folds held out, and all others together; empty where none is.

    Parameters
    ----------
    slides
        Slide -> its patient, and how it was split. Only ``by="patient"`` and attributes of slides promise that this cannot be.
    held_out
        Folds held out, each for itself; None: every fold in turn.
    """
    folds: dict[str, dict[str, int]] = {}
    for name, (patient, split) in slides.items():
        if split.get("by", "slide") not in ("slide", *INSIDE):
            folds.setdefault(patient, {})[name] = int(split["fold"])
    torn = [
        f"{patient!r} ({first_few([f'{name} in fold {fold}' for name, fold in of_slides.items()])})"
        for patient, of_slides in folds.items()
        if len({fold if held_out is None or fold in held_out else BUFFER for fold in of_slides.values()}) > 1
    ]
    if not torn:
        return ""
    return (
        f"slides were split by patient, and one patient lies in several folds now: {first_few(torn)}. Its name was changed after "
        "the split, so training slides and held-out slides are of the same patient. Call `sp.pp.split` again on all slides "
        "together, and train again."
    )


def is_training(
    slide: Slide, xy_um: NDArray[Any], *, test_fold: int | None, extent_um: float = 0.0
) -> NDArray[np.bool_]:
    """Rows a model may learn from: neither of the test fold nor in a buffer; all of them when ``test_fold`` is None."""
    if test_fold is None:
        return np.ones(len(xy_um), bool)
    if "split" not in slide.attrs:
        msg = (
            f"slide {slide.name!r} has no folds, so nothing can be held out. "
            "Call `sp.pp.split` first, or pass `test_fold=None` to learn from every slide."
        )
        raise KeyMissingError(msg)
    check_fold(slide, test_fold, name="test_fold")
    folds = folds_of(slide, xy_um, extent_um=extent_um)
    allowed: NDArray[np.bool_] = (folds != test_fold) & (folds != BUFFER)
    return allowed


def shared_folds(splits: Mapping[str, Mapping[str, Any] | None]) -> list[int]:
    """Numbers of the folds of slides, by how each was split; ``None`` where it was not.

    Raises
    ------
    KeyMissingError
        If a slide was not split.
    InputError
        If slides were split differently.
    """
    done: dict[str, Mapping[str, Any]] = {}
    for name, split in splits.items():
        if split is None:
            msg = f"slide {name!r} has no folds to hold out; call `sp.pp.split` first."
            raise KeyMissingError(msg)
        done[name] = split
    designs = {name: (split["by"], split["n_folds"], split["seed"]) for name, split in done.items()}
    if len(set(designs.values())) > 1:
        msg = f"slides are split differently (by, n_folds, seed): {designs}; call `sp.pp.split` on all together."
        raise InputError(msg)
    by, n_folds, _ = next(iter(designs.values()))
    return list(range(n_folds)) if by in INSIDE else sorted({int(split["fold"]) for split in done.values()})
