"""Prediction intervals of a model, from its errors on slides it has not learned from.

Floor 7, above evaluation. Called as sp.tl.calibrate; used by pipeline/run_options, pipeline/run_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, Share, checked
from spatialsig._checks import check_choice
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.inference.held_out import labels_for, refuse_training_slide
from spatialsig.inference.inputs import ModelInputs, inputs_name, usable
from spatialsig.inference.provenance import backbone_of
from spatialsig.models.ensemble import SignatureModel, placed
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.each import map_slides
from spatialsig.slide.folds import BUFFER
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.stats.conformal import GUARANTEES, check_coverage, conformal_quantile, left_out_coverage, slides_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide

_SMALLEST_STD = 1e-12  # a deviation of 0 would make an error infinitely large


@dataclass(frozen=True)
class _Errors:
    """Errors on labelled patches, ``(n, n_signatures)``, NaN where not measured."""

    slide: NDArray[np.str_]  # (n,)
    error: NDArray[np.float64]  # absolute, in score units
    std: NDArray[np.float64] | None  # of the model


@checked
@needs_cells
def calibrate(
    data: Data,
    model: SignatureModel,
    *,
    fold: Natural | None = None,
    coverage: Share = 0.95,
    guarantee: str = "patches",
    use_rep: Key | None = None,
    n_views: Count = 1,
    device: str | None = None,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
) -> pd.DataFrame:
    """Measure the prediction intervals of a model on slides it has not learned from, and keep them in the model.

    Split conformal prediction [1]_: the interval is the score plus and minus the ``coverage`` quantile of the absolute
    errors on held-out patches, slightly raised to correct for the finite sample; where the model knows its own deviation,
    of the errors divided by it, so that uncertain patches get wider intervals. Every slide has the same weight, however many
    patches it has. :func:`predict` then writes ``layers["lower"]`` and ``layers["upper"]``.

    Coverage is that of *measured labels* (their counting noise included), on average over patches of slides like the
    calibration slides; that of a single slide may differ, see ``lowest`` below.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with labels; not modified.
    model
        Trained model or ensemble; ``intervals`` is written, and saved with the model.
    fold
        Fold to measure errors on. ``None`` takes the model's ``validation_fold``; without one, every slide of ``data``,
        none of which may be a training slide.
    coverage
        Share of patches whose measured score should lie in the interval.
    guarantee
        ``"patches"`` (default) takes the calibration slides as they are; right on average where they are many.
        ``"slides"`` counts a new slide as one more draw [2]_ [3]_: it holds for patches of new slides with any number
        of calibration slides from ``coverage / (1 - coverage)`` on (19 for 0.95), and its intervals are wider.
    use_rep, n_views
        As of :func:`predict`; intervals of different ``use_rep`` are kept beside each other, another ``n_views`` replaces them.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    patches_key, signatures_key
        Patches and table of the labels.

    Returns
    -------
    One row per signature: ``signature``, ``inputs``, ``coverage``, ``half_width`` (median over the patches, score
    units; NaN where not measured), ``n_patches``, ``n_slides``, ``lowest`` and ``highest`` (share held on the worst and
    best slide by intervals from the others under ``guarantee="patches"``; NaN for fewer than two slides). Writes ``model.intervals``.

    Raises
    ------
    LeakageError
        If a calibration slide is one the model learned from, unless ``fold`` was held out of it, or of a patient in other folds.
    InputError
        If no labelled patch is left, there are too few patches or slides for ``coverage``, or the labels lack a signature.
    KeyMissingError
        If ``fold`` is given and a slide has no folds.

    References
    ----------
    .. [1] Lei J, G'Sell M, Rinaldo A, Tibshirani RJ, Wasserman L. Distribution-free predictive inference for
       regression. Journal of the American Statistical Association 113, 1094-1111 (2018).
       https://doi.org/10.1080/01621459.2017.1307116
    .. [2] Dunn R, Wasserman L, Ramdas A. Distribution-free prediction sets for two-layer hierarchical models. Journal
       of the American Statistical Association 118, 2491-2502 (2023). https://doi.org/10.1080/01621459.2022.2060112
    .. [3] Lee Y, Barber RF, Willett R. Distribution-free inference with hierarchical data. arXiv (2023).
       https://doi.org/10.48550/arXiv.2306.06342

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> widths = sp.tl.calibrate(sdata, model, fold=0, coverage=0.8)
    >>> prediction = sp.tl.predict(sdata, model)
    >>> sorted(sdata["signatures_pred"].layers)
    ['lower', 'upper']
    """
    check_coverage(coverage)
    check_choice(guarantee, GUARANTEES, name="guarantee")
    fold = model.run.get("validation_fold") if fold is None else fold
    keys = {"patches_key": patches_key, "signatures_key": signatures_key}
    work = partial(_errors, model=model, fold=fold, use_rep=use_rep, n_views=n_views, device=device, **keys)  # type: ignore[arg-type]
    refuse_leaks(data, [] if fold is None else [fold])
    parts = map_slides(data, work, "calibrate")
    errors = _joined([part for part in parts if part is not None], fold)
    size = errors.error if errors.std is None else errors.error / errors.std
    width = [
        conformal_quantile(column, coverage=coverage, groups=errors.slide, guarantee=guarantee)
        if np.isfinite(column).any()
        else None
        for column in size.T
    ]
    _check_enough(width, errors, model.signatures, coverage, guarantee)
    record = {
        "coverage": float(coverage),
        "guarantee": guarantee,
        "n_views": n_views,
        "scaled": errors.std is not None,
        "width": width,
        "samples": list(dict.fromkeys(errors.slide.tolist())),
    }
    model.intervals = (model.intervals or {}) | {inputs_name(use_rep): record}
    return _summary(errors, size, width, model.signatures, inputs_name(use_rep), coverage)


def _errors(
    slide: Slide, *, model: SignatureModel, fold: int | None, use_rep: str | None, n_views: int, device: str | None,
    patches_key: str, signatures_key: str,
) -> _Errors | None:  # fmt: skip
    """Errors on the held-out labelled patches of one slide; None where it has none."""
    patches = slide.patches(patches_key)
    labels = labels_for(patches, signatures_key, model)
    _check_signatures(slide, labels.names, model)
    rows = np.flatnonzero(_held_out(patches, fold) & usable(patches, labels, backbone_of(model)))
    if not len(rows):
        return None
    refuse_training_slide(slide, model, fold)
    inputs = ModelInputs.of(patches, model, signatures_key=signatures_key, use_rep=use_rep)
    with placed(model, device):
        mean, std = inputs.predict_with_deviation(rows, n_views=n_views)
    return _Errors(
        slide=np.full(len(rows), slide.name),
        error=np.abs(labels.values[rows].astype(np.float64) - mean),
        std=None if std is None else np.maximum(std.astype(np.float64), _SMALLEST_STD),
    )


def _held_out(patches: Patches, fold: int | None) -> NDArray[np.bool_]:
    if fold is None:
        return np.ones(len(patches), bool)
    if "split" not in patches.slide.attrs:
        msg = (
            f"slide {patches.slide.name!r} has no folds, and errors are wanted on `fold={fold}`. Call `sp.pp.split` first, "
            "or give only slides that the model has not seen, with a model without `validation_fold` and `fold=None`."
        )
        raise KeyMissingError(msg)
    held_out: NDArray[np.bool_] = (patches.folds == fold) & (patches.folds != BUFFER)
    return held_out


def _check_signatures(slide: Slide, names: list[str], model: SignatureModel) -> None:
    if names != list(model.signatures):
        msg = (
            f"slide {slide.name!r} has the signatures {names}, the model {list(model.signatures)}; call "
            "`sp.tl.score_cells` with the signatures the model was trained on."
        )
        raise InputError(msg)


def _joined(parts: list[_Errors], fold: int | None) -> _Errors:
    if not parts:
        msg = f"no labelled patch {'of any slide' if fold is None else f'in `fold={fold}`'} to calibrate on."
        raise InputError(msg)
    stds = [part.std for part in parts if part.std is not None]
    return _Errors(
        slide=np.concatenate([part.slide for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        std=np.concatenate(stds) if stds else None,
    )


def _check_enough(
    width: list[float | None], errors: _Errors, signatures: tuple[str, ...], coverage: float, guarantee: str
) -> None:
    endless = [name for name, w in zip(signatures, width, strict=True) if w is not None and np.isinf(w)]
    if not endless:
        return
    n_slides, n_patches = len(set(errors.slide.tolist())), len(errors.slide)
    enough = slides_needed(coverage)
    msg = (
        f"`coverage={coverage}` with `guarantee={guarantee!r}` wants at least {enough} {guarantee}; there are {n_patches} "
        f"labelled patches on {n_slides} slides, too few for {endless}. Lower `coverage`"
        f"{', use guarantee=' + repr('patches') if guarantee == 'slides' else ''} or hold out more slides."
    )
    raise InputError(msg)


def _summary(
    errors: _Errors,
    size: NDArray[np.float64],
    width: list[float | None],
    signatures: tuple[str, ...],
    inputs: str,
    coverage: float,
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for column, (name, w) in enumerate(zip(signatures, width, strict=True)):
        measured = np.isfinite(size[:, column])
        held = left_out_coverage(size[:, column], errors.slide, coverage=coverage).values()
        scale = 1.0 if errors.std is None else float(np.median(errors.std[:, column]))
        rows.append(
            {
                "signature": name,
                "inputs": inputs,
                "coverage": coverage,
                "half_width": np.nan if w is None else w * scale,
                "n_patches": int(measured.sum()),
                "n_slides": len(set(errors.slide[measured].tolist())),
                "lowest": min(held, default=np.nan),
                "highest": max(held, default=np.nan),
            }
        )
    return pd.DataFrame(rows)
