"""What the report shows of each slide; slides are opened one after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from spatialsig import _keys, pl
from spatialsig._progress import track
from spatialsig.data.patch_table import patch_spec
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.report.images import picture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

    from spatialsig.data.slides import Data, Slide

MAPS_MAX_CHARS = 14_000_000  # of all maps together, so that the file stays below 20 MB


@dataclass(frozen=True)
class Names:
    """Elements of each slide that the report reads."""

    patches_key: str = _keys.PATCHES
    signatures_key: str = _keys.SIGNATURES
    predictions_key: str = _keys.SIGNATURES_PRED
    table_key: str = _keys.TABLE


@dataclass
class SlideReport:
    """One slide: a line of the cohort table, and maps if it was held out."""

    name: str
    patient: str
    role: str  # "held out" or "training"
    fold: str
    n_cells: int | None
    n_patches: int
    n_labelled: int
    median_cells: float
    median_counts: float
    maps: dict[str, Markup] = field(default_factory=dict)  # signature -> picture
    left_out: list[str] = field(default_factory=list)  # signatures whose map did not fit into the file


@dataclass(frozen=True)
class Chosen:
    """Some of the slides of a cohort."""

    stores: Mapping[str, Path]


def held_out_data(cohort: Data, samples: set[str]) -> Data:
    """The part of a cohort that was held out; a single slide is returned as it is."""
    if not hasattr(cohort, "stores"):
        return cohort
    return Chosen({name: path for name, path in cohort.stores.items() if name in samples})


def read_slides(
    cohort: Data, signatures: list[str], samples: set[str], *, names: Names, test_fold: int | None
) -> tuple[list[SlideReport], dict[str, Any]]:
    """Go through the cohort once: a report of each slide, and the parameters its steps recorded."""
    reports: list[SlideReport] = []
    facts: dict[str, Any] = {}
    spent = 0
    for slide in track(open_slides(cohort), "report", total=slide_count(cohort), unit="slide"):
        report = _describe(slide, names, held_out=slide.name in samples)
        facts = facts or _facts(slide, names)
        if slide.name in samples:
            spent += _add_maps(report, slide, signatures, names, _block_fold(slide, test_fold), MAPS_MAX_CHARS - spent)
        reports.append(report)
    return reports, facts


def _block_fold(slide: Slide, test_fold: int | None) -> int | None:
    """Fold to show: only a slide cut into blocks holds training patches beside the held-out ones."""
    return test_fold if slide.attrs.get("split", {}).get("by") == "block" else None


def _describe(slide: Slide, names: Names, *, held_out: bool) -> SlideReport:
    split = slide.attrs.get("split", {})
    by_block = split.get("by") == "block"
    labels = slide.sdata.tables.get(names.signatures_key)
    measured = np.zeros(0, bool) if labels is None else np.isfinite(np.asarray(labels.X)).any(axis=1)
    cells = slide.sdata.tables.get(names.table_key)

    def median(column: str) -> float:
        if labels is None or column not in labels.obs or not measured.any():
            return np.nan
        return float(np.median(labels.obs[column].to_numpy(float)[measured]))

    return SlideReport(
        name=slide.name,
        patient=slide.patient,
        role=("held-out blocks" if by_block else "held out") if held_out else "training",
        fold="blocks" if by_block else str(split.get("fold", "")),
        n_cells=None if cells is None else cells.n_obs,
        n_patches=len(slide.sdata.shapes[names.patches_key]) if names.patches_key in slide.sdata.shapes else 0,
        n_labelled=int(measured.sum()),
        median_cells=median(_keys.N_CELLS),
        median_counts=median(_keys.N_COUNTS),
    )


def _add_maps(
    report: SlideReport, slide: Slide, signatures: list[str], names: Names, fold: int | None, chars_left: int
) -> int:
    """Draw the maps of a held-out slide as long as they fit; returns the characters they take."""
    spent = 0
    data = slide.sdata if slide.attrs.get("sample") or slide.path is None else slide.path  # only the path has the name
    for signature in signatures:
        if spent >= chars_left:
            report.left_out.append(signature)
            continue
        figure = Figure()
        pl.compare(
            data, signature, figure=figure, fold=fold, patches_key=names.patches_key,
            signatures_key=names.signatures_key, predictions_key=names.predictions_key,
        )  # fmt: skip
        report.maps[signature] = picture(figure, alt=f"{signature} on {slide.name}: measured, predicted, difference")
        spent += len(report.maps[signature])
    return spent


def _facts(slide: Slide, names: Names) -> dict[str, Any]:
    """What the steps recorded about themselves on a slide; empty for what was not done."""
    facts: dict[str, Any] = {"split": dict(slide.attrs.get("split", {}))}
    if names.patches_key in slide.sdata.shapes:
        facts["patches"] = patch_spec(slide, names.patches_key)
    for key in (names.table_key, names.signatures_key, names.predictions_key):
        if key in slide.sdata.tables:
            facts |= slide.params(key)
    return facts
