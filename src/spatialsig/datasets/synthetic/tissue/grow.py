"""Positions, types and programme of the cells of one synthetic slide.

Floor 8, above io, pl, pp, tl. Used by 5 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.spatial import cKDTree

from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES
from spatialsig.datasets.synthetic.tissue.fields import Field, line_field, outline_distance, smooth_field
from spatialsig.datasets.synthetic.tissue.structures import STEP_UM, Structures, grow_structures
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# share and length scale (um) of each type's region, in the order of CELL_TYPES
_SHARES = np.array([0.34, 0.16, 0.08, 0.16, 0.08, 0.04, 0.06, 0.08])
_LENGTHS_UM = (192.0, 112.0, 96.0, 160.0, 160.0, 80.0, 80.0, 96.0)
_CONTRAST = 1.8  # spread of the logits: how pure the regions are
_DENSITY_LENGTH_UM = 128.0
_DENSITY_SD = 0.45
_PROGRAMME_LENGTH_UM = 96.0
_HARD_CORE_UM = 4.5
_OVERDRAW = 1.3
_EDGE_UM = 4.0  # nuclei stay this far inside the tissue


@dataclass(frozen=True)
class Tissue:
    """Cells and the fields they were drawn from."""

    xy_um: NDArray[np.float64]  # nucleus centres, (n_cells, 2), um
    cell_type: NDArray[np.int64]  # index into CELL_TYPES, (n_cells,)
    programme: NDArray[np.float64]  # proliferation programme z at each cell, (n_cells,)
    outline: Field  # signed distance to the edge of the tissue, um
    fibres: tuple[Field, Field]  # orientation of the fibres: cos and sin of twice the angle
    angle: NDArray[np.float64]  # direction of the long axis where a structure sets it, NaN elsewhere, (n_cells,)
    structures: Structures | None = None  # lumens and fat, or None


def composition_shift(rng: np.random.Generator, *, slide_sd: float) -> NDArray[np.float64]:
    """Draw a patient's own mixture of cell types: a shift of each logit, ``(n_types,)``."""
    return rng.normal(0.0, slide_sd, len(CELL_TYPES))


@numba.njit(cache=True, nogil=True)
def _hard_core(pairs: NDArray[np.int64], keep: NDArray[np.bool_]) -> None:
    """Drop the later cell of every pair whose earlier cell still stands."""
    for row in range(pairs.shape[0]):
        if keep[pairs[row, 0]]:
            keep[pairs[row, 1]] = False


def _positions(
    rng: np.random.Generator, *, extent_um: float, density_per_mm2: float, outline: Field
) -> NDArray[np.float64]:
    """Log-Gaussian Cox process with a hard core, in random order, ``(n_cells, 2)`` um."""
    crowding = smooth_field(rng, extent_um=extent_um, length_um=_DENSITY_LENGTH_UM)
    peak = float(np.exp(_DENSITY_SD * crowding.values.max()))
    # more than wanted, because the hard core takes some; what is too many goes afterwards
    n = rng.poisson(_OVERDRAW * density_per_mm2 * 1e-6 * extent_um**2 * peak)
    xy = rng.uniform(0.0, extent_um, (n, 2))
    accepted = rng.random(n) * peak < np.exp(_DENSITY_SD * crowding.at(xy))
    xy = xy[accepted & (outline.at(xy) > _EDGE_UM)]
    pairs = cKDTree(xy).query_pairs(_HARD_CORE_UM, output_type="ndarray")
    keep = np.ones(len(xy), dtype=np.bool_)
    _hard_core(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], keep)
    area_mm2 = 1e-6 * outline.step_um**2 * float((outline.values > _EDGE_UM).sum())
    cells: NDArray[np.float64] = xy[keep][: rng.poisson(density_per_mm2 * area_mm2)]
    if len(cells) < 2:
        msg = (
            f"a slide of this `size_um` has {len(cells)} cells at {density_per_mm2:g} cells per mm²; wanted at least 2. "
            "Choose a larger `size_um`, such as 100."
        )
        raise InputError(msg)
    return cells


def _types(
    rng: np.random.Generator, xy_um: NDArray[np.float64], *, extent_um: float, shift: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Draw each cell's type from the softmax of one smooth field per type."""
    logits = np.stack(
        [smooth_field(rng, extent_um=extent_um, length_um=length).at(xy_um) for length in _LENGTHS_UM], axis=1
    )
    odds = np.exp(np.log(_SHARES) + shift + _CONTRAST * logits)
    steps = np.cumsum(odds, axis=1)
    drawn: NDArray[np.int64] = (rng.random(len(xy_um))[:, None] * steps[:, -1:] > steps).sum(axis=1)
    return drawn


def _refined(outline: Field, n: int) -> NDArray[np.float32]:
    """The outline on the grid of the structures, ``(n, n)``."""
    at = np.arange(n) * STEP_UM
    points = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    return outline.at(points).reshape(n, n)


def grow_tissue(
    rng: np.random.Generator, *, extent_um: float, margin_um: float, density_per_mm2: float, gap_share: float,
    shift: NDArray[np.float64], structure_rng: np.random.Generator, lumen_share: float = 0.0, fat_share: float = 0.0,
) -> Tissue:  # fmt: skip
    """Draw the outline, the cells, their types and their programme; structures have a stream of their own."""
    outline = outline_distance(rng, extent_um=extent_um, margin_um=margin_um, gap_share=gap_share)
    structures, free = None, outline
    if lumen_share > 0 or fat_share > 0:
        structures = grow_structures(
            structure_rng, extent_um=extent_um, outline=outline, lumen_share=lumen_share, fat_share=fat_share
        )
        fine = _refined(outline, len(structures.hollow.values))
        free = Field(np.minimum(fine, structures.keep_out_um.values), STEP_UM)
        outline = Field(np.minimum(fine, structures.hollow.values), STEP_UM)
    xy_um = _positions(rng, extent_um=extent_um, density_per_mm2=density_per_mm2, outline=free)
    angle = np.full(len(xy_um), np.nan)
    if structures is not None:
        xy_um, angle = np.concatenate([xy_um, structures.xy_um]), np.concatenate([angle, structures.angle])
    programme = smooth_field(rng, extent_um=extent_um, length_um=_PROGRAMME_LENGTH_UM)
    cell_type = _types(rng, xy_um, extent_um=extent_um, shift=shift)
    if structures is not None:
        cell_type[len(xy_um) - len(structures.xy_um) :] = structures.cell_type
    return Tissue(
        xy_um=xy_um, cell_type=cell_type, programme=programme.at(xy_um).astype(np.float64), outline=outline,
        fibres=line_field(rng, extent_um=extent_um), angle=angle, structures=structures,
    )  # fmt: skip
