"""Slides that a network, an autoencoder or a table of features has learned from, compared with those that are held out.

Floor 4, above train. Used by 11 modules of evaluation, expression, inference, tl.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spatialsig._checks import first_few, warn
from spatialsig.slide.folds import INSIDE
from spatialsig.slide.slides import learn_from, recorded_slides

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from spatialsig.slide.slides import Data

SEEN = "seen"  # in the record of a step that a model made: the slides and patients that the model has learned from
SAMPLES, PATIENTS = "training_samples", "training_patients"  # in the run of a model


def patients_of(data: Data, samples: Collection[str]) -> list[str]:
    """Patients of some slides, once each."""
    return sorted({slide.patient for slide in recorded_slides(learn_from(data)) if slide.name in samples})


def seen_by(run: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the run of a model says it has learned from, as text for the record of what it makes; empty where it does not say."""
    return {name: list(map(str, run[name])) for name in (SAMPLES, PATIENTS) if run.get(name)}


def noted(run: Mapping[str, Any]) -> dict[str, str]:
    """The same for the record of a step, in a form that every store keeps; of a step whose model says nothing, nothing."""
    seen = seen_by(run)
    return {SEEN: json.dumps(seen)} if seen else {}


def read_note(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """What :func:`noted` wrote; empty where there is none, or something else."""
    try:
        seen = json.loads(str(record.get(SEEN, "{}")))
    except ValueError:
        return {}
    return seen_by(seen) if isinstance(seen, dict) else {}


def seen_of(
    slides: Iterable[tuple[str, str, Mapping[str, Any]]], seen: Mapping[str, list[str]], held_out: Collection[int]
) -> list[str]:
    """Those slides (name, patient, how it was split) of folds held out that were learned from, or whose patient was."""
    return [
        f"{name} of patient {patient}"
        for name, patient, split in slides
        if split.get("by", "block") not in INSIDE and split.get("fold") is not None and int(split["fold"]) in held_out
        if name in seen.get(SAMPLES, ()) or patient in seen.get(PATIENTS, ())
    ]


def warn_of_seen(data: Data, what: str, seen: Mapping[str, list[str]], held_out: Collection[int]) -> list[str]:
    """Warn that something has learned from slides that are held out, by their names; returns those."""
    slides = ((slide.name, slide.patient, slide.attrs.get("split", {})) for slide in recorded_slides(learn_from(data)))
    found = seen_of(slides, seen, held_out)
    if found:
        warn(f"{what} {text_of_seen(found)}")
    return found


def text_of_seen(found: list[str]) -> str:
    """End of a sentence on held-out slides that something has learned from."""
    return (
        f"has learned from {first_few(found)}, which {'is' if len(found) == 1 else 'are'} held out here, so they are not unseen. "
        "Take one that was trained with the same patients left out; if these are others of the same names, give the slides names "
        "of their own."
    )
