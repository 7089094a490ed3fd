"""A head for single nuclei, learned from the scores of the cells that they are of.

Floor 8, above io, pl, pp, tl. Called as sp.tl.train_cell_head.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, Natural, checked
from spatialsig.errors import InputError, LeakageError
from spatialsig.inference.held_out import check_labels
from spatialsig.inference.inputs import check_reads_images
from spatialsig.inference.local import check_places
from spatialsig.maps.cell_places import cell_places
from spatialsig.maps.grid import HALF, lay_grid
from spatialsig.maps.measured_cells import measured_rows
from spatialsig.maps.nucleus_features import nucleus_features
from spatialsig.models.cell_head import CellHead
from spatialsig.models.ensemble import SignatureModel, members_of, placed, weights_hash
from spatialsig.nn.device import FLOAT32
from spatialsig.slide.coordinates import positions
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.each import map_slides
from spatialsig.slide.folds import is_training
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.train.ridge import Moments, principal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 3))  # in units of the features' variance
ALONE = 1e-2  # where all nuclei lie in one part
N_PARTS = 4  # of a slide, from top to bottom, each held out once to choose the penalty where there is one slide only
MIN_CELLS = 100


@checked
@needs_cells
def train_cell_head(
    data: Data,
    model: SignatureModel,
    *,
    cells: Key | None = None,
    test_fold: Natural | None = 0,
    min_tissue: Fraction = 0.25,
    device: str | None = None,
    table_key: Key = _keys.TABLE,
    image_key: Key = _keys.IMAGE,
    patches_key: Key = _keys.PATCHES,
) -> CellHead:
    """Learn to score single nuclei from what a trained model sees of them in their patches.

    The model has learned from patches; what tells cells apart is in it all the same: the channels of its convolutional stem and its tokens
    where a nucleus lies. A ridge regression [1]_ on these and on the score of the patch around it predicts the cell's own score
    (:func:`score_cells`). The network stays as it is; the penalty is chosen on training slides held out in turn (parts of the slide,
    where there is one).

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort with scored cells; not modified.
    model
        Trained model, or an ensemble of them, that averages tokens over the patch, as :func:`train_vit` makes them by default.
    cells
        Shapes or labels of the nuclei, as for :func:`predict_cells`; None takes the cells of the table at their positions.
    test_fold
        Fold that is held out, the same as for the model; None learns from every slide.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1.
    device
        Where the network computes; None takes ``sp.settings.device``.
    table_key
        Table of the cells.
    image_key, patches_key
        H&E image; patches whose stain is used, as for :func:`signature_map`.

    Returns
    -------
    Head to give to :func:`predict_cells`; its ``run`` says which slides and how many nuclei it learned from, and the penalty.

    Raises
    ------
    InputError
        If the model gives no tokens, cells were not scored, or too few nuclei are cells to learn from.
    LeakageError
        If the model held out another fold.

    References
    ----------
    .. [1] Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67
       (1970). https://doi.org/10.1080/00401706.1970.10488634

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> head = sp.tl.train_cell_head(sdata, model)
    >>> head.signatures == model.signatures
    True
    """
    check_reads_images(model)
    check_places(model, "sp.tl.train_cell_head")
    own = model.run.get("test_fold")
    if test_fold is not None and own is not None and test_fold != own:
        msg = f"`test_fold={test_fold}`, but the model held out fold {own}: what one has learned from the other would be judged on."
        raise LeakageError(msg)
    refuse_leaks(data, [] if test_fold is None else [test_fold])
    options = {"cells": cells, "test_fold": test_fold, "min_tissue": min_tissue, "device": device}
    keys = {"table_key": table_key, "image_key": image_key, "patches_key": patches_key}
    work = partial(_moments, model=model, **options, **keys)  # type: ignore[arg-type]
    found = [part for part in map_slides(data, work, "learn from nuclei") if part[1]]
    n = sum(part.n for _, parts in found for part in parts)
    if n < MIN_CELLS:
        msg = f"`test_fold={test_fold}` leaves {n} nuclei that are scored cells; wanted at least {MIN_CELLS}."
        raise InputError(msg)
    folds = [Moments.of(parts) for _, parts in found] if len(found) > 1 else found[0][1]
    head = _fitted(model, folds)
    head.run |= {
        "training_samples": [name for name, _ in found],
        "test_fold": test_fold,
        "n_cells": n,
        "cells": cells or "",
    }
    return head


def _moments(
    slide: Slide, *, model: SignatureModel, cells: str | None, test_fold: int | None, min_tissue: float, device: str | None,
    table_key: str, image_key: str, patches_key: str,
) -> tuple[str, list[Moments]]:  # fmt: skip
    """Sums over the training nuclei of a slide, of features and of the scores of their cells, for each part of the slide."""
    target = _targets(slide, model, table_key)
    xy = positions(slide, table_key)
    target[~is_training(slide, xy, test_fold=test_fold)] = np.nan
    if not np.isfinite(target).any():
        return slide.name, []
    places = cell_places(slide, cells, table_key=table_key, image_key=image_key)
    row = measured_rows(slide, table_key, xy, ids=places.cell_ids, xy_um=places.xy_um)
    part = np.argsort(np.argsort(places.xy_px[:, 1])) * N_PARTS // max(len(row), 1)
    known = (row >= 0) & np.isfinite(target[row]).any(axis=1)
    sums: dict[int, Moments] = {}
    with placed(model, device):
        grid = lay_grid(
            slide, model, HALF, min_tissue=min_tissue, tissue_key=None, image_key=image_key, patches_key=patches_key
        )
        for chosen, features in nucleus_features(grid, model, places, precision=FLOAT32):
            for k in range(N_PARTS):
                own = known[chosen] & (part[chosen] == k)
                if own.any():
                    x = torch.from_numpy(features[own]).double()
                    y = torch.from_numpy(
                        np.nan_to_num(target[row[chosen[own]]])
                    )  # what is not measured counts as the mean
                    more = Moments(len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y)
                    sums[k] = Moments.of([sums[k], more]) if k in sums else more
    return slide.name, [sums[k] for k in sorted(sums)]


def _targets(slide: Slide, model: SignatureModel, table_key: str) -> NDArray[np.float64]:
    """Scores of the cells in units of the model's training scores, ``(n_cells, n_signatures)``; NaN where not measured."""
    check_labels(slide, model, table_key)
    scored = slide.step(table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
    values = np.asarray(
        slide.obsm(table_key, scored["key"], name="key", fix="Call `sp.tl.score_cells` first."), np.float64
    )
    names, first = list(map(str, scored["names"])), members_of(model)[0]
    if missing := [name for name in model.signatures if name not in names]:
        msg = f"slide {slide.name!r}: cells are scored by {names}, not by {missing} of the model; call `sp.tl.score_cells` with its signatures."
        raise InputError(msg)
    scores = values[:, [names.index(name) for name in model.signatures]]
    return (scores - first.target_mean) / first.target_std


def _best_penalty(folds: list[Moments]) -> float:
    """Penalty of the smallest squared error within folds held out in turn, in which how a fold as a whole is off does not count."""
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for k, held_out in enumerate(folds):
        rest = [fold for i, fold in enumerate(folds) if i != k]
        if not rest:
            return ALONE
        eigenvalues, axes, along = principal(Moments.of(rest))
        squares, cross = axes.T @ held_out.covariance @ axes, axes.T @ held_out.products
        for i, penalty in enumerate(PENALTIES):
            weights = along / (eigenvalues + penalty)[:, None]
            errors[i] += held_out.n * ((squares @ weights - 2 * cross) * weights).sum()
    return float(PENALTIES[int(errors.argmin())])


def _fitted(model: SignatureModel, folds: list[Moments]) -> CellHead:
    first = members_of(model)[0]
    penalty = _best_penalty(folds)
    moments = Moments.of(folds)
    std = moments.covariance.diagonal().clamp_min(1e-12).sqrt()
    eigenvalues, axes, along = principal(moments)
    weights = (axes @ (along / (eigenvalues + penalty)[:, None])) * std[:, None]  # of features of unit variance
    scale, offset = (
        torch.from_numpy(np.asarray(values, np.float64)) for values in (first.target_std, first.target_mean)
    )
    net = nn.Linear(len(std), len(model.signatures))
    with torch.no_grad():
        net.weight.copy_((weights * scale).T)
        net.bias.copy_(moments.targets / moments.n * scale + offset)
    run: dict[str, Any] = {"penalty": penalty}
    return CellHead(
        list(model.signatures), feature_mean=moments.mean.numpy(), feature_std=std.numpy(), model_sha256=weights_hash(model),
        run=run, net=net,
    )  # fmt: skip
