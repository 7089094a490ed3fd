"""Run the pipeline step by step; steps whose inputs have not changed are skipped."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from spatialsig import pp, tl
from spatialsig._errors import SpatialsigWarning
from spatialsig.cohort import Cohort
from spatialsig.models import Autoencoder, SignatureViT
from spatialsig.pipeline.findings import findings
from spatialsig.pipeline.ledger import Ledger
from spatialsig.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialsig.pipeline.config import RunConfig

console = Console()


@dataclass(frozen=True)
class Step:
    """One step: a name for people, what decides its result, and what it does."""

    name: str
    parameters: Any
    action: Callable[[], None]


def run(config: RunConfig) -> Path:
    """Bundles to report.

    Parameters
    ----------
    config
        What to run; see :func:`spatialsig.pipeline.read_config`.

    Returns
    -------
    Path of ``report.html``. The output directory also holds ``stores/`` (one SpatialData per slide), ``models/``,
    ``evaluation.csv``, ``coverage.csv`` and ``steps.json``.
    """
    job = _Job(config)
    ledger = Ledger(config.out / "steps.json")
    steps = job.steps()
    for number, step in enumerate(steps, 1):
        digest = ledger.digest(step.name, step.parameters)
        title = f"[{number}/{len(steps)}] {step.name}"
        if ledger.is_done(step.name, digest):
            console.print(f"{title}: done before", markup=False, highlight=False)
            continue
        console.print(f"{title} ...", markup=False, highlight=False)
        ledger.start(step.name)
        started = time.perf_counter()
        ledger.finish(step.name, digest, _collect_warnings(step.action), time.perf_counter() - started)
    report = job.report(ledger.warnings())
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
        self.stores = config.out / "stores"
        self.autoencoder = config.out / "models" / "autoencoder"
        self.vit = config.out / "models" / "vit"
        self.evaluation = config.out / "evaluation.csv"
        self.coverage = config.out / "coverage.csv"

    def steps(self) -> list[Step]:
        c = self.config
        manifest = c.bundles.read_text(encoding="utf-8") if c.bundles.is_file() else ""
        return [
            Step("import bundles", [str(c.bundles), manifest, c.cells.model_dump()], self._import),
            Step("hold out patients, choose genes", [c.split.model_dump(), c.genes.model_dump(), c.seed], self._design),
            Step("train autoencoder", [c.autoencoder, c.labels.signatures], self._train_autoencoder),
            Step("cut and label patches", [c.patches.model_dump(), c.labels.model_dump()], self._label),
            Step("train image model", c.vit, self._train_vit),
            Step("predict every slide", None, self._predict),
            Step("evaluate on held-out patients", None, self._evaluate),
        ]

    def cohort(self) -> Cohort:
        return Cohort.open(self.stores)

    def _import(self) -> None:
        cohort = Cohort.from_bundles(self.config.bundles, self.stores, overwrite=True)
        pp.filter_cells(cohort, **self.config.cells.model_dump())

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
            **config.autoencoder,
        )
        model.save(self.autoencoder)
        tl.embed_cells(cohort, model)

    def _label(self) -> None:
        cohort, labels = self.cohort(), self.config.labels
        pp.make_patches(cohort, **self.config.patches.model_dump())
        pp.assign_cells(cohort)
        coverage = tl.score_cells(
            cohort,
            labels.signatures,
            test_fold=self.config.split.test_fold,
            min_genes=labels.min_genes,
            min_fraction=labels.min_fraction,
        )
        coverage.to_csv(self.coverage)
        tl.aggregate_patches(cohort, stat=labels.stat, min_cells=labels.min_cells)

    def _train_vit(self) -> None:
        model = tl.train_vit(
            self.cohort(), test_fold=self.config.split.test_fold, seed=self.config.seed, **self.config.vit
        )
        model.save(self.vit)

    def _predict(self) -> None:
        tl.predict(self.cohort(), SignatureViT.load(self.vit))

    def _evaluate(self) -> None:
        evaluation = tl.evaluate(self.cohort(), SignatureViT.load(self.vit), seed=self.config.seed)
        evaluation.to_csv(self.evaluation, index=False)
        for finding in findings(evaluation):
            warnings.warn(finding, SpatialsigWarning, stacklevel=2)

    def report(self, warnings_: list[str]) -> Path:
        histories = {
            "autoencoder": pd.DataFrame(Autoencoder.load(self.autoencoder).run["history"]),
            "image model": pd.DataFrame(SignatureViT.load(self.vit).run["history"]),
        }
        return write_report(
            self.config.out / "report.html",
            cohort=self.cohort(),
            evaluation=pd.read_csv(self.evaluation),
            histories=histories,
            warnings=warnings_,
            coverage=pd.read_csv(self.coverage, index_col=0, keep_default_na=False),
            parameters=self.config.model_dump(mode="json"),
            title=self.config.title,
        )
