"""Fits of the nuclei of an H&E to the cells, for one way to read the alignment.

Floor 7, above evaluation. Used by pp/_qc_alignment, pp/_registration_scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._settings import settings
from spatialsig.geometry.affine import apply
from spatialsig.stats.registration import add_up, correlate, find_peak, share_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.geometry.mistakes import Hypothesis
    from spatialsig.pp._registration_image import NucleiRasters
    from spatialsig.stats.registration import Peak, Surface

# a peak of noise among the shifts of a 75-um search stays below 5 sd, and has rivals above .65 of its height
MIN_HEIGHT = 6.5
MAX_SECOND = 0.6
PLAUSIBLE_UM_PER_PX = (0.08, 4.0)  # no slide was ever scanned outside
SQUARE_UM, N_SQUARES = 600.0, 8  # cells that the hypotheses are tried on
MARGIN_UM = 40.0  # around the cells of a local fit: what is smooth is seen there too
MIN_CELLS = 25  # fewer cells say nothing


@dataclass(frozen=True)
class Fit:
    """One fit; the shift is that of the H&E against the cells, µm, NaN where it cannot be told."""

    # where the nuclei lie on the H&E, minus where the cells are
    dx_um: float
    dy_um: float
    ncc: float  # correlation at the best shift
    height: float  # height of the peak above all other shifts, in their standard deviations
    second: float  # height of the next peak, as a share of it
    n_cells: int  # cells that were used

    @property
    def clear(self) -> bool:
        """Whether one shift stands out."""
        return self.height >= MIN_HEIGHT and self.second <= MAX_SECOND and self.n_cells >= MIN_CELLS

    @property
    def shift_um(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.dx_um, self.dy_um))

    @property
    def confidence(self) -> float:
        """1 where no other shift fits at all, 0 where another one fits as well."""
        return float(np.clip(1 - self.second, 0, 1))

    def as_dict(self) -> dict[str, Any]:
        """Numbers of the fit that are kept, for JSON."""
        is_clear = self.clear
        return {
            "dx_um": self.dx_um if is_clear else None,
            "dy_um": self.dy_um if is_clear else None,
            "shift_um": self.shift_um if is_clear else None,
            "ncc": self.ncc,
            "peak_height": self.height,
            "confidence": self.confidence if is_clear else 0.0,
            "n_cells": self.n_cells,
        }


NO_FIT = Fit(np.nan, np.nan, 0.0, 0.0, 1.0, 0)


class Fitter:
    """Fits of one slide's cells, finite positions ``xy`` ``(n, 2)`` as they are given, to its H&E by shifts."""

    def __init__(self, rasters: NucleiRasters, xy: NDArray[np.float64], *, max_shift_um: float) -> None:
        self._rasters, self._xy, self._max_shift_um = rasters, xy, max_shift_um

    def whole(self, hypothesis: Hypothesis, groups: list[NDArray[np.int64]]) -> tuple[Fit, list[Fit]]:
        """Fit of all groups of cells together, and of each group."""
        if not is_plausible(hypothesis):
            return NO_FIT, [NO_FIT for _ in groups]
        um_per_px = _um_per_px(hypothesis)
        raster, corner, scale = self._rasters.at(um_per_px)
        xy_px = (self.in_px(hypothesis) - corner) / scale
        radius = int(np.ceil(self._max_shift_um / raster.um_per_px)) + 1
        surfaces = [correlate(raster, xy_px[g], radius_px=radius, workers=settings.threads) for g in groups]
        to_um = hypothesis.he_to_um[:2, :2] * scale  # px of the raster (columns x, y) -> um
        counts = [len(group) for group in groups]
        reach = self._max_shift_um
        fits = [_fit(s, to_um, raster.um_per_px, n, reach) for s, n in zip(surfaces, counts, strict=True)]
        return _fit(add_up(surfaces), to_um, raster.um_per_px, sum(counts), reach), fits

    def local(self, hypothesis: Hypothesis, group: NDArray[np.int64], *, max_shift_um: float) -> Fit:
        """Fit of a few cells that lie together, of which only the part of the image around them is read."""
        if not is_plausible(hypothesis):
            return NO_FIT
        um_per_px, xy = _um_per_px(hypothesis), self.in_px(hypothesis)[group]
        margin = (max_shift_um + MARGIN_UM) / um_per_px
        seen = self._rasters.near(um_per_px, xy.min(axis=0) - margin, xy.max(axis=0) + margin)
        if seen is None:
            return NO_FIT
        raster, corner, scale = seen
        radius = int(np.ceil(max_shift_um / raster.um_per_px)) + 1
        surface = correlate(raster, (xy - corner) / scale, radius_px=radius, workers=settings.threads)
        to_um = hypothesis.he_to_um[:2, :2] * scale
        return _fit(surface, to_um, raster.um_per_px, len(group), max_shift_um)

    def shares(self, hypothesis: Hypothesis) -> tuple[float, float]:
        """Share of all cells on the image, and on its tissue."""
        if not is_plausible(hypothesis):
            xy = self.in_px(hypothesis)
            height, width = self._rasters.shape
            return float(((xy >= 0) & (xy < (width, height))).all(axis=1).mean()), 0.0
        raster, corner, scale = self._rasters.at(_um_per_px(hypothesis))
        return share_on(raster, (self.in_px(hypothesis) - corner) / scale)

    def in_px(self, hypothesis: Hypothesis) -> NDArray[np.float64]:
        """Cells ``(n, 2)`` in px (x, y) of the H&E."""
        return apply(np.linalg.inv(hypothesis.he_to_um) @ hypothesis.cells_to_um, self._xy)


def _fit(surface: Surface, to_um: NDArray[np.float64], um_per_px: float, n_cells: int, max_shift_um: float) -> Fit:
    peak: Peak = find_peak(surface.ncc, um_per_px=um_per_px, max_shift_um=max_shift_um)
    dx, dy = (to_um @ peak.shift_px).tolist()
    return Fit(dx, dy, peak.ncc, peak.height, peak.second, n_cells)


def is_plausible(hypothesis: Hypothesis) -> bool:
    """Whether the H&E could have been scanned with such pixels."""
    low, high = PLAUSIBLE_UM_PER_PX
    return low <= _um_per_px(hypothesis) <= high


def _um_per_px(hypothesis: Hypothesis) -> float:
    return float(np.sqrt(abs(np.linalg.det(hypothesis.he_to_um[:2, :2]))))


def region_groups(xy: NDArray[np.float64], n_regions: int) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """Rows of ``xy (n, 2)`` in each of ``n_regions**2`` boxes, row by row, and the middles of the boxes."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    edge = np.maximum((high - low) / n_regions, 1e-9)
    box = np.minimum(((xy - low) / edge).astype(np.int64), n_regions - 1)
    key = box[:, 1] * n_regions + box[:, 0]
    rows, columns = np.divmod(np.arange(n_regions**2), n_regions)
    middles = low + (np.stack([columns, rows], axis=1) + 0.5) * edge
    return [np.flatnonzero(key == k) for k in range(n_regions**2)], middles


def sample_groups(xy: NDArray[np.float64], *, square_um: float = SQUARE_UM) -> list[NDArray[np.int64]]:
    """Rows of ``xy (n, 2)`` in a few squares spread over the slide, none of them emptier than most."""
    square = np.floor((xy - xy.min(axis=0)) / square_um).astype(np.int64)
    _, key, count = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    full = np.flatnonzero(count >= np.median(count))
    chosen = full[np.unique(np.linspace(0, len(full) - 1, N_SQUARES).round().astype(np.int64))]
    return [np.flatnonzero(key.ravel() == k) for k in chosen]
