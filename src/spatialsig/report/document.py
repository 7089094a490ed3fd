"""One HTML file from a cohort, its evaluation and what the steps of its run recorded.

Floor 10, above cohort. Used by pipeline/report_of_run, referee/judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spatialsig import _keys, tl
from spatialsig._checks import check_key
from spatialsig._files import check_target, write_text
from spatialsig.errors import InputError
from spatialsig.evaluation.findings_scores import after_cross_validation
from spatialsig.evaluation.schema import FINDING_COLUMNS, SEVERITIES, WARNING, slide_rows
from spatialsig.pl.drawing.methods import COLUMNS
from spatialsig.pl.drawing.templates import template_of
from spatialsig.report.comparisons import answers
from spatialsig.report.figures import FigureData, Figures, draw_figures
from spatialsig.report.intervals import interval_rows
from spatialsig.report.methods_section import PACKAGES, methods_paragraph, versions
from spatialsig.report.results_section import method_rows, number, percent, summarise, whole
from spatialsig.report.slide_cards import ALONE, TRAINING, VALIDATION, Names, gather

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from spatialsig.slide.slides import Data

COVERAGE_COLUMNS = {
    "signature": "Signature",
    "n_genes_panel": "Genes",
    "n_genes_measured": "Measured",
    "missing": "Not on every panel",
    "reason": "Not scored because",
}


def write_report(
    path: str | os.PathLike[str],
    *,
    cohort: Data,
    evaluation: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    warnings: Sequence[str],
    coverage: pd.DataFrame | None,
    parameters: Mapping[str, Any],
    summary: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    findings: pd.DataFrame | None = None,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    cross_validation: pd.DataFrame | None = None,
    intervals: pd.DataFrame | None = None,
    title: str = "Molecular signatures from H&E",
    command: str | None = None,
    test_fold: int | None = None,
    figures: str | os.PathLike[str] | None = None,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    predictions_key: str = _keys.SIGNATURES_PRED,
    table_key: str = _keys.TABLE,
) -> Path:
    """Write one HTML file with warnings, results, maps, patches to look at, curves, coverage, cohort and methods.

    The file needs nothing else: pictures are inside, no address is called. Slides that are not in ``evaluation`` were
    learned from, or chose the best epoch; they stand in the cohort table, marked as training or validation, and have no maps. Numbers that are not known are
    dashes.

    Parameters
    ----------
    path
        File to write; replaced if it exists.
    cohort
        SpatialData, path of a store, or Cohort, with measured and predicted scores; not modified.
    evaluation
        Table of ``tl.evaluate``.
    histories
        Training curves of each model by its name; columns as in :func:`spatialsig.pl.history`.
    warnings
        What the reader should know first, in plain words.
    coverage
        Table of ``tl.score_cells``: one row per signature; None where it was not kept.
    parameters
        Everything the run was told, as plain values. ``synthetic=True`` makes the report say so;
        ``split["test_fold"]`` stands in for ``test_fold``, ``labels["signatures"]`` names the genes of the signatures,
        ``command`` stands in for ``command``.
    summary, comparisons
        Tables of ``tl.summarise`` and ``tl.compare_methods``; made from ``evaluation`` when None.
    findings
        Table of ``tl.findings``; shown first, worst first, when given.
    models
        Configuration (``config``) and provenance (``run``) of the models ``"autoencoder"`` and ``"image model"``, for
        the methods paragraph.
    cross_validation
        Table of ``tl.cross_validate``, shown beside ``evaluation``; None where not every fold was held out.
    intervals
        Table of ``tl.calibrate``, shown with the share of held-out scores that lie in their intervals; None where the model was not
        calibrated.
    title
        Heading of the report.
    command
        Shown as the way to repeat the run.
    test_fold
        Fold the model has not seen; only needed where slides are split into blocks, to leave training blocks out.
    figures
        Directory to save every figure to as well, as png and, where it has no pixels of its own, svg.
    patches_key, signatures_key, predictions_key, table_key
        Names of the elements of every slide.

    Returns
    -------
    Path of the file, at most 20 MB: maps that would not fit are named instead. Nothing is written to ``cohort``.

    Raises
    ------
    KeyMissingError
        If a table lacks a column, or a held-out slide lacks an element.
    InputError
        If ``path`` does not end with ``.html`` or lies in a Zarr store, the evaluation is empty, or none of its samples is in the cohort.
    """
    check_target(Path(path), (".html", ".htm"))
    evaluation = slide_rows(evaluation, COLUMNS)
    if summary is None:
        summary = tl.summarise(evaluation)
    if comparisons is None:
        comparisons = tl.compare_methods(evaluation)
    samples = set(map(str, evaluation["sample"]))
    signatures = list(dict.fromkeys(evaluation["signature"]))
    fold = parameters.get("split", {}).get("test_fold") if test_fold is None else test_fold
    keeper = Figures(None if figures is None else Path(figures))
    gathered = gather(
        cohort, signatures, samples,
        names=Names(patches_key, signatures_key, predictions_key, table_key), test_fold=fold,
        validation_fold=(models or {}).get("image model", {}).get("run", {}).get("validation_fold"), figures=keeper,
    )  # fmt: skip
    results = summarise(evaluation, summary, synthetic=bool(parameters.get("synthetic")))
    order = [row.name for row in results.slides]
    held_out = sorted(
        (s for s in gathered.slides if s.role not in (TRAINING, VALIDATION, ALONE)),
        key=lambda slide: order.index(slide.name),
    )
    if not held_out:
        msg = f"none of the evaluated samples {sorted(samples)} is in the cohort: {[s.name for s in gathered.slides]}."
        raise InputError(msg)
    installed = versions(PACKAGES)
    figures_by_name = draw_figures(
        FigureData(evaluation, summary, gathered, histories, parameters.get("labels", {}).get("signatures")), keeper
    )
    page = template_of("spatialsig.report", {"number": number, "percent": percent, "whole": whole}).render(
        title=title,
        synthetic=bool(parameters.get("synthetic")),
        remarks=warnings_section(
            findings if findings is None or cross_validation is None else after_cross_validation(findings), warnings
        ),
        checked=findings is not None,
        results=results,
        of_slide={row.name: row for row in results.slides},
        answers=answers(comparisons),
        held_out=held_out,
        alone=[slide for slide in gathered.slides if slide.role == ALONE],
        every_fold=None if cross_validation is None else _every_fold(cross_validation),
        intervals=interval_rows(intervals, gathered.held),
        slides=gathered.slides,
        coverage=_coverage(coverage),
        methods=methods_paragraph(gathered.slides, evaluation, gathered.facts, models or {}, installed),
        versions=installed,
        command=command or parameters.get("command"),
        config=yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True) if parameters else "",
        **figures_by_name,
    )
    return _write(Path(path), page)


def _every_fold(evaluation: pd.DataFrame) -> dict[str, list[Any]]:
    """Signatures and lines of the table of a cross-validation, whose folds may have measured others than the one shown."""
    evaluation = slide_rows(evaluation, COLUMNS)
    rows = method_rows(evaluation, tl.summarise(evaluation))
    return {"signatures": list(dict.fromkeys(evaluation["signature"])), "rows": list(rows.values())}


def _coverage(frame: pd.DataFrame | None) -> dict[str, list[Any]] | None:
    """Columns and rows as text; a named index becomes a column."""
    if frame is None:
        return None
    flat = frame.reset_index() if frame.index.name else frame
    return {
        "columns": [COVERAGE_COLUMNS.get(str(column), str(column)) for column in flat.columns],
        "rows": [["" if value != value else str(value) for value in row] for row in flat.to_numpy(object)],
    }


def _write(path: Path, page: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


@dataclass(frozen=True)
class Remark:
    """One thing to know: how bad it is, where, and what it is."""

    severity: str
    slide: str  # empty for the whole cohort
    text: str


def warnings_section(findings: pd.DataFrame | None, warnings: Sequence[str]) -> list[Remark]:
    """Findings and the warnings of other steps, worst first; what was said by both is said once."""
    remarks = []
    if findings is not None:
        for column in FINDING_COLUMNS:
            fix = "Make the table with `sp.tl.findings`."
            check_key(list(map(str, findings.columns)), column, name="column", where="the findings", fix=fix)
        remarks = [Remark(str(row.severity), str(row.slide), str(row.text)) for row in findings.itertuples()]
    texts = {remark.text for remark in remarks}
    remarks += [Remark(WARNING, "", text) for text in dict.fromkeys(warnings) if text not in texts]
    return sorted(remarks, key=lambda remark: _rank(remark.severity))


def _rank(severity: str) -> int:
    """Place among the severities; an unknown one counts as a warning."""
    return SEVERITIES.index(severity if severity in SEVERITIES else WARNING)
