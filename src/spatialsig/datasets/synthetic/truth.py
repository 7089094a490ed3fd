"""Planted truth of a slide: masks in the frame of the H&E, noiseless rates per cell, and the score every patch should get.

Floor 8, above io, pl, pp, tl. Used by datasets/_toy, datasets/_xenium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numba
import numpy as np
import pandas as pd
import tifffile

from spatialsig import _keys as keys
from spatialsig.datasets.synthetic.image.appearance import BLURRED
from spatialsig.datasets.synthetic.image.draw_artefacts import stroke_place
from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide

MASKS = ("white", "lumen", "fat", "fold", "pen", "defocus")
MASK_PX = 4  # H&E px per side of a mask pixel
_BAND = 256
HE_PX = "he_px"
PATCH_UM = 112.0


@numba.njit(cache=True, nogil=True)
def _within(xy_um: NDArray[np.float64], strokes: NDArray[np.float64], out: NDArray[np.bool_]) -> None:
    for index in range(xy_um.shape[0]):
        for stroke in strokes:
            _, across, half = stroke_place(stroke, xy_um[index, 0], xy_um[index, 1])
            if abs(across) < half:
                out[index] = True


def _in_strokes(xy_um: NDArray[np.float64], strokes: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(xy_um), dtype=np.bool_)
    _within(xy_um, strokes, inside)
    return inside


def _at(slide: SyntheticSlide, xy_um: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Every mask at points ``(n, 2)`` um, in the order of :data:`MASKS`."""
    structures, spoiled = slide.tissue.structures, slide.artefacts
    nowhere = np.zeros(len(xy_um), dtype=np.bool_)
    white = slide.tissue.outline.at(xy_um) <= 0
    return [
        white,
        structures.lumen.at(xy_um) < 0 if structures else nowhere,
        structures.fat.at(xy_um) < 0 if structures else nowhere,
        ~white & _in_strokes(xy_um, spoiled.folds),
        _in_strokes(xy_um, spoiled.pens),
        ~white & (spoiled.defocus.at(xy_um) > BLURRED) if spoiled.defocus else nowhere,
    ]


def true_masks(slide: SyntheticSlide) -> NDArray[np.uint8]:
    """Masks ``(len(MASKS), rows, columns)``, 0 or 1; a pixel is :data:`MASK_PX` H&E px wide and tells of its centre.

    ``white`` is glass without tissue: around it, in its gaps and lumens, and in the fat cells. Folds and blur are
    marked on tissue only, for glass shows neither.
    """
    shape = tuple(-(-side // MASK_PX) for side in slide.frames.he_shape)
    masks = np.empty((len(MASKS), *shape), dtype=np.uint8)
    for row0 in range(0, shape[0], _BAND):
        n_rows = min(_BAND, shape[0] - row0)
        rows, columns = np.mgrid[row0 : row0 + n_rows, : shape[1]]
        he_px = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * MASK_PX
        values = _at(slide, apply(slide.frames.he_to_um, he_px))
        masks[:, row0 : row0 + n_rows] = np.reshape(values, (len(MASKS), n_rows, shape[1]))
    return masks


def patch_shares(masks: NDArray[np.uint8], patch_px: int, n_rows: int, n_cols: int) -> NDArray[np.float64]:
    """Share of each mask in each patch, ``(n_rows * n_cols, len(MASKS))``, by the mask pixels whose centre it holds."""
    edges = [np.ceil(np.arange(n + 1) * patch_px / MASK_PX - 0.5).astype(np.int64) for n in (n_rows, n_cols)]
    used = masks[:, : edges[0][-1], : edges[1][-1]]
    total = np.add.reduceat(used, edges[0][:-1], axis=1, dtype=np.int64)
    total = np.add.reduceat(total, edges[1][:-1], axis=2)
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    shares: NDArray[np.float64] = (total / area).reshape(len(masks), -1).T
    return shares


def write_masks(path: Path, masks: NDArray[np.uint8], *, um_per_px: float) -> None:
    """Write the masks as one TIFF, a page per mask, their names in its description."""
    tifffile.imwrite(
        path, masks, photometric="minisblack", compression="zlib", predictor=False,
        metadata={"axes": "CYX", "masks": list(MASKS), "he_px_per_px": MASK_PX, "um_per_px": MASK_PX * um_per_px},
    )  # fmt: skip


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
        obsm={keys.SPATIAL: slide.tissue.xy_um, HE_PX: apply(slide.frames.um_to_he, slide.nuclei.centre_um)},
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
