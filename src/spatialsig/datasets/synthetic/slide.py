"""One synthetic slide in memory: every part from its own stream of random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.datasets.synthetic.coordinates import Frames, make_frames, usual_orientation
from spatialsig.datasets.synthetic.image.artefacts import Artefacts, plan_artefacts
from spatialsig.datasets.synthetic.image.stain import Stain, draw_stain
from spatialsig.datasets.synthetic.tissue.expression import Counts, draw_counts
from spatialsig.datasets.synthetic.tissue.grow import Tissue, composition_shift, grow_tissue
from spatialsig.datasets.synthetic.tissue.nuclei import Nuclei, draw_nuclei
from spatialsig.datasets.synthetic.tissue.panel import Panel, load_panel

if TYPE_CHECKING:
    from spatialsig.datasets.synthetic.recipe import Recipe

_STREAMS = ("frames", "tissue", "counts", "nuclei", "stain", "pixels", "files", "structures", "artefacts")
# apart from the children of the slides, whose first spawn key is the index of the slide
_PATIENT_KEY = 1_000_000


@dataclass(frozen=True)
class SyntheticSlide:
    """One slide before any file is written."""

    sample: str
    patient: str
    recipe: Recipe
    frames: Frames
    tissue: Tissue
    nuclei: Nuclei
    stain: Stain
    artefacts: Artefacts
    counts: Counts
    panel: Panel = field(repr=False)
    pixel_seed: int
    file_seed: int


def make_slide(
    recipe: Recipe,
    *,
    seed: int,
    index: int,
    sample: str,
    patient: str,
    patient_index: int,
    rotation_deg: float | None = None,
) -> SyntheticSlide:
    """Draw slide ``index`` of the cohort ``seed``; how many slides the cohort has makes no difference."""
    children = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(len(_STREAMS))
    streams = {name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)}
    patient_stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PATIENT_KEY, patient_index)))
    usual_deg, mirrored = usual_orientation(index, streams["frames"])
    frames = make_frames(
        streams["frames"],
        size_um=recipe.size_um,
        pixel_size_um=recipe.pixel_size_um,
        he_um_per_px=recipe.he_um_per_px,
        rotation_deg=usual_deg if rotation_deg is None else rotation_deg,
        mirrored=mirrored and rotation_deg is None,
        registration_error_um=recipe.registration_error_um,
    )
    tissue = grow_tissue(
        streams["tissue"],
        extent_um=frames.extent_um,
        margin_um=frames.margin_um,
        density_per_mm2=recipe.density_per_mm2,
        gap_share=recipe.gap_share,
        shift=composition_shift(patient_stream, slide_sd=recipe.slide_sd),
        structure_rng=streams["structures"],
        lumen_share=recipe.lumen_share,
        fat_share=recipe.fat_share,
    )
    panel = load_panel()
    return SyntheticSlide(
        sample=sample,
        patient=patient,
        recipe=recipe,
        frames=frames,
        tissue=tissue,
        nuclei=draw_nuclei(streams["nuclei"], tissue, frames, image_signal=recipe.image_signal, warp_um=recipe.warp_um),
        stain=draw_stain(streams["stain"], stain_sd=recipe.stain_sd),
        artefacts=plan_artefacts(
            streams["artefacts"],
            frames,
            tissue,
            n_folds=recipe.n_folds,
            n_pen=recipe.n_pen,
            defocus_share=recipe.defocus_share,
        ),
        counts=draw_counts(streams["counts"], tissue, panel, counts_per_cell=recipe.counts_per_cell),
        panel=panel,
        pixel_seed=int(streams["pixels"].integers(2**31)),
        file_seed=int(streams["files"].integers(2**31)),
    )
