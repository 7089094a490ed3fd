"""Signs of doubt on the scores of each slide, and errors on slides with labels.

Floor 5, above slide. Used by inference/decisions, tl/_triage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig.errors import InputError, LeakageError, StaleError
from spatialsig.inference.held_out import labels_for, refuse_training_slide
from spatialsig.inference.inputs import inputs_name
from spatialsig.models.ensemble import members_of, weights_hash
from spatialsig.models.triage import Calibration
from spatialsig.slide.seen import PATIENTS, SAMPLES
from spatialsig.stats.agreement import pearson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide

MIN_LABELLED = 10  # patches, below which a slide tells nothing of its errors


@dataclass(frozen=True)
class Signs:
    """What makes the scores of a slide suspect; all of them 0 where nothing does."""

    sample: str
    patient: str
    ood: float
    width: NDArray[np.float64]  # (n_signatures,), mean deviation in deviations of the training scores
    failed: float  # share of patches that fail quality control; NaN where it was not measured
    made_of: str  # what ood and width are, in words: scores of other signs are not compared
    map: NDArray[np.float64]  # map, mean: as of :class:`Calibration`; NaN without labels
    mean: NDArray[np.float64]

    def score(self, *, qc: bool) -> NDArray[np.float64]:
        """How suspect the slide looks, ``(n_signatures,)``."""
        return self.ood + self.width + (self.failed if qc else 0.0)


def signs_of(
    slide: Slide,
    *,
    model: SignatureModel,
    use_rep: str | None,
    predictions_key: str,
    patches_key: str,
    signatures_key: str | None,
) -> Signs:
    """Signs of doubt on a predicted slide, and with ``signatures_key`` its errors against the labels there.

    Raises
    ------
    InputError
        If another model, or the same with other inputs, made the predictions.
    """
    patches = slide.patches(patches_key)
    matrix = patches.matrix(predictions_key, name="predictions_key", fix="Call `sp.tl.predict` first.")
    record = slide.step(predictions_key, "predict", fix="Call `sp.tl.predict` first.")
    _check_made_by(slide.name, record, model, use_rep)
    target_std = np.asarray(members_of(model)[0].target_std, np.float64)
    passed = patches.shapes.get(_keys.QC_PASS)
    ood = float(record.get(_keys.OOD, {}).get("slide", 0.0))
    layers = slide.table(predictions_key).layers
    return Signs(
        sample=slide.name, patient=slide.patient, ood=ood if np.isfinite(ood) else 0.0,
        width=_width(layers) / target_std, made_of=_made_of(layers, record),
        failed=float("nan") if passed is None else float(1 - np.asarray(passed, bool).mean()),
        **_errors(patches, model, matrix.values, target_std, signatures_key),
    )  # fmt: skip


def _check_made_by(name: str, record: dict[str, Any], model: SignatureModel, use_rep: str | None) -> None:
    inputs = inputs_name(use_rep)
    if record.get("weights_sha256") != weights_hash(model):
        msg = f"slide {name!r}: its predictions are of another model than the one given; call `sp.tl.predict` with this one."
        raise StaleError(msg)
    if record.get("inputs") != inputs:
        msg = f"slide {name!r} was predicted from {record.get('inputs')!r}, and `use_rep={use_rep!r}` asks for {inputs!r}; give that `use_rep`."
        raise InputError(msg)


def _width(layers: Any) -> NDArray[np.float64]:
    """Mean deviation of each signature, or half of its interval where there is no deviation; 0 where the model knows neither."""
    if _keys.STD in layers:
        width: NDArray[np.float64] = np.asarray(layers[_keys.STD], np.float64).mean(axis=0)
        return width
    if _keys.UPPER in layers:
        half = (np.asarray(layers[_keys.UPPER], np.float64) - np.asarray(layers[_keys.LOWER], np.float64)) / 2
        return np.asarray(np.nan_to_num(half.mean(axis=0)))
    return np.zeros(1)


def _made_of(layers: Any, record: dict[str, Any]) -> str:
    """What the signs of a slide are, in words."""
    width = "no width"
    if _keys.STD in layers:
        width = f"deviations of {record.get('n_views', 1)} view(s)"
    elif _keys.UPPER in layers:
        width = f"intervals {str(record.get('intervals_sha256'))[:8]}"
    return f"{width}, {'an' if _keys.OOD in record else 'no'} out-of-distribution score"


def _errors(
    patches: Patches, model: SignatureModel, predicted: NDArray[Any], target_std: NDArray[np.float64], key: str | None
) -> dict[str, NDArray[np.float64]]:
    unknown = np.full(len(model.signatures), np.nan)
    if key is None:
        return {"map": unknown, "mean": unknown}
    labels = labels_for(patches, key, model)
    if labels.names != list(model.signatures):
        msg = (
            f"slide {patches.slide.name!r} has the signatures {labels.names}, the model {list(model.signatures)}; call "
            "`sp.tl.score_cells` with the signatures the model was trained on."
        )
        raise InputError(msg)
    truth = labels.values.astype(np.float64)
    known = np.isfinite(truth)
    enough = known.sum(axis=0) >= MIN_LABELLED
    guess = np.where(known, predicted.astype(np.float64), np.nan)
    with np.errstate(invalid="ignore"):
        n = np.maximum(known.sum(axis=0), 1)
        apart = np.abs(np.where(known, guess - truth, 0).sum(axis=0)) / n / target_std
    return {"map": np.where(enough, pearson(truth, guess), np.nan), "mean": np.where(enough, apart, np.nan)}


def was_learned_from(slide: Slide, model: SignatureModel) -> bool:
    """Whether the slide or another one of its patient trained the model."""
    return slide.patient in model.run.get(PATIENTS, ()) or slide.name in model.run.get(SAMPLES, ())


def calibration_signs(slide: Slide, *, model: SignatureModel, **keys: Any) -> Signs:
    """Signs and errors of a slide that the model has not learned from, nor from its patient; others are refused.

    Raises
    ------
    LeakageError
        If the model learned from it.
    """
    refuse_training_slide(slide, model, None, what="triage")
    if was_learned_from(slide, model):
        msg = (
            f"slide {slide.name!r} is of patient {slide.patient!r}, from whom the model learned: its errors are too small to "
            "calibrate with. Give slides of patients that were held out."
        )
        raise LeakageError(msg)
    return signs_of(slide, model=model, **keys)


def calibration_of(signs: Sequence[Signs]) -> Calibration:
    """The calibration that slides with labels make; patch quality counts where all of them have it.

    Raises
    ------
    InputError
        If slides were predicted with different signs of doubt.
    """
    for of_slide in signs:
        check_signs(of_slide, signs[0].made_of, f"calibration slide {signs[0].sample!r}")
    qc = all(np.isfinite(of_slide.failed) for of_slide in signs)
    return Calibration(
        samples=np.array([of_slide.sample for of_slide in signs]),
        patients=np.array([of_slide.patient for of_slide in signs]),
        ood=np.array([of_slide.ood for of_slide in signs]),
        score=np.stack([np.broadcast_to(of_slide.score(qc=qc), of_slide.map.shape) for of_slide in signs]),
        map=np.stack([of_slide.map for of_slide in signs]),
        mean=np.stack([of_slide.mean for of_slide in signs]),
        qc=qc,
        signs=signs[0].made_of,
    )


def check_signs(signs: Signs, wanted: str, whose: str) -> None:
    """Raise :class:`InputError` where a slide was predicted with other signs of doubt than wanted."""
    if wanted and signs.made_of != wanted:
        msg = (
            f"slide {signs.sample!r} was predicted with {signs.made_of}, {whose} with {wanted}: their scores of doubt do not compare. Call "
            "`sp.tl.predict` with this model on all slides again, with the same options."
        )
        raise InputError(msg)
