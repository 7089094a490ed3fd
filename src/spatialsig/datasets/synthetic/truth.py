"""Planted truth of a slide: noiseless rates per cell, and the score every patch should get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from spatialsig import _keys as keys
from spatialsig.datasets.synthetic.masks import MASKS, patch_shares
from spatialsig.datasets.synthetic.tissue.panel import CELL_TYPES
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide

HE_PX = "he_px"
PATCH_UM = 112.0


def true_cells(slide: SyntheticSlide, cell_ids: list[str]) -> ad.AnnData:
    """Rates, types, programme and places of all cells; fields as in :func:`synthetic_xenium`."""
    names = np.array(CELL_TYPES)
    obs = pd.DataFrame(
        {
            keys.CELL_ID: cell_ids,
            keys.SAMPLE: pd.Categorical([slide.sample] * len(cell_ids)),
            keys.PATIENT: pd.Categorical([slide.patient] * len(cell_ids)),
            "cell_type": pd.Categorical(names[slide.tissue.cell_type], categories=CELL_TYPES),
            "drawn_type": pd.Categorical(names[slide.nuclei.drawn_type], categories=CELL_TYPES),
            "programme": slide.tissue.programme,
        },
        index=cell_ids,
    )
    var = pd.DataFrame({"gene_ids": slide.panel.gene_ids}, index=list(slide.panel.genes))
    return ad.AnnData(
        X=slide.counts.rates,
        obs=obs,
        var=var,
        obsm={
            keys.SPATIAL: slide.tissue.xy_um,
            HE_PX: apply(slide.frames.um_to_he, slide.nuclei.centre_um),
        },
        uns={
            "signatures": {name: np.array(genes) for name, genes in slide.panel.signatures.items()},
            "he_to_um": slide.frames.he_to_um,
            "alignment": slide.frames.alignment,
        },
    )


def cell_scores(slide: SyntheticSlide) -> pd.DataFrame:
    """Mean z-score of log1p(1e4 x share) over the genes of each signature, one row per cell."""
    rates = slide.counts.rates.astype(np.float64)
    logged = np.log1p(1e4 * rates / rates.sum(axis=1, keepdims=True))
    z = (logged - logged.mean(axis=0)) / logged.std(axis=0)
    return pd.DataFrame({name: z[:, slide.panel.columns(name)].mean(axis=1) for name in slide.panel.signatures})


def _patch_of_cell(slide: SyntheticSlide, size_l0: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Number of the whole patch that holds each nucleus, -1 for none, and the grid's rows and columns."""
    height, width = slide.frames.he_shape
    n_rows, n_cols = height // size_l0, width // size_l0
    he_px = apply(slide.frames.um_to_he, slide.nuclei.centre_um)
    col, row = np.floor(he_px / size_l0).astype(np.int64).T
    within = (row >= 0) & (col >= 0) & (row < n_rows) & (col < n_cols)
    return np.where(within, row * n_cols + col, -1), (n_rows, n_cols)


def true_patches(
    slide: SyntheticSlide, masks: NDArray[np.uint8] | None = None, *, patch_um: float = PATCH_UM
) -> pd.DataFrame:
    """Truth of the grid of whole, non-overlapping patches from the top-left corner of the H&E.

    Returns
    -------
    One row per patch in row-major order: ``y0``, ``x0`` and ``size_l0`` (H&E px), ``row``, ``col``, ``n_cells``,
    ``fraction_<type>``, ``programme`` (mean), ``score_<signature>`` (mean over the cells); NaN where no cell lies.
    With ``masks``, the share of the patch that each covers: ``white_share``, ``lumen_share``, ``fat_share``,
    ``fold_share``, ``pen_share``, ``defocus_share``.
    """
    size_l0 = round(patch_um / slide.recipe.he_um_per_px)
    patch, (n_rows, n_cols) = _patch_of_cell(slide, size_l0)
    values = pd.DataFrame(np.eye(len(CELL_TYPES))[slide.tissue.cell_type]).set_axis(
        [f"fraction_{name}" for name in CELL_TYPES], axis=1
    )
    values["programme"] = slide.tissue.programme
    values = values.join(cell_scores(slide).add_prefix("score_"))
    every = np.arange(n_rows * n_cols)
    grid = pd.DataFrame({keys.ROW: every // n_cols, keys.COL: every % n_cols})
    grid[keys.Y0], grid[keys.X0] = grid[keys.ROW] * size_l0, grid[keys.COL] * size_l0
    grid["size_l0"] = size_l0
    grid[keys.N_CELLS] = np.bincount(patch[patch >= 0], minlength=len(every))
    if masks is not None:
        grid[[f"{name}_share" for name in MASKS]] = patch_shares(masks, size_l0, n_rows, n_cols)
    return grid.join(values[patch >= 0].groupby(patch[patch >= 0]).mean())
