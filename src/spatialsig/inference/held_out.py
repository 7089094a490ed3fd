"""Whether slides, labels and predictions may judge a model: what it has learned from, and what is measured otherwise, is refused.

Floor 5, above slide. Used by 9 modules of evaluation, inference, maps, tl, whole_slides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig.errors import LeakageError, StaleError
from spatialsig.inference.provenance import FOLDS_OF, GENE_SETS, INPUTS, LEFT_OUT, TARGETS, check_same, recorded
from spatialsig.slide.folds import is_split_inside
from spatialsig.slide.parts import FOLDS
from spatialsig.slide.seen import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide
    from spatialsig.slide.table_rows import PatchMatrix

_LABELS = "the labels that the model learned"
HELD_OUT = "held_out_folds"
LEARNED = (SAMPLES, HELD_OUT, TARGETS)  # what the record of a table of predictions says of the models that made it


def check_labels(slide: Slide, model: SignatureModel, signatures_key: str) -> None:
    """Refuse to judge a model by labels of other genes or of another method than those it learned.

    Raises
    ------
    InputError
        Listing the differences.
    """
    here = recorded(slide, targets_key=signatures_key)
    check_same(model.run.get(INPUTS, {}), here, slide=slide.name, other=_LABELS)


def labels_for(patches: Patches, signatures_key: str, model: SignatureModel | None) -> PatchMatrix:
    """Labels of the signatures that a model predicts: without those that it left out, as no training slide measured them.

    Raises
    ------
    InputError
        As :func:`check_labels`.
    """
    labels = patches.labels(signatures_key)
    if model is None:
        return labels
    check_labels(patches.slide, model, signatures_key)
    return labels.without(model.run.get(LEFT_OUT, ()))


def check_folds(slide: Slide, model: SignatureModel) -> None:
    """Refuse to judge a model on folds that were assigned after it was trained: it may have learned from what they hold out.

    Raises
    ------
    StaleError
        If the slide was split again.
    """
    split = model.run.get(FOLDS_OF, {}).get(slide.name)
    if split is not None and split != slide.lineage.fingerprint(FOLDS):
        msg = (
            f"slide {slide.name!r}: its folds were assigned again after the model was trained, so it may have learned from what "
            "is held out now; call `sp.tl.train_vit` again."
        )
        raise StaleError(msg)


def refuse_training_slide(slide: Slide, model: SignatureModel, fold: int | None, *, what: str = "calibrate") -> None:
    """Slides the model learned from are refused, unless only blocks of them that were held out are used.

    Raises
    ------
    LeakageError
        If the errors on the slide are too small to learn anything from.
    """
    check_folds(slide, model)
    if slide.name not in model.run.get(SAMPLES, []):
        return
    kept_out = [model.run.get("test_fold"), model.run.get("validation_fold")]
    if is_split_inside(slide) and fold is not None and fold in kept_out:
        return
    on = f" (`fold={fold}`)" if what == "calibrate" else ""
    msg = (
        f"slide {slide.name!r} trained the model, so its errors are too small to calibrate with{on}. Train "
        "with `validation_fold=`, which is then calibrated on, or give slides that the model has not seen."
    )
    raise LeakageError(msg)


def learned_from(*runs: Mapping[str, Any]) -> dict[str, Any]:
    """Slides that models learned from, folds that all of them left out, and what their scores are: kept with predictions."""
    folds = [{run[name] for name in ("test_fold", "validation_fold") if run.get(name) is not None} for run in runs]
    samples = dict.fromkeys(str(name) for run in runs for name in run.get(SAMPLES, ()))
    scores = runs[0].get(INPUTS, {}).get(TARGETS, {})
    kept = {name: scores[name] for name in ("method", GENE_SETS) if name in scores}
    return {SAMPLES: list(samples), HELD_OUT: sorted(set.intersection(*folds)), **({TARGETS: kept} if kept else {})}


def check_judged(
    slide: Slide, record: Mapping[str, Any], fold: int | None, *, labels_key: str | None, what: str
) -> None:
    """Predictions for a slide that their model learned from judge nothing, unless of a block that was held out, nor do other labels.

    Parameters
    ----------
    record
        Of the predictions, with :func:`learned_from`.
    labels_key
        Table whose record says how the labels were made; None compares none.
    what
        Function that judges.

    Raises
    ------
    LeakageError
        If the model learned from what is judged.
    InputError
        If the labels are of another method or of other genes than the model's.
    """
    if labels_key is not None and TARGETS in record:
        here = recorded(slide, targets_key=labels_key)
        check_same({TARGETS: record[TARGETS]}, here, slide=slide.name, other=_LABELS)
    if slide.name not in record.get(SAMPLES, ()):
        return
    if (
        is_split_inside(slide) and fold is not None and fold in record.get(HELD_OUT, (fold,))
    ):  # early records do not say
        return
    msg = (
        f"slide {slide.name!r} trained the model that predicted it, so `{what}` would flatter it. Give slides that were held out"
        f"{f' (`test_fold={fold}` was not)' if fold is not None else ''}."
    )
    raise LeakageError(msg)
