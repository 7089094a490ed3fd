"""Run the pipeline step by step; steps whose inputs have not changed are skipped.

Floor 11, above report. Used by cli/project_commands, pipeline/demo, pipeline/estimate.
"""

from __future__ import annotations

import time
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

from spatialsig._checks import first_few
from spatialsig._hashing import json_hash
from spatialsig._keys import PATIENT
from spatialsig._text import counted
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io._cohort import BUNDLE, read_manifest
from spatialsig.pipeline.report_of_run import report_on
from spatialsig.pipeline.run_files import RunFiles, write_record
from spatialsig.pipeline.run_step import ALWAYS, collect_warnings, console
from spatialsig.pipeline.run_steps import SLIDE, Job
from spatialsig.slide.ledger import Ledger
from spatialsig.store.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from spatialsig.pipeline.run_config import RunConfig
    from spatialsig.pipeline.run_step import Step


def failed_slides(out: Path) -> dict[str, str]:
    """Slides that the run in ``out`` went on without -> why."""
    failed = Ledger(RunFiles(out).ledger).values("failed")
    return {sample: why for of_step in failed.values() for sample, why in of_step.items()}


def finished_steps(out: Path) -> dict[str, float]:
    """Steps that a run in ``out`` has finished -> seconds each took, as they were noted."""
    seconds: dict[str, float] = Ledger(RunFiles(out).ledger).values("seconds")
    return seconds


def progress_of(out: Path) -> list[str]:
    """Lines on what a run in ``out`` has done, what it was at, and what comes next; without its configuration."""
    ledger, files = Ledger(RunFiles(out).ledger), RunFiles(out)
    seconds = finished_steps(out)
    lines = [f"done: {step} ({taken:g} s)" for step, taken in seconds.items()]
    left = [step for step in ALWAYS if step not in seconds]
    if left == list(ALWAYS):
        read = [slide for slide in ledger.parts() if slide.startswith(SLIDE)]
        names = [slide.removeprefix(SLIDE) for slide in read]
        lines.append(
            f"begun: {left[0]}; {counted(len(names), 'slide')} read{': ' + first_few(names, n=10) if names else ''}"
        )
    if left:
        lines.append(f"next: {left[0]}; `spatialsig run` with the configuration of this run goes on there")
    elif not files.report.exists():
        lines.append("next: the report; `spatialsig report` writes it")
    return lines


def _with_digests(steps: list[Step]) -> Iterator[tuple[Step, str]]:
    """Steps in their order, each with the hash of what decides its result, of all before it as well.

    A change anywhere redoes a step and all later ones, and so do other slides that a step left out, once it has run.
    """
    digest = version("spatialsig")
    for step in steps:
        digest = json_hash([digest, step.name, step.parameters])
        yield step, digest
        if failed := step.failed():
            digest = json_hash([digest, sorted(failed)])


def plan(config: RunConfig) -> dict[str, bool]:
    """Steps of a run, and whether each is done; the first that is not and all later ones would be done now."""
    job = Job(config, Ledger(RunFiles(config.out).ledger))
    steps = job.steps()
    found = dict.fromkeys((step.name for step in steps), False)
    for step, digest in _with_digests(steps):
        if not job.is_done(step, digest) or job.went_on_without(step):
            break
        found[step.name] = True
    return found


def measured_rows(bundles: Path) -> pd.DataFrame:
    """Rows of a list of bundles that name one; what else is to be said of the list is said when its slides are read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        rows = read_manifest(bundles)
    return rows[rows[BUNDLE].notna()]


def check_manifest(config: RunConfig) -> None:
    """Refuse a list of bundles that is not there, is not one, or names fewer patients or slides than there are folds.

    Raises
    ------
    FileMissingError, InputError
        As :meth:`spatialsig.Cohort.from_bundles`, before the first bundle is read.
    """
    measured, split = measured_rows(config.bundles), config.split
    units = {"patient": measured[PATIENT].nunique(), "slide": len(measured)}.get(split.by)
    if units is not None and units < split.n_folds:
        msg = (
            f"{str(config.bundles)!r} lists {units} {split.by}s with a bundle, fewer than `split.n_folds`, {split.n_folds}. Lower "
            "`n_folds`, or list more."
        )
        raise InputError(msg)


def run(config: RunConfig) -> Path:
    """Bundles to report.

    Parameters
    ----------
    config
        What to run; see :func:`spatialsig.pipeline.read_config`.

    Returns
    -------
    Path of ``report.html``. The output directory also holds ``stores/`` (one SpatialData per slide), ``models/``,
    ``evaluation.csv``, ``summary.csv``, ``comparisons.csv``, ``findings.csv``, ``coverage.csv``, ``steps.json`` (what is
    done) and ``run.json`` (versions, machine, parameters, seeds, hashes of inputs and results).
    """
    check_manifest(config)
    with run_lock(config.out, "spatialsig run"):
        return _run(config)


def _run(config: RunConfig) -> Path:
    """Do the steps that are not done, and write record and report."""
    ledger = Ledger(RunFiles(config.out).ledger)
    job = Job(config, ledger)
    steps = job.steps()
    for number, (step, digest) in enumerate(_with_digests(steps), 1):
        title = f"[{number}/{len(steps)}] {step.name}"
        done = job.is_done(step, digest)
        if done and not job.went_on_without(step):
            console.print(f"{title}: done before", markup=False, highlight=False)
        else:  # what slides failed by may be gone, such as a full disk
            console.print(f"{title} ...", markup=False, highlight=False)
            if not done:
                ledger.forget([each.name for each in steps[number - 1 :]])
            job.digest = digest
            started = time.perf_counter()
            told = collect_warnings(step.action)
            seconds = round(time.perf_counter() - started, 1)
            ledger.note(step.name, digest, warnings=told, seconds=seconds, left=job.left(step), failed=step.failed())
    write_record(config, job.files, inputs=job.inputs, seconds=ledger.values("seconds"))
    report = report_on(job.files, parameters=config.model_dump(mode="json"))
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return report
