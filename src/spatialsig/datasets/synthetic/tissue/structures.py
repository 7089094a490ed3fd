"""Empty structures of the tissue: glands with a lumen and a lining, and lobules of fat. Lengths in um.

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/tissue/grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES, PROGRAMME_TYPE
from spatialsig.datasets.synthetic.tissue.fields import Field, grid_points, smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_UM = 1.0  # rims of fat cells are about two um wide
_FAR_UM = 1e3
_LUMEN_UM = (18.0, 60.0)  # mean radius
_LUMEN_GAP_UM = 34.0  # room for the linings of two neighbours
_LINING_UM = 7.0  # nuclei of the lining behind the edge, and their spacing
_LINING_DEPTH_UM = 11.0
_LUMEN_TRIES = 600
_FAT_SPACING_UM = 56.0
_FAT_LENGTH_UM = 90.0
_FAT_RIM_UM = 1.0  # half the wall between two fat cells
_FAT_NUCLEI = 0.7  # per fat cell; a section misses the others
_CLEARANCE_UM = 4.5


@dataclass(frozen=True)
class Structures:
    """Hollows of the tissue, and the cells that belong to them."""

    hollow: Field  # signed distance to the edge of the nearest hollow, above 0 where there is tissue, um
    # below 0 inside a lumen, inside a fat lobule
    lumen: Field
    fat: Field
    # lining cells and nuclei of fat cells: (n, 2), (n,), and the direction of their long axis (n,)
    xy_um: NDArray[np.float64]
    cell_type: NDArray[np.int64]
    angle: NDArray[np.float64]
    keep_out_um: Field  # how far from a hollow other cells stay, on the grid of hollow


@dataclass(frozen=True)
class _Lumen:
    x: float
    y: float
    radius: float
    lobes: NDArray[np.float64]  # amplitude and phase of the second and third harmonic

    @property
    def reach(self) -> float:
        return self.radius * float(1 + self.lobes[0] + self.lobes[2])

    def edge(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Radius of the outline in each direction."""
        amp2, phase2, amp3, phase3 = self.lobes
        outline: NDArray[np.float64] = self.radius * (
            1 + amp2 * np.cos(2 * theta + phase2) + amp3 * np.cos(3 * theta + phase3)
        )
        return outline


def _window(grid: Field, x: float, y: float, reach: float) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """Part of a grid around a place, and its points relative to it ``(rows, columns, 2)``."""
    n = len(grid.values)
    low = [max(int((value - reach) / grid.step_um), 0) for value in (x, y)]
    high = [min(int((value + reach) / grid.step_um) + 2, n) for value in (x, y)]
    columns, rows = (np.arange(a, b) * grid.step_um for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(columns - x, rows - y), axis=-1)
    return (slice(low[1], high[1]), slice(low[0], high[0])), points


def _draw_lumens(
    rng: np.random.Generator, outline: Field, fat_cells: NDArray[np.float64], target_um2: float
) -> list[_Lumen]:
    """Lumens that keep clear of each other, of fat and of the edge, until they have the area asked for."""
    lumens: list[_Lumen] = []
    area, failures = 0.0, 0
    extent = (len(outline.values) - 1) * outline.step_um
    while area < target_um2 and failures < _LUMEN_TRIES:
        # smaller ones where the large no longer find room
        largest = _LUMEN_UM[1] - (_LUMEN_UM[1] - _LUMEN_UM[0]) * failures / _LUMEN_TRIES
        radius = float(np.exp(rng.uniform(*np.log([_LUMEN_UM[0], largest]))))
        radius = min(radius, float(np.sqrt((target_um2 - area) / np.pi)) + 8.0)
        amp2, amp3 = rng.uniform(0.05, 0.35), rng.uniform(0.0, 0.12)
        lobes = np.array([amp2, rng.uniform(0, 2 * np.pi), amp3, rng.uniform(0, 2 * np.pi)])
        x, y = rng.uniform(0, extent, 2)
        lumen = _Lumen(float(x), float(y), radius, lobes)
        clear = all(
            np.hypot(lumen.x - other.x, lumen.y - other.y) > lumen.reach + other.reach + _LUMEN_GAP_UM
            for other in lumens
        )
        to_fat = np.hypot(*(fat_cells[:, :2] - (x, y)).T) - fat_cells[:, 2]
        room = min(float(outline.at(np.array([[x, y]]))[0]), float(to_fat.min(initial=_FAR_UM)))
        if clear and room > lumen.reach + _LUMEN_GAP_UM / 2:
            lumens.append(lumen)
            area += np.pi * radius**2 * float(1 + (lobes[0] ** 2 + lobes[2] ** 2) / 2)
            failures = 0
        else:
            failures += 1
    return lumens


def _carve_lumens(field: NDArray[np.float32], lumens: list[_Lumen]) -> None:
    grid = Field(field, STEP_UM)
    for lumen in lumens:
        part, points = _window(grid, lumen.x, lumen.y, lumen.reach + 2 * _LUMEN_GAP_UM)
        theta = np.arctan2(points[..., 1], points[..., 0])
        distance = np.hypot(points[..., 0], points[..., 1]) - lumen.edge(theta)
        field[part] = np.minimum(field[part], distance)


def _lining(rng: np.random.Generator, lumen: _Lumen) -> NDArray[np.float64]:
    """One row of cells around a lumen, long axes towards it: x, y and angle, ``(n, 3)``."""
    theta = np.linspace(0, 2 * np.pi, 721)
    radius = lumen.edge(theta) + _LINING_UM
    ring = np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))]
    n = max(int(length[-1] / _LINING_UM), 3)
    along = (np.arange(n) + rng.uniform(-0.12, 0.12, n)) * length[-1] / n
    at = np.interp(along % length[-1], length, theta)
    depth = lumen.edge(at) + _LINING_UM + rng.normal(0, 0.8, n)
    x, y = lumen.x + depth * np.cos(at), lumen.y + depth * np.sin(at)
    return np.stack([x, y, at + rng.normal(0, 0.15, n)], axis=1)


def _fat_cells(rng: np.random.Generator, lobule: Field, share: float, outline: Field) -> NDArray[np.float64]:
    """Centres and radii of fat cells on a shaken hexagonal lattice inside the lobules, ``(n, 3)``."""
    extent = (len(lobule.values) - 1) * lobule.step_um
    rows = np.arange(0, extent, _FAT_SPACING_UM * np.sqrt(0.75))
    columns = np.arange(0, extent, _FAT_SPACING_UM)
    xy = np.stack(np.meshgrid(columns, rows), axis=-1)
    xy[1::2, :, 0] += _FAT_SPACING_UM / 2
    xy = xy.reshape(-1, 2) + rng.normal(0, 0.13 * _FAT_SPACING_UM, (xy.size // 2, 2))
    inside = outline.at(xy) > 0.35 * _FAT_SPACING_UM
    level = lobule.at(xy)
    # a share of the tissue, so the lattice sites in tissue are what it is a share of
    n = round(share * int((outline.at(xy) > 0).sum()))
    chosen = np.argsort(np.where(inside, -level, np.inf), kind="stable")[: min(n, int(inside.sum()))]
    radius = 0.56 * _FAT_SPACING_UM * rng.normal(1, 0.07, len(chosen))
    return np.column_stack([xy[chosen], radius])


def _carve_fat(hollow: NDArray[np.float32], fat: NDArray[np.float32], cells: NDArray[np.float64]) -> None:
    """Bubbles pressed against each other: circles cut halfway to the next one, a thin wall between."""
    tree = cKDTree(cells[:, :2])
    reach = cells[:, 2].max() + 8.0
    for start in range(0, len(hollow), 256):
        rows, columns = np.mgrid[start : min(start + 256, len(hollow)), : hollow.shape[1]]
        points = np.stack([columns.ravel(), rows.ravel()], axis=1) * STEP_UM
        near, which = tree.query(points, k=2, distance_upper_bound=reach)
        touched = np.isfinite(near[:, 0])
        if not touched.any():
            continue
        first, second = near[touched].T
        radius = cells[which[touched, 0], 2]
        wall = np.where(np.isfinite(second), (second - first) / 2 - _FAT_RIM_UM, np.inf)
        inside = np.minimum(radius - first, wall)
        for field, values in ((hollow, -inside), (fat, first - radius - 2 * _FAT_RIM_UM)):
            band = field[start : start + 256].reshape(-1)
            band[touched] = np.minimum(band[touched], values)


def _fat_nuclei(rng: np.random.Generator, hollow: Field, cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Flat nuclei in the walls of some fat cells: x, y and angle, ``(n, 3)``."""
    chosen = cells[rng.random(len(cells)) < _FAT_NUCLEI]
    theta = rng.uniform(0, 2 * np.pi, len(chosen))
    towards = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    steps = np.arange(5.0, chosen[:, 2].max(initial=5.0) + 6.0, 0.5)
    rays = chosen[:, None, :2] + steps[None, :, None] * towards[:, None]
    in_wall = hollow.at(rays.reshape(-1, 2)).reshape(len(chosen), -1) > 0
    wall = steps[in_wall.argmax(axis=1)] + 0.5
    return np.column_stack([chosen[:, :2] + wall[:, None] * towards, theta + np.pi / 2])[in_wall.any(axis=1)]


def _thicken(hollow: NDArray[np.float32], nuclei: NDArray[np.float64]) -> None:
    """Make room for nuclei in walls thinner than they are."""
    grid = Field(hollow, STEP_UM)
    for x, y, angle in nuclei:
        part, points = _window(grid, x, y, 10.0)
        u = points[..., 0] * np.cos(angle) + points[..., 1] * np.sin(angle)
        v = points[..., 1] * np.cos(angle) - points[..., 0] * np.sin(angle)
        bulge = 2.0 * (1 - np.hypot(u / 8.0, v / 2.2))
        hollow[part] = np.maximum(hollow[part], bulge)


def _apart(xy_um: NDArray[np.float64], outline: Field, hollow: Field) -> NDArray[np.bool_]:
    """Which extra cells lie in the tissue and keep clear of those before them."""
    keep = (outline.at(xy_um) > 0) & (hollow.at(xy_um) > 0)
    pairs = cKDTree(xy_um).query_pairs(_CLEARANCE_UM, output_type="ndarray")
    for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        keep[second] &= not keep[first]
    return keep


def grow_structures(
    rng: np.random.Generator, *, extent_um: float, outline: Field, lumen_share: float, fat_share: float
) -> Structures:
    """Place fat lobules and glands inside the outline of a tissue; shares are those of its area."""
    n = grid_points(extent_um, STEP_UM)
    lumen = np.full((n, n), _FAR_UM, dtype=np.float32)
    fat, hollow = lumen.copy(), lumen.copy()
    lobule = smooth_field(rng, extent_um=extent_um, length_um=_FAT_LENGTH_UM)
    fat_cells = _fat_cells(rng, lobule, fat_share, outline)
    nuclei = np.empty((0, 3))
    if len(fat_cells):
        _carve_fat(hollow, fat, fat_cells)
        nuclei = _fat_nuclei(rng, Field(hollow, STEP_UM), fat_cells)
        _thicken(hollow, nuclei)
    area_um2 = float((outline.values > 0).sum()) * outline.step_um**2
    lumens = _draw_lumens(rng, outline, fat_cells, lumen_share * area_um2)
    _carve_lumens(lumen, lumens)
    linings = np.concatenate([np.empty((0, 3)), *(_lining(rng, each) for each in lumens)])
    extra = np.concatenate([linings, nuclei])
    types = np.repeat([CELL_TYPES.index(PROGRAMME_TYPE), CELL_TYPES.index("Endothelial")], [len(linings), len(nuclei)])
    every = Field(np.minimum(hollow, lumen), STEP_UM)
    keep = _apart(extra[:, :2], outline, every)
    return Structures(
        hollow=every, lumen=Field(lumen, STEP_UM), fat=Field(fat, STEP_UM), xy_um=extra[keep, :2],
        cell_type=types[keep].astype(np.int64), angle=extra[keep, 2],
        keep_out_um=Field(np.minimum(hollow, lumen - _LINING_DEPTH_UM), STEP_UM),
    )  # fmt: skip
