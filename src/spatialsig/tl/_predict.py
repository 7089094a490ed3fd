"""Predicted signature scores of every patch of a slide, with or without expression.

Floor 7, above evaluation. Called as sp.tl.predict; used by 4 modules of cli, datasets, pipeline, whole_slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Key, NewKey, checked
from spatialsig._checks import warn
from spatialsig.inference.domain import warn_of_slide
from spatialsig.inference.held_out import learned_from
from spatialsig.inference.inputs import ModelInputs, inputs_name
from spatialsig.inference.provenance import result_hashes
from spatialsig.models.ensemble import SignatureModel, placed, weights_hash
from spatialsig.models.intervals import bounds
from spatialsig.nn.device import FLOAT32
from spatialsig.slide.added import check_added
from spatialsig.slide.each import raise_failures, told_once, try_slides
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from spatialsig._workers import Outcome
    from spatialsig.models.domain import OutOfDomain
    from spatialsig.slide.slides import Slide

PREDICTED, SKIPPED, FAILED = "predicted", "skipped", "failed"


@checked
def predict(
    data: Data,
    model: SignatureModel,
    *,
    use_rep: Key | None = None,
    n_views: Count = 1,
    skip_done: bool = False,
    on_error: Literal["raise", "collect"] = "raise",
    device: str | None = None,
    precision: Literal["32", "bf16"] = "32",
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    key_added: NewKey = _keys.SIGNATURES_PRED,
) -> pd.DataFrame:
    """Predict the signature scores of every patch from its H&E, with or without an expression embedding.

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
        Leave slides alone whose table was made by the same weights from the same patches, inputs, views and intervals, has the
        model's signatures and is not stale (:func:`spatialsig.io.status`).
    on_error
        What becomes of slides that fail, once all others are done: an error, or (``"collect"``) a warning and their rows.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    precision
        ``"32"`` computes in float32; ``"bf16"`` multiplies in bfloat16, faster where the hardware does so (GPUs since Ampere,
        some CPUs); scores then differ a little.
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
    these inputs and views; ``obs`` and ``obsm`` as in the table of the labels, and where the model knows what its training
    patches look like, ``obs["ood"]``, how far each patch lies from them (above 1: outside), and ``obs["ood_reason"]``, in what
    (``"stain"``, ``"sharpness"``, ``"tissue"``); ``uns["spatialsig"]["predict"]`` with the inputs used, the samples the model
    learned from, hashes of weights and patches, and under ``"ood"`` the same of the slide: ``slide`` (what a fifth of
    the patches exceed), ``share`` (of the patches outside), ``reason``.

    Raises
    ------
    InputError
        If the patches were not cut as the model needs them.

    Warns
    -----
    SpatialsigWarning
        If a slide lies outside what the model learned from (``slide`` above 1), slides failed under ``on_error="collect"``, or the model was calibrated for other inputs than these.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> outcome = sp.tl.predict(sdata, model)
    >>> outcome["outcome"].tolist()
    ['predicted']
    >>> sdata["signatures_pred"].shape == (len(sdata["patches"]), 6)
    True
    """
    run = _Prediction(
        model=model, weights=weights_hash(model), intervals=intervals_for(model, use_rep, n_views), use_rep=use_rep,
        n_views=n_views, precision=precision, skip_done=skip_done, patches_key=patches_key, signatures_key=signatures_key,
        key_added=key_added,
    )  # fmt: skip
    outcomes = try_slides(data, partial(_predict, run=run, device=device), "predict")
    if on_error == "raise":
        raise_failures(outcomes)
    rows = [_row(outcome) for outcome in outcomes]
    outcome = pd.DataFrame(rows, columns=["sample", "outcome", "n_patches", "seconds", "error"])
    _warn_of_failures(outcome)
    return outcome


def _predict(slide: Slide, *, run: _Prediction, device: str | None) -> dict[str, Any]:
    with placed(run.model, device):
        return {"sample": slide.name, **run.on(slide)}


def _row(outcome: Outcome[dict[str, Any]]) -> dict[str, Any]:
    failed = {"sample": outcome.name, "outcome": FAILED, "n_patches": 0}
    error = "" if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}"
    return (outcome.value or failed) | {"seconds": outcome.seconds, "error": error}


@dataclass(frozen=True)
class _Prediction:
    """Model, options and keys that all slides share."""

    model: SignatureModel
    weights: str
    intervals: Mapping[str, Any] | None
    use_rep: str | None
    n_views: int
    precision: str
    skip_done: bool
    patches_key: str
    signatures_key: str
    key_added: str

    def on(self, slide: Slide) -> dict[str, Any]:
        """Predict one slide and write its table, unless the same result is there; what was done."""
        check_added(slide, self.key_added, made_by="tl.predict")
        patches = slide.patches(self.patches_key)
        inputs = ModelInputs.of(patches, self.model, signatures_key=self.signatures_key, use_rep=self.use_rep)
        made_by = {"inputs": inputs_name(self.use_rep), "n_views": self.n_views, "weights_sha256": self.weights}
        made_by |= {} if self.precision == FLOAT32 else {"precision": self.precision}
        made_by |= result_hashes(patches, self.model, inputs.embedding, self.intervals)
        made_by |= {} if self.model.domain is None else {"domain_sha256": self.model.domain.sha256}
        if self.skip_done and self._is_done(slide, made_by):
            return {"outcome": SKIPPED, "n_patches": len(patches)}
        table, found = self._table(inputs)
        facts = made_by | learned_from(self.model.run)
        if found is not None:
            facts[_keys.OOD] = found.as_record()
            warn_of_slide(slide.name, found, self.model)
        table.uns[_keys.NAMESPACE] = {"predict": facts}
        slide.put(self.key_added, table, made_by="tl.predict", sources=inputs.parts(self.signatures_key, self.use_rep))
        return {"outcome": PREDICTED, "n_patches": len(patches)}

    def _table(self, inputs: ModelInputs) -> tuple[ad.AnnData, OutOfDomain | None]:
        patches = inputs.patches
        mean, std, found = inputs.predict_watched(
            np.arange(len(patches)), n_views=self.n_views, precision=self.precision
        )
        table = patches.table(mean, self.model.signatures, n_cells=patches.n_cells(self.signatures_key))
        if std is not None:
            table.layers[_keys.STD] = std
        if self.intervals is not None:
            table.layers[_keys.LOWER], table.layers[_keys.UPPER] = bounds(self.intervals, mean, std)
        if found is not None:
            table.obs[_keys.OOD], table.obs[_keys.OOD_REASON] = found.ood, pd.Categorical(found.reason)
        return table, found

    def _is_done(self, slide: Slide, made_by: Mapping[str, Any]) -> bool:
        if self.key_added not in slide.sdata.tables:
            return False
        names = tuple(slide.sdata.tables[self.key_added].var_names)
        lineage = slide.lineage
        if names != self.model.signatures or any(lineage.stale(self.key_added)) or lineage.is_edited(self.key_added):
            return False
        recorded = slide.params(self.key_added).get("predict", {})
        wanted = {"precision": None, **made_by}
        return all(recorded.get(name) == value for name, value in wanted.items())


def intervals_for(model: SignatureModel, use_rep: str | None, n_views: int) -> Mapping[str, Any] | None:
    """Intervals that fit what is asked for; None, with a warning, where the model was calibrated for something else."""
    if model.intervals is None:
        return None
    record = model.intervals.get(inputs_name(use_rep))
    if record is not None and record["n_views"] == n_views:
        return dict(record)
    calibrated = ", ".join(f"{inputs!r} with n_views={r['n_views']}" for inputs, r in model.intervals.items())
    warn(
        f"the model was calibrated for {calibrated}, not for {inputs_name(use_rep)!r} with n_views={n_views}: no intervals "
        "are written. Call `sp.tl.calibrate` with the same `use_rep` and `n_views`."
    )
    return None


def _warn_of_failures(outcome: pd.DataFrame) -> None:
    failed = outcome[outcome["outcome"] == FAILED]
    if len(failed):
        listed = told_once(dict(zip(failed["sample"], failed["error"], strict=True)))
        msg = f"{len(failed)} of {len(outcome)} slides could not be predicted:\n{listed}"
        warn(msg)
