"""The demonstration: a synthetic cohort of four patients through the whole pipeline.

Floor 11, above report. Used by cli/project_commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import datasets
from spatialsig.pipeline.run import run
from spatialsig.pipeline.run_config import GenesConfig, LabelsConfig, PatchesConfig, RunConfig, SplitConfig

if TYPE_CHECKING:
    from pathlib import Path

N_SLIDES = 4
SIZE_UM = 1700.0
# as many epochs as fit into a quarter of an hour on two cores, with everything else
AUTOENCODER_EPOCHS = 8
VIT_EPOCHS = 10


def demo_config(out: Path, *, seed: int = 0) -> RunConfig:
    """Configuration of the demonstration: two patients to learn from, two held out."""
    return RunConfig(
        bundles=out / "bundles" / "bundles.csv",
        out=out,
        title="spatialsig demo: molecular signatures from H&E",
        synthetic=True,
        seed=seed,
        split=SplitConfig(n_folds=2),
        genes=GenesConfig(n_top_genes=2000),
        patches=PatchesConfig(patch_px=112, um_per_px=1.0, stride_um=56.0, normalize_stain=True),
        labels=LabelsConfig(signatures="seed"),
        autoencoder={"max_epochs": AUTOENCODER_EPOCHS},
        vit={"max_epochs": VIT_EPOCHS},
    )


def run_demo(out: Path, *, seed: int = 0, size_um: float = SIZE_UM, n_slides: int = N_SLIDES) -> Path:
    """Make the cohort in ``out`` if it is not there, run the pipeline on it, and return the path of the report.

    There are ``n_slides`` slides of edge ``size_um``, each of its own patient; ``seed`` is that of the cohort and of
    the models.
    """
    config = demo_config(out, seed=seed)
    if not config.bundles.is_file():
        datasets.synthetic_xenium(config.bundles.parent, n_slides=n_slides, size_um=size_um, seed=seed)
    return run(config)
