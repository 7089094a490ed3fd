"""Maps, numbers and facts of each slide for the report; slides are opened one after another, each once.

Floor 10, above cohort. Used by report/document, report/figures, report/methods_section.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from spatialsig import _keys, pl
from spatialsig._progress import track
from spatialsig.pl._gallery import N_CROPS, slide_crops
from spatialsig.pl.drawing.slide_panels import robust_limits
from spatialsig.pl.drawing.values import ScoreTables, slide_pairs
from spatialsig.report.intervals import Held, held_on
from spatialsig.slide.slides import open_slides, slide_count
from spatialsig.slide.table_rows import dense, scores_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup
    from numpy.typing import NDArray

    from spatialsig.pl._gallery import Crop
    from spatialsig.pl.drawing.values import Pairs
    from spatialsig.report.figures import Figures
    from spatialsig.slide.slides import Data, Slide

TRAINING, VALIDATION, ALONE = "training", "validation", "H&E alone"
MAPS_MAX_CHARS = 12_000_000  # of all maps together, so that the file stays below 20 MB


@dataclass(frozen=True)
class Names:
    """Elements of each slide that the report reads."""

    patches_key: str = _keys.PATCHES
    signatures_key: str = _keys.SIGNATURES
    predictions_key: str = _keys.SIGNATURES_PRED
    table_key: str = _keys.TABLE

    def of_scores(self) -> dict[str, str]:
        """Names as keywords of the functions on scores."""
        return {
            "patches_key": self.patches_key,
            "signatures_key": self.signatures_key,
            "predictions_key": self.predictions_key,
        }


@dataclass
class SlideReport:
    """One slide: a line of the cohort table, and maps if it was held out or is an H&E alone."""

    name: str
    patient: str
    role: str  # "held out", "held-out blocks", "training", "validation" or "H&E alone"
    fold: str
    n_cells: int | None
    n_cells_before: int | None  # before poor cells were left out
    n_controls_dropped: int | None
    n_genes: int | None
    n_patches: int
    n_labelled: int
    median_cells: float
    median_counts: float
    verdict: str  # of the alignment; empty where it was not checked
    shift_um: float
    maps: dict[str, Markup] = field(default_factory=dict)  # signature -> picture
    left_out: list[str] = field(default_factory=list)  # signatures whose map did not fit into the file


@dataclass
class Gathered:
    """Everything the report takes from the slides."""

    slides: list[SlideReport] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # what the steps recorded about themselves
    pairs: dict[str, Pairs] = field(default_factory=dict)  # signature -> held-out slide -> measured, predicted
    crops: dict[str, list[Crop]] = field(default_factory=dict)  # signature -> patches to look at
    panels: dict[str, list[str]] = field(default_factory=dict)  # slide -> genes
    held: Held = field(
        default_factory=dict
    )  # signature -> whether measured scores of held-out slides lie in their intervals


def gather(
    cohort: Data, signatures: list[str], samples: set[str], *, names: Names, test_fold: int | None,
    validation_fold: int | None, figures: Figures,
) -> Gathered:  # fmt: skip
    """Go through the cohort once and take what the report shows; maps are drawn at once and only kept as text."""
    found = Gathered()
    spent = 0
    alone: list[tuple[SlideReport, Slide]] = []
    measured: dict[str, list[NDArray[np.float64]]] = {}
    for slide in track(open_slides(cohort), "report", total=slide_count(cohort), unit="slide"):
        report = _describe(slide, names, held_out=slide.name in samples, validation_fold=validation_fold)
        found.slides.append(report)
        found.facts = found.facts or _facts(slide, names)
        _add_scores(measured, slide, names)
        if names.table_key in slide.sdata.tables:
            found.panels[slide.name] = list(slide.sdata.tables[names.table_key].var_names)
        if report.role == ALONE and names.predictions_key in slide.sdata.tables:
            alone.append((report, slide))
        if slide.name not in samples:
            continue
        fold = _block_fold(slide, test_fold)
        spent += _add_maps(report, slide, signatures, names.of_scores(), fold, MAPS_MAX_CHARS - spent, figures)
        tables = ScoreTables(**names.of_scores(), fold=fold)
        for signature, pair in slide_pairs(slide, signatures, tables).items():
            found.pairs.setdefault(signature, {})[slide.name] = pair
            found.crops.setdefault(signature, []).extend(slide_crops(slide, signature, tables, n=N_CROPS))
        for signature, inside in held_on(slide, **names.of_scores()).items():
            found.held.setdefault(signature, []).append(inside)
    limits = {
        name: _ends(values) for name, values in measured.items()
    }  # a scale of its own would make any slide look rich
    for report, slide in alone:
        scores = {**names.of_scores(), "signatures_key": None}
        spent += _add_maps(report, slide, signatures, scores, None, MAPS_MAX_CHARS - spent, figures, limits)
    return found


def _add_scores(measured: dict[str, list[NDArray[np.float64]]], slide: Slide, names: Names) -> None:
    """Measured scores of a slide, beside those of the others by signature."""
    labels = slide.sdata.tables.get(names.signatures_key)
    if labels is not None:
        values = np.asarray(dense(scores_of(slide, names.signatures_key)), np.float64)
        for name, column in zip(map(str, labels.var_names), values.T, strict=True):
            measured.setdefault(name, []).append(column)


def _ends(values: list[NDArray[np.float64]]) -> tuple[float, float]:
    scale = robust_limits(values)
    return float(scale.vmin or 0), float(scale.vmax or 0)


def _block_fold(slide: Slide, test_fold: int | None) -> int | None:
    """Fold to show: only a slide cut into blocks holds training patches beside the held-out ones."""
    return test_fold if slide.attrs.get("split", {}).get("by") == "block" else None


def _describe(slide: Slide, names: Names, *, held_out: bool, validation_fold: int | None) -> SlideReport:
    split = slide.attrs.get("split", {})
    by_block = split.get("by") == "block"
    labels = slide.sdata.tables.get(names.signatures_key)
    measured = (
        np.zeros(0, bool) if labels is None else np.isfinite(dense(scores_of(slide, names.signatures_key))).any(axis=1)
    )
    cells = slide.sdata.tables.get(names.table_key)
    filtered = {} if cells is None else slide.params(names.table_key).get("filter_cells", {})
    alignment = slide.attrs.get("qc_alignment", {})

    def median(column: str) -> float:
        if labels is None or column not in labels.obs or not measured.any():
            return np.nan
        return float(np.median(labels.obs[column].to_numpy(float)[measured]))

    return SlideReport(
        name=slide.name,
        patient=slide.patient,
        role=_role(
            by_block=by_block,
            held_out=held_out,
            measured=cells is not None or labels is not None,
            chooses=validation_fold is not None and split.get("fold") == validation_fold,
        ),
        fold="blocks" if by_block else str(split.get("fold", "")),
        n_cells=None if cells is None else cells.n_obs,
        n_cells_before=_whole(filtered.get("n_cells_before")),
        n_controls_dropped=_whole(filtered.get("n_controls_dropped")),
        n_genes=None if cells is None else cells.n_vars,
        n_patches=len(slide.sdata.shapes[names.patches_key]) if names.patches_key in slide.sdata.shapes else 0,
        n_labelled=int(measured.sum()),
        median_cells=median(_keys.N_CELLS),
        median_counts=median(_keys.N_COUNTS),
        verdict=str(alignment.get("verdict", "")),
        shift_um=_float(alignment.get("shift_um")),
    )


def _role(*, by_block: bool, held_out: bool, measured: bool, chooses: bool) -> str:
    if held_out:
        return "held-out blocks" if by_block else "held out"
    if not measured:
        return ALONE
    return VALIDATION if chooses and not by_block else TRAINING


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _float(value: Any) -> float:
    return np.nan if value is None else float(value)


def _add_maps(
    report: SlideReport,
    slide: Slide,
    signatures: list[str],
    scores: Mapping[str, str | None],
    fold: int | None,
    chars_left: int,
    figures: Figures,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> int:
    """Draw the maps of a slide as long as they fit; returns the characters they take."""
    spent = 0
    data = slide.sdata if slide.attrs.get("sample") or slide.path is None else slide.path  # only the path has the name
    for signature in signatures:
        if spent >= chars_left:
            report.left_out.append(signature)
            continue
        figure = Figure()
        pl.compare(data, signature, figure=figure, fold=fold, limits=(limits or {}).get(signature), **scores)  # type: ignore[arg-type]
        shown = "predicted" if scores["signatures_key"] is None else "measured, predicted, difference"
        alt = f"{signature} on {slide.name}: {shown}"
        report.maps[signature] = figures.picture(figure, name=f"map-{slide.name}-{signature}", alt=alt)
        spent += len(report.maps[signature])
    return spent


def _facts(slide: Slide, names: Names) -> dict[str, Any]:
    """What the steps recorded about themselves on a slide; empty for what was not done."""
    facts: dict[str, Any] = {"split": dict(slide.attrs.get("split", {}))}
    for step, element in (("find_tissue", _keys.TISSUE), ("qc_patches", names.patches_key)):
        facts[step] = dict(slide.attrs.get(step) or {}).get(element)
    if names.patches_key in slide.sdata.shapes:
        facts["patches"] = slide.patches(names.patches_key).spec
    for key in (names.table_key, names.signatures_key, names.predictions_key):
        if key in slide.sdata.tables:
            facts |= slide.params(key)
    return facts
