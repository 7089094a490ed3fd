"""Slides whose scores may be taken as they are, that somebody should look at, and that should not be used.

Floor 7, above evaluation. Called as sp.tl.triage; used by cli/trust_commands.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Key, NotNegative, Share, checked
from spatialsig.errors import InputError
from spatialsig.inference.decisions import decided, thresholds
from spatialsig.inference.inputs import inputs_name
from spatialsig.inference.triage import calibration_of, calibration_signs, signs_of, was_learned_from
from spatialsig.models.ensemble import SignatureModel
from spatialsig.models.triage import TOLERANCE, Calibration
from spatialsig.slide.each import map_slides
from spatialsig.slide.slides import Data, Slide

TRIAGE = "triage"


@checked
def triage(
    data: Data,
    model: SignatureModel,
    *,
    calibration: Data | None = None,
    error_rate: Share = 0.1,
    error: Literal["map", "mean"] = "map",
    tolerance: NotNegative | None = None,
    use_rep: Key | None = None,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
) -> pd.DataFrame:
    """Accept, review or reject each predicted slide and signature, at an error rate that you state.

    A slide looks the more suspect, the farther it lies from what the model learned from (``ood``, see :func:`predict`), the wider
    its deviations or intervals are, and the more of its patches fail quality control: their sum is its ``score``. Slides of a smaller
    score than the threshold are accepted. Thresholds come from conformal risk control [1]_ on held-out patients with labels: of
    all slides and for each signature, at most ``error_rate`` are accepted although they are wrong, on average over
    calibration sets, *if the patients of new slides are drawn as those of the calibration slides were*. By the same rule, at most
    ``error_rate`` are rejected although they are right. Slides outside what the model learned from are never accepted. The rate is one
    of all slides: where more than half of the accepted calibration slides were wrong, or none was accepted, slides are for review,
    and so are suspect ones where the rejected calibration slides were not mostly wrong.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, after :func:`predict` with this model.
    model
        Model that predicted them; ``triage`` is written where ``calibration`` is given, and saved with the model.
    calibration
        Slides with labels of patients that the model has not learned from, after :func:`predict`; ``None`` takes those that
        the model carries. Tuning on them, the choice of epochs included, makes their errors a little too small.
    error_rate
        Share of slides that may be accepted although they are wrong; also of those rejected although right. ``1 / error_rate - 1``
        calibration patients are needed: 9 for 0.1, 19 for 0.05.
    error
        When a slide is wrong: ``"map"``, its Pearson r over labelled patches lies below ``tolerance``; ``"mean"``, its mean score
        lies farther than ``tolerance`` from the measured mean, in standard deviations of the training scores.
    tolerance
        See ``error``; None takes 0.5 for both.
    use_rep
        As of :func:`predict`: which predictions these are.
    patches_key, signatures_key, predictions_key
        Patches, table of the labels (of ``calibration`` only), table of the predictions.

    Returns
    -------
    One row per slide and signature: ``sample``, ``patient``, ``signature``, ``decision`` (``"accept"``, ``"review"``,
    ``"reject"``; slides the model learned from are for review), ``reason``, ``score`` and its parts ``ood``, ``width`` (mean deviation, in those of the training scores) and ``failed``
    (share of patches; NaN where quality was not measured), ``accept_below`` and ``reject_above``, ``measured_error``
    and ``measured_accepted`` (of the calibration patients, each judged by thresholds from the others: share accepted and
    wrong, and accepted; NaN where these are too few), ``n_patients`` (that have labels of it), and how many calibration slides
    were accepted and rejected (``n_accepted``, ``n_rejected``; by the same thresholds, or where patients are too few by those that
    hold here) and how many of these were wrong (``n_accepted_wrong``, ``n_rejected_wrong``), which ``reason`` says as well.

    Writes ``tables[predictions_key].uns["spatialsig"]["triage"]`` with the same, rate, error and tolerance.

    Raises
    ------
    InputError
        If there are too few calibration patients for the rate, or slides were predicted from other inputs.
    LeakageError
        If the model learned from a calibration slide or its patient.
    StaleError
        If another model made the predictions.
    KeyMissingError
        If a slide was not predicted.

    References
    ----------
    .. [1] Angelopoulos AN, Bates S, Fisch A, Lei L, Schuster T. Conformal risk control. International Conference on
       Learning Representations (2024). https://doi.org/10.48550/arXiv.2208.02814

    Examples
    --------
    >>> import spatialsig as sp
    >>> model = sp.datasets.toy_model(sp.datasets.toy_study())
    >>> new, held_out = (sp.datasets.toy_study(seed=k, sample=f"S{k}", patient=f"P{k}") for k in (2, 3))
    >>> for slide in (new, held_out):
    ...     outcome = sp.tl.predict(slide, model)
    >>> decisions = sp.tl.triage(new, model, calibration=held_out, error_rate=0.5)
    >>> bool(decisions["decision"].isin(["accept", "review", "reject"]).all())
    True
    """
    keys: dict[str, Any] = {"use_rep": use_rep, "predictions_key": predictions_key, "patches_key": patches_key}
    inputs = inputs_name(use_rep)
    if calibration is not None:
        work = partial(calibration_signs, model=model, signatures_key=signatures_key, **keys)
        found = calibration_of(map_slides(calibration, work, "calibrate triage"))
    else:
        found = _carried(model, inputs)
    tolerance = TOLERANCE[error] if tolerance is None else float(tolerance)
    limits = thresholds(found, model.signatures, error=error, tolerance=tolerance, rate=error_rate)
    if calibration is not None:
        model.triage = (model.triage or {}) | {inputs: found}
    facts = {"error_rate": float(error_rate), "error": error, "tolerance": tolerance, "inputs": inputs}
    judge = partial(_judge, model=model, calibration=found, limits=limits, facts=facts, **keys)
    return pd.concat(map_slides(data, judge, "triage"), ignore_index=True)


def _judge(
    slide: Slide, *, model: SignatureModel, calibration: Calibration, limits: dict[str, Any], facts: dict[str, Any],
    predictions_key: str, **keys: Any,
) -> pd.DataFrame:  # fmt: skip
    signs = signs_of(slide, model=model, predictions_key=predictions_key, signatures_key=None, **keys)
    table = decided(signs, calibration, limits, model.signatures, seen=was_learned_from(slide, model))
    columns = {name: np.asarray(table[name].tolist()) for name in table if name not in (_keys.SAMPLE, _keys.PATIENT)}
    slide.params(predictions_key)[TRIAGE] = facts | columns
    slide.commit_table(predictions_key, steps=[TRIAGE])
    return table


def _carried(model: SignatureModel, inputs: str) -> Calibration:
    """Calibration that the model carries for these inputs."""
    found = (model.triage or {}).get(inputs)
    if found is None:
        there = f"; it carries some for {', '.join(model.triage)}" if model.triage else ""
        msg = (
            f"the model carries no calibration slides for {inputs!r}{there}. Give `calibration` predicted slides with labels of held-out "
            "patients, such as `cohort.subset([...])`."
        )
        raise InputError(msg)
    return found
