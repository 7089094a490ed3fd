"""Look of each synthetic cell: size, shape and stain of its nucleus and cytoplasm, in um and optical density.

Floor 8, above io, pl, pp, tl. Used by 4 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES, PROGRAMME_TYPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.coordinates import Frames
    from spatialsig.datasets.synthetic.tissue.grow import Tissue


@dataclass(frozen=True)
class Look:
    """Typical appearance of one cell type."""

    # half axes of the nucleus
    major_um: float
    minor_um: float
    density: float  # haematoxylin of the nucleus, optical density
    texture: float  # standard deviation of the chromatin, relative to density
    reach_um: float  # half length of the cytoplasm
    # eosin and haematoxylin of the cytoplasm, optical density
    eosin: float
    basophilia: float
    # how much darker the nuclear membrane and the nucleolus are, relative to density
    rim: float
    nucleolus: float
    spindle: bool = False  # drawn out along the fibres rather than round


_LOOKS = {
    "Tumour": Look(5.2, 4.2, 0.75, 0.18, 9.0, 0.35, 0.10, 0.30, 0.55),
    "T_cell": Look(3.2, 3.0, 1.25, 0.10, 4.0, 0.15, 0.06, 0.05, 0.0),
    "B_cell": Look(3.4, 3.2, 1.15, 0.12, 4.2, 0.15, 0.10, 0.10, 0.15),
    "Fibroblast": Look(7.0, 1.8, 0.95, 0.08, 8.0, 0.55, 0.0, 0.05, 0.0, spindle=True),
    "SmoothMuscle": Look(8.5, 1.9, 0.75, 0.06, 11.0, 0.80, 0.0, 0.05, 0.0, spindle=True),
    "Pericyte": Look(5.5, 2.0, 0.95, 0.08, 6.0, 0.5, 0.0, 0.05, 0.0, spindle=True),
    "Endothelial": Look(6.5, 1.6, 1.0, 0.08, 6.0, 0.4, 0.0, 0.0, 0.0, spindle=True),
    "Macrophage": Look(4.6, 3.6, 0.70, 0.12, 8.0, 0.35, 0.03, 0.20, 0.25),
}
LOOKS = tuple(_LOOKS[name] for name in CELL_TYPES)
STROMAL = np.array([look.spindle for look in LOOKS])

_SIZE_SD, _DENSITY_SD = 0.12, 0.15
_PROGRAMME_SIZE, _PROGRAMME_DENSITY = 0.22, 0.20
N_VERTICES = 24


@dataclass(frozen=True)
class Nuclei:
    """One row per cell; angles and lengths in the tissue's own um frame."""

    drawn_type: NDArray[np.int64]  # type whose look the cell has: its own, unless the image signal is turned down
    centre_um: NDArray[np.float64]  # where the nucleus is drawn, (n_cells, 2): the cell plus the residual warp
    axes_um: NDArray[np.float64]  # half axes of the nucleus, (n_cells, 2)
    cytoplasm_um: NDArray[np.float64]  # half axes of the cytoplasm, (n_cells, 2)
    direction: NDArray[np.float64]  # unit vector of the long axis, (n_cells, 2)
    # amplitude and phase of the second and third harmonic of the outline, (n_cells, 4). From the second harmonic on, an
    # outline keeps its centre of mass
    lobes: NDArray[np.float64]
    # as in Look, (n_cells,)
    density: NDArray[np.float64]
    texture: NDArray[np.float64]
    eosin: NDArray[np.float64]
    basophilia: NDArray[np.float64]
    rim: NDArray[np.float64]
    nucleolus: NDArray[np.float64]

    def outlines_um(self) -> NDArray[np.float64]:
        """Vertices of the nuclei relative to their centres, ``(n_cells, N_VERTICES, 2)`` um."""
        phi = np.linspace(0, 2 * np.pi, N_VERTICES, endpoint=False)
        amp2, phase2, amp3, phase3 = (column[:, None] for column in self.lobes.T)
        radius = 1 + amp2 * np.cos(2 * phi + phase2) + amp3 * np.cos(3 * phi + phase3)
        u = self.axes_um[:, :1] * radius * np.cos(phi)
        v = self.axes_um[:, 1:] * radius * np.sin(phi)
        cos, sin = self.direction[:, :1], self.direction[:, 1:]
        return np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1)


def _column(name: str, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([getattr(look, name) for look in LOOKS], dtype=np.float64)[drawn]


def _directions(rng: np.random.Generator, tissue: Tissue, spindle: NDArray[np.bool_]) -> NDArray[np.float64]:
    cos2, sin2 = (field.at(tissue.xy_um) for field in tissue.fibres)
    along = 0.5 * np.arctan2(sin2, cos2)
    jitter = np.where(spindle, rng.normal(0, 0.25, len(along)), rng.uniform(0, np.pi, len(along)))
    angle = np.where(np.isnan(tissue.angle), along + jitter, tissue.angle)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _warp(rng: np.random.Generator, xy_um: NDArray[np.float64], frames: Frames, warp_um: float) -> NDArray[np.float64]:
    """Residual displacement of the H&E that no affine undoes: one slow wave per axis, ``(n_cells, 2)`` um."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    waves: NDArray[np.float64] = np.sin(2 * np.pi * xy_um[:, ::-1] / (0.7 * frames.extent_um) + phase)
    return warp_um * waves


def draw_nuclei(
    rng: np.random.Generator, tissue: Tissue, frames: Frames, *, image_signal: float, warp_um: float
) -> Nuclei:
    """Give every cell its look; a share ``1 - image_signal`` of the cells takes that of another cell."""
    n = len(tissue.xy_um)
    other = rng.permutation(n)
    source = np.where(rng.random(n) < image_signal, np.arange(n), other)
    drawn = tissue.cell_type[source]
    spindle = STROMAL[drawn]
    active = np.tanh(tissue.programme[source]) * (drawn == CELL_TYPES.index(PROGRAMME_TYPE))
    size = 1 + _PROGRAMME_SIZE * active
    axes = np.stack([_column("major_um", drawn), _column("minor_um", drawn)], axis=1)
    reach = _column("reach_um", drawn) * rng.lognormal(0, 0.08, n)
    amplitude = rng.uniform(0.0, np.where(spindle, 0.05, 0.10)[:, None], (n, 2))
    phase = rng.uniform(0, 2 * np.pi, (n, 2))
    return Nuclei(
        drawn_type=drawn, centre_um=tissue.xy_um + _warp(rng, tissue.xy_um, frames, warp_um),
        axes_um=axes * size[:, None] * rng.lognormal(0, _SIZE_SD, (n, 2)),
        cytoplasm_um=np.stack([reach, reach * np.where(spindle, 0.45, 1.0)], axis=1),
        direction=_directions(rng, tissue, spindle),
        lobes=np.stack([amplitude[:, 0], phase[:, 0], amplitude[:, 1], phase[:, 1]], axis=1),
        density=_column("density", drawn) * rng.lognormal(0, _DENSITY_SD, n) * (1 + _PROGRAMME_DENSITY * active),
        texture=_column("texture", drawn), eosin=_column("eosin", drawn) * rng.lognormal(0, 0.10, n),
        basophilia=_column("basophilia", drawn), rim=_column("rim", drawn),
        nucleolus=_column("nucleolus", drawn) * (rng.random(n) < 0.7),
    )  # fmt: skip
