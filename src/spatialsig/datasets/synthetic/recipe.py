"""Settings that all slides of a synthetic cohort share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings that the slides of a cohort share; the fields are documented in :func:`synthetic_xenium`."""

    size_um: float
    counts_per_cell: float = 150.0
    density_per_mm2: float = 4500.0
    image_signal: float = 1.0
    stain_sd: float = 0.12
    slide_sd: float = 0.35
    gap_share: float = 0.03
    registration_error_um: float = 0.0
    warp_um: float = 0.0
    he_um_per_px: float = 0.2738
    pixel_size_um: float = 0.2125
    transcripts: bool = True
    version: str = "3.0"
    stains: int = 1
    he_in_bundle: bool = True
    lumen_share: float = 0.0
    fat_share: float = 0.0
    n_folds: int = 0
    n_pen: int = 0
    defocus_share: float = 0.0
