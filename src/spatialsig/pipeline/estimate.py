"""How long a run will take, and what memory and disk, from the size of its slides and a small run on this machine.

The cost of a unit of work was measured once (``costs.json``, written by ``benchmarks/capacity.py``). How much slower or
faster this machine and these networks are is measured by a pilot: the same configuration on small synthetic slides.

Floor 11, above report. Used by cli/project_commands.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig._keys import PATIENT
from spatialsig._settings import settings
from spatialsig._text import counted
from spatialsig.datasets import synthetic_xenium
from spatialsig.errors import InputError
from spatialsig.pipeline.run import check_manifest, finished_steps, measured_rows, run
from spatialsig.pipeline.run_config import GenesConfig, LabelsConfig, RunConfig, SplitConfig
from spatialsig.pipeline.run_step import CROSS_VALIDATE, EVALUATE, TRAIN_AUTOENCODER, TRAIN_VIT, console
from spatialsig.pipeline.sizes import slide_sizes
from spatialsig.pipeline.workload import Workload, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PILOT_PATIENTS = 3
PILOT_UM = 450.0, 1500.0  # edge of a slide of the pilot, at least and at most
PILOT_EPOCHS = 2
_PILOT_PATCHES = 6  # along an edge
MOST_BESIDE_GIB = 2.0  # larger slides are worked on in blocks: batches of a training, and 1 GiB of any other function
_TOO_SHORT = 1.0  # s: what starting a step costs decides the rest


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Attributes
    ----------
    steps
        One row per step: ``seconds``, and ``factor``, how many times longer than on the machine of ``costs.json``.
    slides
        One row per slide: patient, megapixels, tissue in mm², cells, features, counts that are not 0.
    failed
        Slides that cannot be read, and why.
    memory_gib, disk_gib, free_gib
        Most memory of one process; size of the stores; what is free where they will lie.
    """

    steps: pd.DataFrame
    slides: pd.DataFrame
    failed: dict[str, str]
    memory_gib: float
    disk_gib: float
    free_gib: float

    @property
    def seconds(self) -> float:
        """Of the whole run, one slide after another."""
        return float(self.steps["seconds"].sum())

    def as_json(self) -> str:
        """All of it for other programs."""
        found = {
            "seconds": self.seconds, "memory_gib": self.memory_gib, "disk_gib": self.disk_gib, "free_gib": self.free_gib,
            "steps": self.steps.reset_index(names="step").to_dict("records"),
            "slides": self.slides.reset_index().to_dict("records"), "failed": self.failed,
        }  # fmt: skip
        return json.dumps(found, indent=1)

    def in_words(self) -> str:
        """For people."""
        slides, alone = self.slides, int((self.slides["n_cells"] == 0).sum())
        width = max(map(len, self.steps.index))
        lines = [
            f"{counted(len(slides), 'slide')} of {counted(slides['patient'].nunique(), 'patient')}"
            + (f", {alone} of them an H&E alone" if alone else "")
            + f": {slides['megapixels'].sum() / 1e3:.3g} gigapixels, {slides['tissue_mm2'].sum():.3g} mm² of tissue, "
            f"{slides['n_cells'].sum() / 1e6:.3g} million cells, {slides['n_values'].sum() / 1e6:.3g} million counts",
            *(f"{step:<{width}}  {duration(each):>9}" for step, each in self.steps["seconds"].items()),
            f"{'one slide after another':<{width}}  {duration(self.seconds):>9}",
            f"memory of a process up to {self.memory_gib:.2g} GiB; stores {self.disk_gib:.2g} GiB, of {self.free_gib:.3g} GiB that are free",
            *(f"cannot be read: {sample}: {why}" for sample, why in self.failed.items()),
        ]
        if self.disk_gib > self.free_gib:
            lines.append("There is not room enough: choose another `out`, or free some.")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as people say them, such as ``"2.5 h"``."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def known_costs() -> dict[str, Any]:
    """Seconds of a unit of work by step, memory and disk of a unit, and the machine that they were measured on."""
    costs: dict[str, Any] = json.loads((files("spatialsig.pipeline") / "costs.json").read_text(encoding="utf-8"))
    return costs


def estimate(config: RunConfig, *, pilot: bool = True) -> Estimate:
    """Time, memory and disk of a run, before it.

    Parameters
    ----------
    config
        What would be run; see :func:`spatialsig.pipeline.read_config`.
    pilot
        Whether to run the same steps on small synthetic slides first, to measure this machine and these networks (one to three
        minutes); otherwise times are those of the machine that is named in ``costs.json`` and of its small networks.

    Returns
    -------
    The estimate. Trainings are taken to last all of their epochs.

    Raises
    ------
    FileMissingError, InputError
        If the list of bundles is missing, is none, or no slide of it can be read.
    """
    check_manifest(config)
    slides, failed = slide_sizes(config.bundles)
    if not slides:
        msg = f"no slide of {str(config.bundles)!r} can be read: {'; '.join(failed.values())}"
        raise InputError(msg)
    costs, work = known_costs(), Workload(config, slides)
    reference = seconds(costs["seconds"], work.steps())
    factors = _factors(costs["seconds"], work) if pilot else dict.fromkeys(reference, 1.0)
    steps = {step: took * factors.get(step, 1.0) for step, took in reference.items()}
    if config.cross_validation is not None:
        steps[CROSS_VALIDATE] = _of_folds(config, steps)
    table = pd.DataFrame({"seconds": steps, "factor": factors}).reindex(list(steps))
    sizes = pd.DataFrame([vars(slide) for slide in slides]).set_index("sample")
    memory, disk = _memory(costs["memory_gib"], work), _disk(costs["disk_gib"], work)
    place = next(each for each in (config.out, *config.out.resolve().parents) if each.exists())
    return Estimate(table, sizes, failed, memory, disk, shutil.disk_usage(place).free / 2**30)


def usual_config(bundles: Path) -> RunConfig:
    """What a run of a list of bundles would be if nothing else were said; fewer folds where there are fewer patients."""
    n_folds = max(2, min(SplitConfig().n_folds, measured_rows(bundles)[PATIENT].nunique()))
    return RunConfig(bundles=bundles, out=bundles.parent / "out", split=SplitConfig(n_folds=n_folds))


def _factors(costs: Mapping[str, Mapping[str, float]], work: Workload) -> dict[str, float]:
    """How many times as long as known the steps of a pilot took; for short ones, as the others in the middle."""
    with TemporaryDirectory() as folder:
        small = pilot_config(work, Path(folder))
        with _quietly():
            run(small)
        took = finished_steps(small.out)
        slides, _ = slide_sizes(small.bundles)
    expected = seconds(costs, Workload(small, slides).steps())  # type: ignore[arg-type]
    long = {
        step: took[step] / each for step, each in expected.items() if took.get(step, 0.0) >= _TOO_SHORT and each > 0
    }
    usual = float(np.median([*long.values()])) if long else 1.0
    return {step: long.get(step, usual) for step in expected}


@contextmanager
def _quietly() -> Iterator[None]:
    """Nothing is shown of what is done inside."""
    before = settings.progress, console.quiet
    settings.progress, console.quiet = False, True
    try:
        yield
    finally:
        settings.progress, console.quiet = before


def pilot_config(work: Workload, folder: Path) -> RunConfig:
    """The configuration of a run on small slides, which are made in ``folder``."""
    config = work.config
    edge = config.patches.patch_px * config.patches.um_per_px
    size = float(np.clip(edge + _PILOT_PATCHES * work.stride_mm * 1000, *PILOT_UM))
    bundles = folder / "bundles"
    synthetic_xenium(bundles, n_slides=PILOT_PATIENTS, size_um=size)
    few = {"max_epochs": PILOT_EPOCHS}
    return config.model_copy(
        update={
            "bundles": bundles / "bundles.csv", "out": folder / "out", "seed": 0,
            "split": SplitConfig(n_folds=PILOT_PATIENTS), "genes": GenesConfig(n_top_genes=config.genes.n_top_genes),
            "labels": LabelsConfig(signatures="seed", min_cells=min(config.labels.min_cells, 5)),
            "autoencoder": config.autoencoder | few,
            "vit": config.vit | few | {"batch_size": work.batch_size}
            | ({"validation_fold": 1} if "validation_fold" in config.vit else {}),
            "ensemble": None, "cross_validation": None,
        }
    )  # fmt: skip


def _of_folds(config: RunConfig, steps: Mapping[str, float]) -> float:
    """Every fold trains both models and judges them once."""
    return config.split.n_folds * (steps[TRAIN_AUTOENCODER] + steps[TRAIN_VIT] + steps[EVALUATE])


def _memory(costs: Mapping[str, float], work: Workload) -> float:
    """Of the process itself, and of its largest slide."""
    largest = max((slide.n_values for slide in work.slides), default=0) / 1e6
    cells = max((slide.n_cells for slide in work.slides), default=0) / 1e3
    return costs["process"] + min(costs["values"] * largest + costs["cells"] * cells, MOST_BESIDE_GIB)


def _disk(costs: Mapping[str, float], work: Workload) -> float:
    return sum(
        costs["megapixels"] * slide.megapixels
        + costs["values"] * slide.n_values / 1e6
        + costs["cells"] * slide.n_cells / 1e3
        for slide in work.slides
    )
