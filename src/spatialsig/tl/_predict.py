"""Predict signature scores for every patch of a slide, with or without expression."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._checks import check_choice, check_key
from spatialsig._errors import InputError, SpatialsigError, SpatialsigWarning
from spatialsig._progress import progress_bar
from spatialsig.data.features import in_batches, input_source
from spatialsig.data.patch_table import patch_spec, patch_table
from spatialsig.data.prefetch import ahead
from spatialsig.data.slides import Stores, open_slides
from spatialsig.models.ensemble import predict_with_deviation, weights_hash
from spatialsig.models.intervals import bounds
from spatialsig.nn.heap import kept_memory
from spatialsig.tl._done import fingerprint
from spatialsig.tl._provenance import backbone_of, check_inputs, features_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide
    from spatialsig.models.ensemble import SignatureModel

BATCH = 64
AHEAD = 2  # batches read while one is computed
_ERRORS = (SpatialsigError, OSError, ValueError, KeyError, RuntimeError, TypeError)  # what a bad slide can raise
PREDICTED, SKIPPED, FAILED = "predicted", "skipped", "failed"


def predict(
    data: Data,
    model: SignatureModel,
    *,
    use_rep: str | None = None,
    n_views: int = 1,
    skip_done: bool = False,
    on_error: str = "raise",
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    key_added: str = _keys.SIGNATURES_PRED,
) -> pd.DataFrame:
    """Predict the signature scores of every patch.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place. Slides need an H&E with patches, nothing else.
    model
        Trained model, or an ensemble of them.
    use_rep
        Patch embedding in ``tables[signatures_key].obsm`` to give to the model; ``None`` (default) predicts from the
        H&E alone.
    n_views
        Average over that many turned and mirrored views of each patch: 1, 2, 4 or 8. The time grows with it.
    skip_done
        Leave slides alone whose table was made by the same weights from the same patches, inputs, views and intervals.
    on_error
        ``"raise"`` stops at the first slide that fails; ``"collect"`` goes on, warns at the end, and lists it.
    patches_key, signatures_key
        Shapes element of the patches, table of the labels (only read for ``use_rep`` and the number of cells).
    key_added
        Name of the new table; a table of that name is replaced.

    Returns
    -------
    One row per slide: ``sample``, ``outcome`` (``"predicted"``, ``"skipped"`` or ``"failed"``), ``n_patches``,
    ``seconds``, ``error`` (empty where there was none).

    Writes ``tables[key_added]``, one row per patch: ``X`` predicted scores float32; ``layers["std"]`` where the model
    knows its uncertainty, ``layers["lower"]`` and ``layers["upper"]`` where it was calibrated (:func:`calibrate`) for
    these inputs and views; ``obs`` and ``obsm`` as in the table of the labels; ``uns["spatialsig"]["predict"]`` with the
    inputs used, the samples the model learned from, and hashes of weights and patches.

    Raises
    ------
    InputError
        If the patches were not cut as the model needs them.

    Warns
    -----
    SpatialsigWarning
        If slides failed under ``on_error="collect"``, or the model was calibrated for other inputs than these.
    """
    check_choice(on_error, ("raise", "collect"), name="on_error")
    intervals = intervals_for(model, use_rep, n_views)
    weights = weights_hash(model)
    rows = []
    for name, part in _one_by_one(data):
        started, row = time.perf_counter(), {"sample": name, "outcome": FAILED, "n_patches": 0, "error": ""}
        try:
            (slide,) = open_slides(part)
            row["sample"] = slide.name
            check_patches(slide, model, patches_key)
            check_inputs(slide, model, use_rep=use_rep, signatures_key=signatures_key, patches_key=patches_key)
            embedding = patch_embedding(slide, signatures_key, use_rep)
            made_by = {"inputs": inputs_name(use_rep), "n_views": n_views, "weights_sha256": weights}
            made_by |= fingerprint(slide, patches_key, embedding, intervals) | features_hash(slide, model, patches_key)
            row["n_patches"] = len(slide.sdata.shapes[patches_key])
            if skip_done and _is_done(slide, key_added, made_by):
                row["outcome"] = SKIPPED
            else:
                table = _predicted(slide, model, patches_key, signatures_key, embedding, n_views, intervals)
                samples = list(model.run.get("training_samples", []))
                table.uns[_keys.NAMESPACE] = {"predict": made_by | {"training_samples": samples}}
                slide.put(key_added, table)
                row["outcome"] = PREDICTED
        except _ERRORS as error:
            if on_error == "raise":
                raise
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row | {"seconds": time.perf_counter() - started})
    outcome = pd.DataFrame(rows, columns=["sample", "outcome", "n_patches", "seconds", "error"])
    _warn_of_failures(outcome)
    return outcome


def predict_rows(
    slide: Slide,
    model: SignatureModel,
    patches_key: str,
    rows: NDArray[np.int64],
    embedding: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Scores ``(len(rows), n_signatures)`` of chosen patches; ``embedding`` has one row for each of ``rows``."""
    return predict_rows_with_deviation(slide, model, patches_key, rows, embedding, n_views=1)[0]


def predict_rows_with_deviation(
    slide: Slide,
    model: SignatureModel,
    patches_key: str,
    rows: NDArray[np.int64],
    embedding: NDArray[np.float32] | None,
    *,
    n_views: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Scores and, where the model knows it, their deviation; patches are read while others are computed."""
    source = input_source(slide, patches_key, backbone_of(model), rows)
    mean = np.empty((len(rows), len(model.signatures)), np.float32)
    std = np.empty_like(mean) if model.knows_uncertainty else None
    with kept_memory(), progress_bar(f"predict {slide.name}", total=len(rows), unit="patch") as bar:
        for chosen, images in ahead(in_batches(source, BATCH), depth=AHEAD):
            given = None if embedding is None else embedding[chosen]
            mean[chosen], spread = predict_with_deviation(model, images, given, n_views=n_views)
            if std is not None:
                std[chosen] = spread
            bar.advance(len(chosen))
    return mean, std


def check_patches(slide: Slide, model: SignatureModel, patches_key: str) -> None:
    """Refuse patches of another size or resolution than the model was trained on."""
    spec = patch_spec(slide, patches_key)
    if (spec.patch_px, spec.um_per_px) != (model.patch_px, model.um_per_px):
        msg = (
            f"slide {slide.name!r}: patches are {spec.patch_px} px at {spec.um_per_px} µm/px; the model wants "
            f"{model.patch_px} px at {model.um_per_px} µm/px. Call `sp.pp.make_patches(slide, "
            f"patch_px={model.patch_px}, um_per_px={model.um_per_px})`."
        )
        raise InputError(msg)


def patch_embedding(slide: Slide, signatures_key: str, use_rep: str | None) -> NDArray[np.float32] | None:
    """Embedding of every patch, ``(n_patches, d)``, or None when none is asked for."""
    if use_rep is None:
        return None
    table = slide.table(signatures_key, name="signatures_key")
    check_key(table.obsm, use_rep, name="use_rep", where=f"the obsm of {signatures_key!r} of slide {slide.name!r}")
    return np.asarray(table.obsm[use_rep], np.float32)


def inputs_name(use_rep: str | None) -> str:
    """What a prediction is made from, in words."""
    return "H&E" if use_rep is None else f"H&E + {use_rep}"


def intervals_for(model: SignatureModel, use_rep: str | None, n_views: int) -> Mapping[str, Any] | None:
    """Intervals that fit what is asked for; None, with a warning, where the model was calibrated for something else."""
    if model.intervals is None:
        return None
    record = model.intervals.get(inputs_name(use_rep))
    if record is not None and record["n_views"] == n_views:
        return dict(record)
    known = ", ".join(f"{inputs!r} with n_views={r['n_views']}" for inputs, r in model.intervals.items())
    warnings.warn(
        f"the model was calibrated for {known}, not for {inputs_name(use_rep)!r} with n_views={n_views}: no intervals "
        "are written. Call `sp.tl.calibrate` with the same `use_rep` and `n_views`.",
        SpatialsigWarning,
        stacklevel=3,
    )
    return None


def _predicted(
    slide: Slide,
    model: SignatureModel,
    patches_key: str,
    signatures_key: str,
    embedding: NDArray[np.float32] | None,
    n_views: int,
    intervals: Mapping[str, Any] | None,
) -> Any:
    rows = np.arange(len(slide.sdata.shapes[patches_key]))
    mean, std = predict_rows_with_deviation(slide, model, patches_key, rows, embedding, n_views=n_views)
    table = patch_table(slide, patches_key, mean, model.signatures, n_cells=n_cells_of(slide, signatures_key))
    if std is not None:
        table.layers[_keys.STD] = std
    if intervals is not None:
        table.layers[_keys.LOWER], table.layers[_keys.UPPER] = bounds(intervals, mean, std)
    return table


def n_cells_of(slide: Slide, signatures_key: str) -> NDArray[np.int64] | None:
    """Cells of every patch; None on a slide without labels."""
    if signatures_key not in slide.sdata.tables:
        return None
    return np.asarray(slide.sdata.tables[signatures_key].obs[_keys.N_CELLS])


def _is_done(slide: Slide, key: str, made_by: Mapping[str, Any]) -> bool:
    if key not in slide.sdata.tables:
        return False
    found = slide.params(key).get("predict", {})
    return all(found.get(name) == value for name, value in made_by.items())


def _one_by_one(data: Data) -> Iterator[tuple[str, Data]]:
    """Slides to be opened one at a time, so that one that cannot be opened leaves the others alone."""
    if isinstance(data, Stores):
        yield from data.stores.items()
    else:
        yield "", data


def _warn_of_failures(outcome: pd.DataFrame) -> None:
    failed = outcome[outcome["outcome"] == FAILED]
    if len(failed):
        listed = "\n".join(f"  {sample}: {why}" for sample, why in zip(failed["sample"], failed["error"], strict=True))
        msg = f"{len(failed)} of {len(outcome)} slides could not be predicted:\n{listed}"
        warnings.warn(msg, SpatialsigWarning, stacklevel=3)
