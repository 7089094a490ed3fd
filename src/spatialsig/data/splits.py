"""Which fold a slide, or a place on a slide, belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._errors import KeyMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide

BUFFER = -1  # fold of a place too near to another fold


def group_folds(sizes: Mapping[str, int], *, n_folds: int, seed: int) -> dict[str, int]:
    """Fold of each group, largest group first into the smallest fold; ties in an order drawn from ``seed``."""
    rng = np.random.default_rng(seed)
    names = list(rng.permutation(sorted(sizes)))
    load = np.zeros(n_folds, np.int64)
    folds = {}
    for name in sorted(names, key=lambda n: -sizes[n]):
        fold = int(load.argmin())
        folds[str(name)] = fold
        load[fold] += sizes[name]
    return folds


def block_folds(
    xy_um: NDArray[Any], *, block_um: float, buffer_um: float, n_folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each point by square blocks; :data:`BUFFER` where another fold is nearer than ``buffer_um / 2``.

    Two points of different folds therefore differ by at least ``buffer_um`` in x or in y.
    """
    xy = np.asarray(xy_um, np.float64)
    folds = _fold_of_block(np.floor(xy / block_um).astype(np.int64), n_folds, seed)
    for dx in (-0.5, 0.5):
        for dy in (-0.5, 0.5):
            for step in ((dx, 0.0), (0.0, dy), (dx, dy)):
                corner = np.floor((xy + np.array(step) * buffer_um) / block_um).astype(np.int64)
                folds = np.where(_fold_of_block(corner, n_folds, seed) == folds, folds, BUFFER)
    return folds


def _fold_of_block(block: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    # diagonal stripes: every fold meets every part of the slide, whatever its outline
    return (block[..., 0] + block[..., 1] * 2 + seed) % n_folds


def folds_of(slide: Slide, xy_um: NDArray[Any]) -> NDArray[np.int64]:
    """Fold of each position on a slide, as ``pp.split`` laid it down; 0 everywhere for a slide without a split."""
    split = slide.attrs.get("split")
    if split is None:
        return np.zeros(len(xy_um), np.int64)
    if split["by"] == "block":
        return block_folds(xy_um, **{key: split[key] for key in ("block_um", "buffer_um", "n_folds", "seed")})
    return np.full(len(xy_um), int(split["fold"]), np.int64)


def training_rows(slide: Slide, xy_um: NDArray[Any], *, test_fold: int | None) -> NDArray[np.bool_]:
    """Rows a model may learn from: neither of the test fold nor in a buffer; all of them when ``test_fold`` is None."""
    if test_fold is None:
        return np.ones(len(xy_um), bool)
    if "split" not in slide.attrs:
        msg = (
            f"slide {slide.name!r} has no folds, so nothing can be held out. "
            "Call `sp.pp.split` first, or pass `test_fold=None` to learn from every slide."
        )
        raise KeyMissingError(msg)
    folds = folds_of(slide, xy_um)
    allowed: NDArray[np.bool_] = (folds != test_fold) & (folds != BUFFER)
    return allowed


def positions(slide: Slide, table_key: str) -> NDArray[np.float64]:
    """Positions of the rows of a table, µm ``(n, 2)``."""
    table = slide.table(table_key)
    return np.asarray(table.obsm[_keys.SPATIAL], np.float64)
