"""One synthetic slide in memory, made by a recipe: every part from its own stream of random numbers.

Floor 8, above io, pl, pp, tl. Used by 8 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from spatialsig._arguments import Fraction, Natural, NotNegative, Positive, UmPerPx, checked_class
from spatialsig._checks import check_choice
from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS
from spatialsig.datasets.synthetic.bundle.morphology import N_STAINS
from spatialsig.datasets.synthetic.coordinates import Frames, make_frames, usual_orientation
from spatialsig.datasets.synthetic.image.appearance import Artefacts, Stain, draw_stain, plan_artefacts
from spatialsig.datasets.synthetic.tissue.expression import Counts, Panel, draw_counts, load_panel
from spatialsig.datasets.synthetic.tissue.grow import Tissue, composition_shift, grow_tissue
from spatialsig.datasets.synthetic.tissue.nuclei import Nuclei, draw_nuclei
from spatialsig.errors import InputError

Depth: TypeAlias = Annotated[float, Field(ge=1e-3, le=10**6)]  # counts of a cell

_MOST_HOLLOW = 0.6
_STREAMS = ("frames", "tissue", "counts", "nuclei", "stain", "pixels", "files", "structures", "artefacts")
# apart from the children of the slides, whose first spawn key is the index of the slide
_PATIENT_KEY = 1_000_000


@checked_class
@dataclass(frozen=True)
class Recipe:
    """Settings that the slides of a cohort share; the fields are documented in :func:`synthetic_xenium`."""

    size_um: Positive
    counts_per_cell: Depth = 150.0
    density_per_mm2: Positive = 4500.0
    image_signal: Fraction = 1.0
    stain_sd: NotNegative = 0.12
    slide_sd: NotNegative = 0.35
    gap_share: Fraction = 0.03
    registration_error_um: NotNegative = 0.0
    warp_um: NotNegative = 0.0
    he_um_per_px: UmPerPx = 0.2738
    pixel_size_um: Positive = 0.2125
    transcripts: bool = True
    version: str = "3.0"
    stains: int = 1
    he_in_bundle: bool = True
    lumen_share: Fraction = 0.0
    fat_share: Fraction = 0.0
    n_folds: Natural = 0
    n_pen: Natural = 0
    defocus_share: float = 0.0


def check_recipe(recipe: Recipe) -> None:
    """Raise :class:`InputError` for a number no slide can be made with."""
    check_choice(recipe.version, LAYOUTS, name="version")
    check_choice(recipe.stains, N_STAINS, name="stains")
    if recipe.stains > 1 and LAYOUTS[recipe.version].morphology == "projections":
        msg = f'`stains={recipe.stains}` needs `version` "2.0" or later; got `version={recipe.version!r}`.'
        raise InputError(msg)
    _check_difficulty(recipe)


def _check_difficulty(recipe: Recipe) -> None:
    """Shares that leave room for tissue."""
    if recipe.lumen_share + recipe.fat_share > _MOST_HOLLOW:
        msg = (
            f"`lumen_share={recipe.lumen_share!r}` and `fat_share={recipe.fat_share!r}` together leave too little "
            f"tissue; their sum may be at most {_MOST_HOLLOW}."
        )
        raise InputError(msg)


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
    recipe: Recipe, *, seed: int, index: int, sample: str, patient: str, patient_index: int,
    rotation_deg: float | None = None,
) -> SyntheticSlide:  # fmt: skip
    """Draw slide ``index`` of the cohort ``seed``; how many slides the cohort has makes no difference."""
    children = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(len(_STREAMS))
    streams = {name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)}
    patient_stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PATIENT_KEY, patient_index)))
    usual_deg, mirrored = usual_orientation(index, streams["frames"])
    frames = make_frames(
        streams["frames"], size_um=recipe.size_um, pixel_size_um=recipe.pixel_size_um, he_um_per_px=recipe.he_um_per_px,
        rotation_deg=usual_deg if rotation_deg is None else rotation_deg, mirrored=mirrored and rotation_deg is None,
        registration_error_um=recipe.registration_error_um,
    )  # fmt: skip
    tissue = grow_tissue(
        streams["tissue"], extent_um=frames.extent_um, margin_um=frames.margin_um,
        density_per_mm2=recipe.density_per_mm2, gap_share=recipe.gap_share,
        shift=composition_shift(patient_stream, slide_sd=recipe.slide_sd), structure_rng=streams["structures"],
        lumen_share=recipe.lumen_share, fat_share=recipe.fat_share,
    )  # fmt: skip
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
