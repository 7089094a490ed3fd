"""The report of a run that is done, from the files it left.

Floor 11, above report. Used by cli/project_commands, pipeline/run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from spatialsig.cohort import Cohort
from spatialsig.errors import FileMissingError, InputError
from spatialsig.pipeline.run_files import CROSS_VALIDATION, RunFiles, field_of, read_json
from spatialsig.report import write_report
from spatialsig.slide.ledger import Ledger
from spatialsig.store.lock import file_lock, run_lock

TITLE = "Molecular signatures from H&E"
FIGURES = "figures"  # directory beside the report


def report_of(
    run_dir: str | Path, *, out: str | Path | None = None, title: str | None = None, figures: bool = False
) -> Path:
    """Write the report of a finished run.

    Parameters
    ----------
    run_dir
        Directory of the run: ``stores/`` and ``evaluation.csv``, and whatever else there is of ``models/``,
        ``coverage.csv``, ``findings.csv``, ``steps.json`` and ``run.json``.
    out
        File to write; ``report.html`` of the run when None.
    title
        Heading; that of the run when None.
    figures
        Also save every figure, in ``figures/`` beside the report.

    Returns
    -------
    Path of the report.

    Raises
    ------
    FileMissingError
        If the run has no stores or no evaluation.
    """
    files = RunFiles(Path(run_dir))
    missing = [path.name for path in (files.stores, files.table("evaluation")) if not path.exists()]
    if missing:
        msg = (
            f"{files.root} is no finished run: {missing} missing. Run `spatialsig run`, or put the stores into "
            f"{files.stores} and the table of `spatialsig evaluate` into {files.table('evaluation')}."
        )
        raise FileMissingError(msg)
    record = read_json(files.record) if files.record.exists() else {}
    command = record.get("command")
    return report_on(
        files,
        parameters=field_of(files.record, "parameters") if record else {},
        command=command if isinstance(command, str) else None,
        out=None if out is None else Path(out),
        title=title,
        figures=figures,
    )


def report_on(
    files: RunFiles,
    *,
    parameters: dict[str, Any],
    command: str | None = None,
    out: Path | None = None,
    title: str | None = None,
    figures: bool = False,
) -> Path:
    """Write the report from the files of a run and the parameters it was given."""
    path = out or files.report
    with run_lock(files.root, "report") if path == files.report else file_lock(path, "report"):
        return _report_on(files, path, parameters, command, title, figures=figures)


def _report_on(
    files: RunFiles, path: Path, parameters: dict[str, Any], command: str | None, title: str | None, *, figures: bool
) -> Path:
    evaluation = files.read_table("evaluation")
    if evaluation is None:
        msg = f"{str(files.table('evaluation'))!r} is empty. Remove it and run again, or write it with `spatialsig evaluate`."
        raise InputError(msg)
    models = files.model_files()
    ledger = Ledger(files.ledger)
    others = [name for left in ledger.values("left").values() for names in files.changed(left) for name in names]
    warnings = [text for texts in ledger.values("warnings").values() for text in texts]
    warnings += [
        f"{name} changed, or was removed, after the run had used it: this page mixes results." for name in others
    ]
    return write_report(
        path,
        cohort=Cohort.open(files.stores),
        evaluation=evaluation,
        findings=files.read_table("findings", keep_default_na=False),
        histories={name: pd.DataFrame(m["run"]["history"]) for name, m in models.items() if "history" in m["run"]},
        models=models,
        warnings=warnings,
        coverage=files.read_table("coverage", index_col=0, keep_default_na=False),
        parameters=parameters,
        command=command,
        cross_validation=files.read_table(CROSS_VALIDATION[0]),
        intervals=files.read_table("intervals"),
        figures=path.parent / FIGURES if figures else None,
        title=title or str(parameters.get("title", "")) or TITLE,
    )
