"""Errors for settings that no synthetic slide can be made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import check_choice, check_fraction, check_positive
from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS
from spatialsig.datasets.synthetic.bundle.morphology import N_STAINS
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from spatialsig.datasets.synthetic.recipe import Recipe

_MOST_HOLLOW = 0.6


def check_recipe(recipe: Recipe) -> None:
    """Raise :class:`InputError` for a number no slide can be made with."""
    check_positive(
        size_um=recipe.size_um,
        counts_per_cell=recipe.counts_per_cell,
        density_per_mm2=recipe.density_per_mm2,
        he_um_per_px=recipe.he_um_per_px,
        pixel_size_um=recipe.pixel_size_um,
    )
    check_choice(recipe.version, LAYOUTS, name="version")
    check_choice(recipe.stains, N_STAINS, name="stains")
    if recipe.stains > 1 and LAYOUTS[recipe.version].morphology == "projections":
        msg = f'`stains={recipe.stains}` needs `version` "2.0" or later; got `version={recipe.version!r}`.'
        raise InputError(msg)
    check_fraction(image_signal=recipe.image_signal, gap_share=recipe.gap_share)
    _check_difficulty(recipe)
    for name in ("stain_sd", "slide_sd", "registration_error_um", "warp_um"):
        value = getattr(recipe, name)
        if not (np.isfinite(value) and value >= 0):
            msg = f"`{name}` must be a finite number of at least 0; got {value!r}."
            raise InputError(msg)


def _check_difficulty(recipe: Recipe) -> None:
    """Shares that leave room for tissue, and whole numbers of strokes."""
    shares = ("lumen_share", "fat_share", "defocus_share")
    check_fraction(**{name: getattr(recipe, name) for name in shares})
    if recipe.lumen_share + recipe.fat_share > _MOST_HOLLOW:
        msg = (
            f"`lumen_share={recipe.lumen_share!r}` and `fat_share={recipe.fat_share!r}` together leave too little "
            f"tissue; their sum may be at most {_MOST_HOLLOW}."
        )
        raise InputError(msg)
    for name in ("n_folds", "n_pen"):
        value = getattr(recipe, name)
        if not isinstance(value, (int, np.integer)) or value < 0:
            msg = f"`{name}` must be a whole number of at least 0; got {value!r}."
            raise InputError(msg)
