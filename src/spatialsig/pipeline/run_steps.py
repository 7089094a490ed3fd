"""The steps of a run: what decides the result of each, what it does, and where it resumes when it was interrupted.

Floor 11, above report. Used by pipeline/run.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialsig import pp, tl
from spatialsig._checks import first_few
from spatialsig._files import write_csv
from spatialsig._hashing import json_hash
from spatialsig._keys import SIGNATURES, SIGNATURES_PRED, TISSUE
from spatialsig._text import decoded
from spatialsig.cohort import Cohort, import_cohort, read_bundle
from spatialsig.errors import InputError
from spatialsig.evaluation.findings_scores import after_cross_validation
from spatialsig.io._cohort import BUNDLE
from spatialsig.models import load_signature_model
from spatialsig.models.card import write_card
from spatialsig.pipeline import run_step as named
from spatialsig.pipeline.run_files import (
    AUTOENCODER,
    CROSS_VALIDATION,
    IMAGE_MODEL,
    RESULTS,
    RunFiles,
    input_fingerprints,
)
from spatialsig.pipeline.run_step import Step, show, warnings_of
from spatialsig.signatures import read_signatures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from spatialsig._workers import Outcome
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.pipeline.run_config import RunConfig
    from spatialsig.slide.ledger import Ledger

FEATURES = "embedding"  # tables: of the patches, by the network of `features`
SLIDE = "slide "  # in the ledger, before the name of one that was imported
OF_EVERY_FOLD = "signatures_cv"  # tables: scores, each by the model that has not seen its patch


def _slide_part(sample: str) -> str:
    """Name in the ledger of the import of one slide."""
    return f"{SLIDE}{sample}"


def _import_slide(
    row: pd.Series[Any], store: Path, *, inputs: Mapping[str, Any], cells: dict[str, Any], check_alignment: bool,
    ledger: Ledger,
) -> tuple[str, list[str]] | None:  # fmt: skip
    """Read, filter and check one slide; what decides the result, and the warnings. None where the same was done before."""
    sample = str(row["sample"])
    digest = json_hash([version("spatialsig"), row.to_dict(), inputs.get(sample), cells, check_alignment])
    if ledger.holds(_slide_part(sample), digest) and store.exists():
        return None

    def read() -> None:
        read_bundle(row, store, overwrite=True)
        if row[BUNDLE] is None:  # an H&E alone
            return
        pp.filter_cells(store, **cells)
        if check_alignment:  # a shift, or a mistake in an alignment, becomes a warning of this step
            pp.qc_alignment(store)

    return digest, warnings_of(read)  # shown by the process that asked


class Job:
    """The steps of one run and the files they leave; an interrupted step resumes at its slide or its checkpoint."""

    def __init__(self, config: RunConfig, ledger: Ledger) -> None:
        self.config, self.ledger = config, ledger
        self.digest = ""  # of the step that runs: what decides its result
        self.files = RunFiles(config.out)
        self.autoencoder = self.files.models / AUTOENCODER
        self.vit = self.files.models / IMAGE_MODEL
        self.inputs = input_fingerprints(config.bundles)
        self.failed: dict[str, str] = {}  # slides that could not be imported -> why

    def steps(self) -> list[Step]:
        """All of them, in their order."""
        c, files = self.config, self.files
        manifest = decoded(c.bundles) if c.bundles.is_file() else ""
        genes = read_signatures(c.labels.signatures)  # of a file, what it holds now
        inputs = [manifest, self.inputs, c.cells.model_dump(), c.check_alignment]
        return [
            Step(named.IMPORT, inputs, self._import, (files.stores,), failed=lambda: self.failed),
            Step(named.DESIGN, [c.split.model_dump(), c.genes.model_dump(), c.seed], self._design),
            Step(named.TRAIN_AUTOENCODER, [c.autoencoder, genes, c.seed], self._train_autoencoder, (self.autoencoder,)),
            Step(
                named.LABEL,
                [c.patches.model_dump(), c.labels.model_dump(), *self._asked("tissue", "patch_qc")], self._label,
                (files.table("coverage"),), (SIGNATURES,),
            ),
            *self._if_asked("features", Step(named.EMBED, c.features, self._embed_patches, (), (FEATURES,))),
            Step(named.TRAIN_VIT, [c.vit, c.seed, *self._asked("ensemble")], self._train_vit, (self.vit,)),
            *self._if_asked(
                "calibration", Step(named.CALIBRATE, c.calibration, self._calibrate, (files.table("intervals"),))
            ),
            Step(named.PREDICT, None, self._predict, (), (SIGNATURES_PRED,)),
            Step(named.EVALUATE, c.seed, self._evaluate, tuple(map(files.table, RESULTS))),
            *self._if_asked(
                "cross_validation",
                Step(
                    named.CROSS_VALIDATE, c.cross_validation, self._cross_validate,
                    tuple(map(files.table, CROSS_VALIDATION)),
                ),
            ),
        ]  # fmt: skip

    def _asked(self, *sections: str) -> list[Any]:
        """Sections that are there, each behind its name."""
        return [[name, value] for name in sections if (value := getattr(self.config, name)) is not None]

    def _if_asked(self, section: str, step: Step) -> list[Step]:
        return [] if getattr(self.config, section) is None else [step]

    def left(self, step: Step) -> dict[str, str]:
        """Fingerprints of what a step left, by path below the output."""
        made = [path.relative_to(self.files.root).as_posix() for path in step.makes if path != self.files.stores]
        names = [*made, *(name for table in step.tables for name in self.files.in_stores(table))]
        return {name: found for name in names if (found := self.files.fingerprint(name)) is not None}

    def is_done(self, step: Step, digest: str) -> bool:
        """Whether a step was done with these parameters, and what it left is still there.

        Raises
        ------
        InputError
            If that was changed since: what follows was made from something else.
        """
        if not self.ledger.holds(step.name, digest) or not all(path.exists() for path in step.makes):
            return False
        gone, changed = self.files.changed(self.ledger.values("left").get(step.name, {}))
        if changed and not gone:
            msg = (
                f"{first_few(changed)} in {str(self.files.root)!r} changed since the step {step.name!r} of this run left it, and what "
                "follows was made from what it was. Remove it to have it made again, or choose another `out`."
            )
            raise InputError(msg)
        return not gone

    def went_on_without(self, step: Step) -> bool:
        """Whether a step left out slides that failed, when it ran last."""
        return bool(self.ledger.values("failed").get(step.name))

    def cohort(self) -> Cohort:
        """The slides that were imported."""
        return Cohort.open(self.files.stores)

    def _import(self) -> None:
        config = self.config
        work = partial(
            _import_slide, inputs=self.inputs, cells=config.cells.model_dump(), check_alignment=config.check_alignment,
            ledger=self.ledger,
        )  # fmt: skip
        cohort = import_cohort(config.bundles, self.files.stores, work, on_done=self._note_slide)
        self.failed = cohort.failures
        slides = {_slide_part(sample) for sample in cohort.stores}
        self.ledger.keep(lambda part: not part.startswith(_slide_part("")) or part in slides)

    def _note_slide(self, outcome: Outcome[tuple[str, list[str]] | None]) -> None:
        """Note a slide as soon as it is read: an interrupted run loses no other."""
        if outcome.value is not None:
            digest, told = outcome.value
            show(told)
            self.ledger.note(_slide_part(outcome.name), digest, warnings=told)

    def _forget(self, checkpoints: Path) -> None:
        """Remove the checkpoints of a training whose model is saved."""
        shutil.rmtree(checkpoints, ignore_errors=True)
        with suppress(OSError):  # of others that are not finished
            self.files.training.rmdir()

    def _checkpoints(self, model: str) -> Path:
        """Where the training of this step leaves its checkpoints; those of other parameters are removed."""
        place = self.files.training / f"{model}-{self.digest[:16]}"
        for other in set(self.files.training.glob(f"{model}-*")) - {place}:
            shutil.rmtree(other)
        return place

    def _design(self) -> None:
        cohort, split = self.cohort(), self.config.split
        options = split.model_dump(exclude={"test_fold"})
        pp.split(cohort, **options, seed=self.config.seed)
        pp.highly_variable_genes(cohort, **self.config.genes.model_dump(), test_fold=split.test_fold)

    def _train_autoencoder(self) -> None:
        cohort, config = self.cohort(), self.config
        checkpoints = self._checkpoints(AUTOENCODER)
        options = {"gene_symbols": config.labels.gene_symbols, "run_dir": checkpoints} | config.autoencoder
        model = tl.train_autoencoder(
            cohort,
            signatures=config.labels.signatures,
            test_fold=config.split.test_fold,
            seed=config.seed,
            **options,
        )
        model.save(self.autoencoder, overwrite=True)  # of this run, which was interrupted or has other settings now
        tl.embed_cells(cohort, model)
        self._forget(checkpoints)

    def _label(self) -> None:
        cohort, labels = self.cohort(), self.config.labels
        config = self.config
        if config.tissue is not None:
            pp.find_tissue(cohort, **config.tissue)
        cut = config.patches.model_dump(exclude={"normalize_stain"})
        pp.make_patches(cohort, **cut, tissue_key=None if config.tissue is None else TISSUE)
        if config.patch_qc is not None:
            write_csv(self.files.table("patch_qc"), pp.qc_patches(cohort, **config.patch_qc), index=True)
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
        checkpoints, config = self._checkpoints(IMAGE_MODEL), self.config
        options = {"run_dir": checkpoints} | config.vit | {"test_fold": config.split.test_fold, "seed": config.seed}
        cohort = self.cohort()
        model: SignatureModel = (
            tl.train_vit(cohort, **options)
            if config.ensemble is None
            else tl.train_ensemble(cohort, **config.ensemble, **options | {"run_dir": checkpoints})
        )
        model.save(self.vit, overwrite=True)
        self._forget(checkpoints)

    def _embed_patches(self) -> None:
        tl.embed_patches(self.cohort(), **self.config.features or {}, key_added=FEATURES, skip_done=True)

    def _calibrate(self) -> None:
        model = load_signature_model(self.vit)
        intervals = tl.calibrate(self.cohort(), model, **self.config.calibration or {})
        model.save(self.vit, overwrite=True)
        write_csv(self.files.table("intervals"), intervals)

    def _predict(self) -> None:
        model = load_signature_model(self.vit)
        if self.config.calibration is None:  # which was asked for before
            model.intervals = None
        tl.predict(self.cohort(), model, skip_done=True)

    def _evaluate(self) -> None:
        cohort, model = self.cohort(), load_signature_model(self.vit)
        features = None if self.config.features is None else FEATURES
        kept = self.files.training / "evaluation"
        evaluation = tl.evaluate(cohort, model, seed=self.config.seed, embedding_key=features, run_dir=kept)
        found = tl.findings(cohort, model, evaluation)
        tables = {
            "summary": tl.summarise(evaluation, seed=self.config.seed),
            "comparisons": tl.compare_methods(evaluation),
            "findings": found if self.config.cross_validation is None else after_cross_validation(found),
            "evaluation": evaluation,
        }
        for name, table in tables.items():
            write_csv(self.files.table(name), table)
        write_card(self.vit, model.card())
        self._forget(kept)

    def _cross_validate(self) -> None:
        config = self.config
        vit = {name: value for name, value in config.vit.items() if name not in ("validation_fold", "run_dir")}
        autoencoder = {name: value for name, value in config.autoencoder.items() if name != "run_dir"}
        options = {"autoencoder": {"gene_symbols": config.labels.gene_symbols} | autoencoder} | vit
        evaluation = tl.cross_validate(
            self.cohort(), **config.cross_validation or {}, **options, run_dir=self.files.folds, seed=config.seed,
            key_added=OF_EVERY_FOLD,
        )  # fmt: skip
        for name, table in zip(CROSS_VALIDATION, (evaluation, tl.summarise(evaluation, seed=config.seed)), strict=True):
            write_csv(self.files.table(name), table)
