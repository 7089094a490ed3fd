"""Put the report together and write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from spatialsig import _keys, pl
from spatialsig._errors import InputError
from spatialsig.pl._methods import check_evaluation
from spatialsig.report.images import inline_svg
from spatialsig.report.methods import methods_paragraph, versions
from spatialsig.report.results import number, percent, summarise
from spatialsig.report.slides import Names, held_out_data, read_slides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from markupsafe import Markup

    from spatialsig.data.slides import Data

TEMPLATE = "template.html.j2"
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
    coverage: pd.DataFrame,
    parameters: Mapping[str, Any],
    title: str = "Molecular signatures from H&E",
    test_fold: int | None = None,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    predictions_key: str = _keys.SIGNATURES_PRED,
    table_key: str = _keys.TABLE,
) -> Path:
    """Write one HTML file with results, maps, curves, coverage, cohort and methods.

    The file needs nothing else: pictures are inside, no address is called. Slides that are not in ``evaluation`` were
    learned from; they stand in the cohort table, marked as training, and have no maps.

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
        Table of ``tl.score_cells``: one row per signature.
    parameters
        Everything the run was told, as plain values. ``synthetic=True`` makes the report say so; ``command`` is shown
        as the way to repeat the run; ``split["test_fold"]`` stands in for ``test_fold``.
    title
        Heading of the report.
    test_fold
        Fold the model has not seen; only needed where slides are split into blocks, to leave training blocks out.
    patches_key, signatures_key, predictions_key, table_key
        Names of the elements of every slide.

    Returns
    -------
    Path of the file, at most 20 MB: maps that would not fit are named instead. Nothing is written to ``cohort``.

    Raises
    ------
    KeyMissingError
        If the evaluation lacks a column, or a held-out slide lacks an element.
    InputError
        If the evaluation is empty or none of its samples is in the cohort.
    """
    check_evaluation(evaluation)
    samples = set(map(str, evaluation["sample"]))
    signatures = list(dict.fromkeys(evaluation["signature"]))
    names = Names(patches_key, signatures_key, predictions_key, table_key)
    fold = parameters.get("split", {}).get("test_fold") if test_fold is None else test_fold
    slides, facts = read_slides(cohort, signatures, samples, names=names, test_fold=fold)
    held_out = [slide for slide in slides if slide.role != "training"]
    if not held_out:
        msg = f"none of the evaluated samples {sorted(samples)} is in the cohort: {[slide.name for slide in slides]}."
        raise InputError(msg)
    synthetic, installed = bool(parameters.get("synthetic")), versions()
    page = _template().render(
        title=title,
        synthetic=synthetic,
        warnings=list(warnings),
        results=summarise(evaluation, synthetic=synthetic),
        ladder=_ladder(evaluation),
        held_out=held_out,
        slides=slides,
        scatter=_scatter(held_out_data(cohort, samples), signatures, names, _fold_shown(held_out, fold)),
        histories={name: _history(name, table) for name, table in histories.items()},
        coverage=_coverage(coverage),
        methods=methods_paragraph(slides, evaluation, facts, installed),
        versions=installed,
        command=parameters.get("command"),
        config=yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True),
    )
    return _write(Path(path), page)


def _template() -> Any:
    loader = PackageLoader("spatialsig.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment.get_template(TEMPLATE)


def _fold_shown(held_out: list[Any], fold: int | None) -> int | None:
    return fold if any(slide.role == "held-out blocks" for slide in held_out) else None


def _ladder(evaluation: pd.DataFrame) -> Markup:
    figure = Figure()
    pl.ladder(evaluation, figure=figure)
    return inline_svg(figure, name="ladder", alt="Mean Pearson r of every method beside the ceiling")


def _scatter(data: Data, signatures: list[str], names: Names, fold: int | None) -> Markup:
    figure = Figure()
    pl.scatter(
        data, signatures, figure=figure, fold=fold, signatures_key=names.signatures_key,
        predictions_key=names.predictions_key, patches_key=names.patches_key,
    )  # fmt: skip
    return inline_svg(figure, name="scatter", alt="Predicted against measured scores of held-out patches")


def _history(name: str, table: pd.DataFrame) -> Markup:
    figure = Figure()
    pl.history(table, figure=figure)
    return inline_svg(figure, name=f"history-{name}", alt=f"Training curves of {name}")


def _coverage(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns and rows as text; a named index becomes a column."""
    flat = frame.reset_index() if frame.index.name else frame
    return {
        "columns": [COVERAGE_COLUMNS.get(str(column), str(column)) for column in flat.columns],
        "rows": [["" if value != value else str(value) for value in row] for row in flat.to_numpy(object)],
    }


def _write(path: Path, page: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)
    return path
