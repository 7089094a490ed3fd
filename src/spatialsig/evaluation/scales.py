"""Predictions judged at several scales, beside density and colour at each, and the finest scale at which they say more.

Floor 6, above expression, inference, labels. Used by pl/_scales, tl/_scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._checks import warn
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.evaluation.findings_scores import MARGIN, MIN_PATIENTS
from spatialsig.evaluation.squares import CUT_FINER, is_too_fine, square_ceiling, square_labels, squares_of
from spatialsig.inference.held_out import check_judged
from spatialsig.slide.each import map_slides
from spatialsig.slide.table_rows import aligned
from spatialsig.stats.agreement import MIN_PATCHES, agreement
from spatialsig.stats.baselines import ridge
from spatialsig.stats.significance import cluster_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data, Slide

PREDICTED, CONTROLS = "predicted", ("density", "colour")
COLUMNS = (
    "scale_um",
    "method",
    "signature",
    "sample",
    "patient",
    "n_squares",
    "pearson",
    "ceiling",
    "share_of_ceiling",
    "coverage",
)


@dataclass(frozen=True)
class Scales:
    """What :func:`spatialsig.tl.scales` returns.

    Attributes
    ----------
    table
        One row per scale, method (``"predicted"``, ``"density"``, ``"colour"``), signature and held-out slide.
    summary
        One row per scale: mean r of each method over patients, the ceiling, the difference to the better control with its
        interval, the coverage of the intervals, and how predictions were regrouped.
    finest_um
        Finest scale at which predictions beat density and colour; None where they do not.
    sentence
        The same in words.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    finest_um: float | None
    sentence: str


@dataclass(frozen=True)
class Request:
    """Scales and names."""

    scales_um: tuple[float, ...]
    test_fold: int
    seed: int
    predictions_key: str
    patches_key: str
    signatures_key: str
    table_key: str


@dataclass(frozen=True)
class _Scale:
    """One slide at one scale."""

    sample: str
    patient: str
    names: list[str]
    how: str
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    labels: NDArray[np.float64]
    features: dict[str, NDArray[np.float32]]
    predicted: NDArray[np.float64] | None = None  # of slides that are judged
    inside: NDArray[np.float64] | None = None  # 1 where the label lies in its interval
    ceiling: NDArray[np.float64] | None = None


def judge_scales(data: Data, request: Request) -> Scales:
    """Judge the predictions of the held-out slides at every scale."""
    request = _fine_enough(data, request)
    by_slide = map_slides(data, partial(_slide_scales, request=request), "scales")
    rows: list[dict[str, Any]] = []
    for k, scale_um in enumerate(track(request.scales_um, "judge scales", unit="scale")):
        slides = [scales[k] for scales in by_slide]
        if not any(one.test.any() for one in slides) or not any(one.train.any() for one in slides):
            msg = f"fold {request.test_fold}, or what is outside of it, holds no labelled square of {scale_um:g} µm; leave it out of `scales_um`."
            raise InputError(msg)
        for one in (one for one in slides if one.test.any()):
            rows += [{"scale_um": scale_um, **row} for row in _judged(one, slides)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    how = {scale_um: by_slide[0][k].how for k, scale_um in enumerate(request.scales_um)}
    summary = _summary(table, how)
    finest, sentence = _finest(summary)
    return Scales(table, summary, finest, sentence)


def _fine_enough(data: Data, request: Request) -> Request:
    """The request without scales below the step between patches, of which a warning tells; as it is where none is left, to be refused."""
    too_fine = map_slides(data, partial(_too_fine, request=request), "steps between patches")
    left_out = set().union(*(scales for scales, _ in too_fine))
    kept = tuple(scale_um for scale_um in request.scales_um if scale_um not in left_out)
    if not left_out or not kept:
        return request
    listed, step_um = ", ".join(f"{scale_um:g}" for scale_um in sorted(left_out)), max(step for _, step in too_fine)
    warn(
        f"scales of {listed} um are finer than the step between patches ({step_um:.4g} um) and are left out; to judge them, {CUT_FINER}"
    )
    return replace(request, scales_um=kept)


def _too_fine(slide: Slide, *, request: Request) -> tuple[set[float], float]:
    """Scales below the step between the patches of a slide, and this step, µm."""
    patches = slide.patches(request.patches_key)
    fine = {scale_um for scale_um in request.scales_um if is_too_fine(patches, scale_um)}
    return fine, patches.spec.stride_l0 * patches.spec.image_um_per_px


def _slide_scales(slide: Slide, *, request: Request) -> list[_Scale]:
    patches = slide.patches(request.patches_key)
    labels = patches.labels(request.signatures_key)
    record = slide.step(request.signatures_key, "aggregate_patches", fix="Call `sp.tl.aggregate_patches` again.")
    scored = slide.params(request.signatures_key).get("score_cells") or {}
    if "weights" not in scored:
        msg = f"slide {slide.name!r}: the labels {request.signatures_key!r} are no scores of cells, which squares of another size need."
        raise InputError(msg)
    order = [[str(name) for name in scored["names"]].index(name) for name in labels.names]
    return [_at(scale_um, slide, labels.names, order, scored, record, request) for scale_um in request.scales_um]


def _at(
    scale_um: float, slide: Slide, names: list[str], order: list[int], scored: Any, record: Any, request: Request
) -> _Scale:
    squares = squares_of(slide.patches(request.patches_key), scale_um)
    labels, membership = square_labels(squares, scored, record, table_key=request.table_key)
    labelled, folds = np.isfinite(labels).any(axis=1), squares.folds
    train, test = labelled & (folds >= 0) & (folds != request.test_fold), labelled & (folds == request.test_fold)
    made: dict[str, Any] = {}
    if test.any():
        predicted, lower, upper = _predictions(slide, names, request)
        made["predicted"] = squares.means(predicted)
        if lower is not None and upper is not None:
            low, high = squares.means(lower), squares.means(upper)
            inside = (labels[:, order] >= low) & (labels[:, order] <= high)
            made["inside"] = np.where(np.isfinite(low) & np.isfinite(labels[:, order]), inside, np.nan)
        options: dict[str, Any] = {"seed": request.seed, "table_key": request.table_key}
        made["ceiling"] = square_ceiling(squares, membership, test, scored, record, **options)[order]
    features = squares.features()
    return _Scale(slide.name, slide.patient, names, squares.how, train, test, labels[:, order], features, **made)


def _predictions(slide: Slide, names: list[str], request: Request) -> tuple[NDArray[Any], Any, Any]:
    """Predictions of the patches and the ends of their intervals, in the order of the labels; None without intervals."""
    patches, key = slide.patches(request.patches_key), request.predictions_key
    found = patches.matrix(key, name="predictions_key", fix="Call `sp.tl.predict` first.")
    record = slide.step(key, "predict", fix="Give `predictions_key` a table of `sp.tl.predict` or `sp.tl.referee`.")
    check_judged(slide, record, request.test_fold, labels_key=request.signatures_key, what="sp.tl.scales")
    table, rows = slide.table(key), patches.rows_in(key)
    columns = pd.Index(found.names).get_indexer(pd.Index(names))

    def ordered(values: NDArray[Any]) -> NDArray[np.float64]:
        out = np.full((len(values), len(names)), np.nan)
        out[:, columns >= 0] = values[:, columns[columns >= 0]]
        return out

    has_ends = {_keys.LOWER, _keys.UPPER} <= set(table.layers)
    ends = (
        [ordered(aligned(table.layers[layer], rows)) for layer in (_keys.LOWER, _keys.UPPER)]
        if has_ends
        else [None, None]
    )
    return ordered(found.values), ends[0], ends[1]


def _judged(one: _Scale, slides: Sequence[_Scale]) -> list[dict[str, Any]]:
    trained = [other for other in slides if other.train.any()]
    y = np.concatenate([other.labels[other.train] for other in trained])
    scores: dict[str, Any] = {PREDICTED: None if one.predicted is None else one.predicted[one.test]}
    for name in CONTROLS:
        x = np.concatenate([other.features[name][other.train] for other in trained])
        scores[name] = ridge(x, y, one.features[name][one.test])
    rows = []
    for method, values in scores.items():
        for k, name in enumerate(one.names):
            agreed = agreement(one.labels[one.test][:, k], values[:, k])
            ceiling = np.nan if one.ceiling is None else float(one.ceiling[k])
            inside = (
                one.inside[one.test][:, k] if method == PREDICTED and one.inside is not None else np.array([np.nan])
            )
            known = inside[np.isfinite(inside)]
            rows.append({
                "method": method, "signature": name, "sample": one.sample, "patient": one.patient, "n_squares": agreed["n_patches"],
                "pearson": agreed["pearson"], "ceiling": ceiling, "coverage": float(known.mean()) if len(known) >= MIN_PATCHES else np.nan,
                "share_of_ceiling": agreed["pearson"] / ceiling if ceiling > 0 else np.nan,
            })  # fmt: skip
    return rows


def _summary(table: pd.DataFrame, how: dict[float, str]) -> pd.DataFrame:
    """One row per scale, means over signatures, then slides, then patients."""
    rows = []
    for scale_um, part in table.groupby("scale_um", sort=True):
        wide = part.pivot(index=["signature", "sample", "patient"], columns="method", values="pearson").dropna()
        means = wide.groupby(["sample", "patient"]).mean().reset_index()
        by_patient = means.groupby("patient")[[PREDICTED, *CONTROLS]].mean()
        best = by_patient[list(CONTROLS)].max(axis=1)
        gain = cluster_interval((by_patient[PREDICTED] - best).to_numpy(), list(by_patient.index))
        own = part[part["method"] == PREDICTED]
        rows.append({
            "scale_um": scale_um, "n_squares": own.groupby("sample")["n_squares"].max().sum(), "n_patients": len(by_patient),
            **by_patient.mean().to_dict(), "ceiling": own["ceiling"].mean(), "share_of_ceiling": own["share_of_ceiling"].mean(),
            "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "coverage": own["coverage"].mean(), "how": how[float(str(scale_um))],
        })  # fmt: skip
    return pd.DataFrame(rows)


def beats(summary: pd.DataFrame) -> pd.Series:
    """Scales at which predictions say more than density and colour: beyond the interval over patients where there are enough."""
    enough = summary["n_patients"] >= MIN_PATIENTS
    return (summary["gain"] > MARGIN) & (~enough | (summary["gain_low"] > 0))


def _finest(summary: pd.DataFrame) -> tuple[float | None, str]:
    ordered = summary.sort_values("scale_um")
    good = ordered[beats(ordered)]
    columns = ["scale_um", PREDICTED, *CONTROLS, "ceiling"]
    listed = "; ".join(
        f"{edge:g} µm: too few squares"
        if np.isnan(r)
        else f"{edge:g} µm: r {r:.2f}, density {density:.2f}, colour {colour:.2f}, ceiling {ceiling:.2f}"
        for edge, r, density, colour, ceiling in ordered[columns].to_numpy(np.float64)
    )
    if good.empty:
        return None, f"At no scale do predictions beat density and colour by more than {MARGIN} of r ({listed})."
    finest = float(good["scale_um"].iloc[0])
    few = "" if (ordered["n_patients"] >= MIN_PATIENTS).all() else f" (fewer than {MIN_PATIENTS} patients: no interval)"
    all_do = (
        " (the finest that was asked for: a finer one may do so too)"
        if finest == float(ordered["scale_um"].iloc[0])
        else ""
    )
    return (
        finest,
        f"The finest scale at which predictions beat density and colour is {finest:g} µm{all_do}{few} ({listed}).",
    )
