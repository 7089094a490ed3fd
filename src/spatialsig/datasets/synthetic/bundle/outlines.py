"""Segmentation of the synthetic cells: polygons as Xenium writes them, and their rasters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.tissue.nuclei import Nuclei

_EXPANSION_UM = 5.0
_NEIGHBOURS = 10
_SHARE_OF_WAY = 0.97  # polygons stop short of the line halfway to a neighbour, so that they never touch


@dataclass(frozen=True)
class Outlines:
    """Polygons of all cells, open rings ``(n_cells, N_VERTICES, 2)`` in um, absolute; vertex k of both on one ray."""

    nucleus: NDArray[np.float64]
    cell: NDArray[np.float64]


def segment(nuclei: Nuclei, xy_um: NDArray[np.float64]) -> Outlines:
    """Nuclei as drawn, and cells as their expansion by 5 um, both kept on their side of every neighbour."""
    spokes = nuclei.outlines_um()
    radius = np.linalg.norm(spokes, axis=-1)
    rays = spokes / radius[..., None]
    limit = np.full_like(radius, np.inf)
    k = min(_NEIGHBOURS + 1, len(xy_um))
    neighbours = np.atleast_2d(cKDTree(xy_um).query(xy_um, k=k)[1].reshape(len(xy_um), -1))[:, 1:]
    for other in neighbours.T:
        towards = xy_um[other] - xy_um
        along = np.einsum("nvd,nd->nv", rays, towards)
        halfway = 0.5 * (towards**2).sum(axis=1)[:, None] / np.where(along > 1e-9, along, np.nan)
        limit = np.fmin(limit, _SHARE_OF_WAY * halfway)
    centre = xy_um[:, None]
    return Outlines(
        nucleus=centre + rays * np.minimum(radius, limit)[..., None],
        cell=centre + rays * np.minimum(radius + _EXPANSION_UM, limit)[..., None],
    )


def areas(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each ring ``(n, n_vertices, 2)``, in the square of its unit."""
    x, y = rings[..., 0], rings[..., 1]
    twice: NDArray[np.float64] = (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)
    return np.abs(twice) / 2


@numba.njit(cache=True, nogil=True)
def _fill_ring(band: NDArray[Any], row0: int, ring: NDArray[np.float64], value: float) -> None:
    height, width = band.shape
    n = ring.shape[0]
    crossings = np.empty(n, np.float64)
    first = max(int(np.ceil(ring[:, 1].min() - 0.5)), row0)
    last = min(int(np.floor(ring[:, 1].max() - 0.5)), row0 + height - 1)
    for row in range(first, last + 1):
        y = row + 0.5
        count = 0
        for k in range(n):
            x0, y0 = ring[k]
            x1, y1 = ring[(k + 1) % n]
            if (y0 <= y) != (y1 <= y):
                # kept in order; there are hardly ever more than two
                x = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                place = count
                while place > 0 and crossings[place - 1] > x:
                    crossings[place] = crossings[place - 1]
                    place -= 1
                crossings[place] = x
                count += 1
        for pair in range(0, count - 1, 2):
            start = max(int(np.ceil(crossings[pair] - 0.5)), 0)
            stop = min(int(np.floor(crossings[pair + 1] - 0.5)), width - 1)
            for col in range(start, stop + 1):
                band[row - row0, col] = value


@numba.njit(cache=True, nogil=True)
def fill_rings(band: NDArray[Any], row0: int, rings: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Fill every ring with its value on rows ``row0 ...`` of an image, pixels whose centre lies inside.

    ``band`` may be of any number type, ``rings`` is ``(n, n_vertices, 2)`` px.
    """
    bottom = row0 + band.shape[0]
    for index in range(rings.shape[0]):
        if rings[index, :, 1].max() >= row0 and rings[index, :, 1].min() <= bottom:
            _fill_ring(band, row0, rings[index], values[index])
