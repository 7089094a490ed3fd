"""Run the pipeline step by step; steps whose inputs have not changed are skipped.

Floor 11. Used by cli/project_commands, pipeline/demo.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.console import Console

from spatialsig import pp, tl
from spatialsig._files import write_csv
from spatialsig._hashing import json_hash
from spatialsig.cohort import Cohort
from spatialsig.errors import SpatialsigWarning
from spatialsig.models import SignatureViT
from spatialsig.pipeline.report_of_run import report_on
from spatialsig.pipeline.run_files import AUTOENCODER, IMAGE_MODEL, RunFiles, input_fingerprints, write_record
from spatialsig.signatures import read_signatures
from spatialsig.slide.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialsig.pipeline.run_config import RunConfig

console = Console()


@dataclass(frozen=True)
class Step:
    """One step: a name for people, what decides its result, what it does, and what it leaves."""

    name: str
    parameters: Any
    action: Callable[[], None]
    makes: tuple[Path, ...] = ()


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
    job = _Job(config)
    ledger = Ledger(job.files.ledger)
    steps, digest = job.steps(), version("spatialsig")
    for number, step in enumerate(steps, 1):
        # of all before it as well: a change anywhere redoes this step and all later ones
        digest = json_hash([digest, step.name, step.parameters])
        title = f"[{number}/{len(steps)}] {step.name}"
        if ledger.holds(step.name, digest) and all(path.exists() for path in step.makes):
            console.print(f"{title}: done before", markup=False, highlight=False)
            continue
        console.print(f"{title} ...", markup=False, highlight=False)
        ledger.forget_from(step.name)
        started = time.perf_counter()
        told = _collect_warnings(step.action)
        ledger.note(step.name, digest, warnings=told, seconds=round(time.perf_counter() - started, 1))
    write_record(config, job.files, inputs=job.inputs, seconds=ledger.values("seconds"))
    report = report_on(job.files, parameters=config.model_dump(mode="json"))
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return report


def _collect_warnings(action: Callable[[], None]) -> list[str]:
    """Run a step; show its warnings at once and keep ours for the report."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        action()
    ours = [str(warning.message) for warning in caught if issubclass(warning.category, SpatialsigWarning)]
    for text in ours:
        console.print(f"  warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    return ours


class _Job:
    """The steps of one run and the files they leave."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.files = RunFiles(config.out)
        self.autoencoder = self.files.models / AUTOENCODER
        self.vit = self.files.models / IMAGE_MODEL
        self.inputs = input_fingerprints(config.bundles)

    def steps(self) -> list[Step]:
        c, files = self.config, self.files
        manifest = c.bundles.read_text(encoding="utf-8") if c.bundles.is_file() else ""
        genes = read_signatures(c.labels.signatures)  # of a file, what it holds now
        inputs = [manifest, self.inputs, c.cells.model_dump(), c.check_alignment]
        return [
            Step("import bundles", inputs, self._import, (files.stores,)),
            Step("hold out patients, choose genes", [c.split.model_dump(), c.genes.model_dump(), c.seed], self._design),
            Step("train autoencoder", [c.autoencoder, genes, c.seed], self._train_autoencoder, (self.autoencoder,)),
            Step(
                "cut and label patches", [c.patches.model_dump(), c.labels.model_dump()], self._label,
                (files.table("coverage"),),
            ),
            Step("train image model", [c.vit, c.seed], self._train_vit, (self.vit,)),
            Step("predict every slide", None, self._predict),
            Step("evaluate on held-out patients", c.seed, self._evaluate, (files.table("evaluation"),)),
        ]  # fmt: skip

    def cohort(self) -> Cohort:
        return Cohort.open(self.files.stores)

    def _import(self) -> None:
        cohort = Cohort.from_bundles(self.config.bundles, self.files.stores, overwrite=True)
        pp.filter_cells(cohort, **self.config.cells.model_dump())
        if self.config.check_alignment:  # a shift, or a mistake in an alignment, becomes a warning of this step
            pp.qc_alignment(cohort)

    def _design(self) -> None:
        cohort, split = self.cohort(), self.config.split
        options = split.model_dump(exclude={"test_fold"})
        pp.split(cohort, **options, seed=self.config.seed)
        pp.highly_variable_genes(cohort, **self.config.genes.model_dump(), test_fold=split.test_fold)

    def _train_autoencoder(self) -> None:
        cohort, config = self.cohort(), self.config
        model = tl.train_autoencoder(
            cohort,
            signatures=config.labels.signatures,
            test_fold=config.split.test_fold,
            seed=config.seed,
            **({"gene_symbols": config.labels.gene_symbols} | config.autoencoder),
        )
        model.save(self.autoencoder)
        tl.embed_cells(cohort, model)

    def _label(self) -> None:
        cohort, labels = self.cohort(), self.config.labels
        pp.make_patches(cohort, **self.config.patches.model_dump(exclude={"normalize_stain"}))
        if self.config.patches.normalize_stain:
            stains = pp.normalize_stain(cohort)
            write_csv(self.files.table("stains"), stains, index=True)
        pp.assign_cells(cohort)
        coverage = tl.score_cells(
            cohort,
            labels.signatures,
            test_fold=self.config.split.test_fold,
            min_genes=labels.min_genes,
            min_fraction=labels.min_fraction,
            gene_symbols=labels.gene_symbols,
        )
        write_csv(self.files.table("coverage"), coverage, index=True)
        tl.aggregate_patches(cohort, stat=labels.stat, min_cells=labels.min_cells)

    def _train_vit(self) -> None:
        model = tl.train_vit(
            self.cohort(), test_fold=self.config.split.test_fold, seed=self.config.seed, **self.config.vit
        )
        model.save(self.vit)

    def _predict(self) -> None:
        tl.predict(self.cohort(), SignatureViT.load(self.vit))

    def _evaluate(self) -> None:
        cohort, model = self.cohort(), SignatureViT.load(self.vit)
        evaluation = tl.evaluate(cohort, model, seed=self.config.seed)
        tables = {
            "summary": tl.summarise(evaluation, seed=self.config.seed),
            "comparisons": tl.compare_methods(evaluation),
            "findings": tl.findings(cohort, model, evaluation),
            "evaluation": evaluation,
        }
        for name, table in tables.items():
            write_csv(self.files.table(name), table)
