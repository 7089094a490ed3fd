"""Shift of an image of nuclei against the positions of the cells: masked cross-correlation at all shifts.

Everything here is in pixels of one raster of the H&E. A shift ``(x, y)`` of a surface says where the nuclei lie,
relative to where the cells are believed to be.

Floor 1, above the ground floor. Used by pp/_registration_fits, pp/_registration_image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.color import rgb2hed

from spatialsig.stats.stain import optical_density

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUCLEUS_UM = 2.0  # sd of the blob that stands for a nucleus
LOCAL_UM = 12.0  # what is smooth on this scale (stain, fibres, density of cells) says nothing about the shift
MEASURED_UM = 50.0  # around a cell, other cells would have been seen
TISSUE_UM = 8.0  # joins nuclei and the pale stroma between them
PALEST_GLASS, ABOVE_GLASS = 0.11, 0.025  # optical density: glass is paler than this, tissue darker by this
CLIP_SD = 4.0  # pen, folds and pigment must not outweigh the nuclei
MIN_OVERLAP = 0.2  # share of the cells that must lie on tissue for a shift to count
MIN_VALID = 0.25  # share of the shifts that must count for one of them to stand out
APART_UM = 15.0  # nearer than this, a second peak is the slope of the first


@dataclass(frozen=True)
class Raster:
    """Nuclei of an H&E against what surrounds them."""

    contrast: NDArray[np.float32]  # ``(h, w)`` float32: haematoxylin above its surroundings; 0 where there is no tissue
    tissue: NDArray[np.bool_]  # ``(h, w)`` bool
    um_per_px: float  # edge of a pixel, um


@dataclass(frozen=True)
class Surface:
    """Sums of products at all shifts up to ``radius_px``; the surfaces of parts of a slide add up."""

    # product, cells, image: ``(2 radius + 1, 2 radius + 1)``: sums over tissue of cells times image, cells squared,
    # image squared
    product: NDArray[np.float64]
    cells: NDArray[np.float64]
    image: NDArray[np.float64]
    total: float  # cells squared, on tissue or not

    @property
    def ncc(self) -> NDArray[np.float64]:
        """Normalised cross-correlation, -1 to 1; NaN where too few cells lie on tissue."""
        enough = (self.cells > MIN_OVERLAP * self.total) & (self.image > 0)
        energy = np.sqrt(np.where(enough, self.cells * self.image, 1.0))
        return np.where(enough, self.product / energy, np.nan)


@dataclass(frozen=True)
class Peak:
    """Best shift of a surface."""

    # ``(2,)`` as x, y, between pixels by a parabola; NaN where the best shift lies on the rim of the search
    shift_px: NDArray[np.float64]
    ncc: float  # correlation there
    height: float  # how far it rises above the other shifts, in their standard deviations
    second: float  # height of the next peak as a share of it: near 1 means that another shift fits as well


def haematoxylin(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Haematoxylin (Ruifrok and Johnston) and mean optical density, ``(h, w)`` each, of ``(h, w, 3)`` uint8."""
    return rgb2hed(rgb)[..., 0].astype(np.float32), optical_density(rgb).mean(axis=-1)


def nuclear_contrast(stain: NDArray[np.float32], density: NDArray[np.float32], *, um_per_px: float) -> Raster:
    """Take from haematoxylin ``(h, w)`` what varies more slowly than nuclei do, on tissue only."""
    smooth = gaussian_filter(density, TISSUE_UM / um_per_px)
    glass = min(float(np.quantile(smooth, 0.01)), PALEST_GLASS)
    tissue = smooth > glass + ABOVE_GLASS
    mask = tissue.astype(np.float32)
    surround = gaussian_filter(stain * mask, LOCAL_UM / um_per_px)
    surround /= np.maximum(gaussian_filter(mask, LOCAL_UM / um_per_px), 1e-3)
    contrast = (gaussian_filter(stain, _sharpened(um_per_px)) - surround) * mask
    if tissue.any():
        limit = CLIP_SD * float(contrast[tissue].std())
        contrast = np.clip(contrast, -limit, limit)
    return Raster(contrast.astype(np.float32), tissue, um_per_px)


def _sharpened(um_per_px: float) -> float:
    """Sd of the smoothing, px; a coarse raster is smooth already."""
    return float(np.sqrt(max((NUCLEUS_UM / um_per_px) ** 2 - 0.25, 0.0)))


def share_on(raster: Raster, xy_px: NDArray[np.float64]) -> tuple[float, float]:
    """Share of points ``(n, 2)`` (x, y) that lie on the image, and on its tissue."""
    if len(xy_px) == 0:
        return 0.0, 0.0
    height, width = raster.tissue.shape
    x, y = np.floor(xy_px).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on_tissue = raster.tissue[y[inside].astype(np.int64), x[inside].astype(np.int64)]
    return float(inside.mean()), float(on_tissue.sum() / len(xy_px))


def correlate(raster: Raster, xy_px: NDArray[np.float64], *, radius_px: int, workers: int = 1) -> Surface:
    """Correlate nuclei of the image with cells, at all shifts up to ``radius_px`` in x and in y.

    Parameters
    ----------
    raster
        Image.
    xy_px
        ``(n, 2)`` believed positions of the cells (x, y), px of the raster; they may lie outside.
    radius_px
        Longest shift along each axis.
    workers
        Threads of the Fourier transforms.

    Returns
    -------
    Surface with ``(2 radius_px + 1)**2`` shifts; the middle is no shift.
    """
    um = raster.um_per_px
    pad = int(np.ceil(3 * LOCAL_UM / um))
    limits = np.array(raster.tissue.shape[::-1]) + radius_px
    near = xy_px[((xy_px >= -radius_px) & (xy_px < limits)).all(axis=1)]
    side = 2 * radius_px + 1
    if len(near) == 0:
        nothing = np.zeros((side, side))
        return Surface(nothing, nothing, nothing, float(len(xy_px)))
    low = np.floor(near.min(axis=0)).astype(np.int64) - pad
    size = np.floor(near.max(axis=0)).astype(np.int64) + pad + 1 - low  # x, y
    points = np.zeros((size[1], size[0]), np.float32)
    column, row = (np.floor(near).astype(np.int64) - low).T
    np.add.at(points, (row, column), 1.0)
    cells = gaussian_filter(points, NUCLEUS_UM / um, mode="constant")
    cells -= gaussian_filter(points, LOCAL_UM / um, mode="constant")
    measured = uniform_filter(points, 2 * MEASURED_UM / um, mode="constant") > 1e-6
    shape = (int(size[1]) + 2 * radius_px, int(size[0]) + 2 * radius_px)
    corner = (int(low[1]) - radius_px, int(low[0]) - radius_px)
    contrast = _crop(raster.contrast, corner, shape)
    tissue = _crop(raster.tissue, corner, shape).astype(np.float32)
    squared = cells**2
    pairs = ((cells, contrast), (squared, tissue), (measured.astype(np.float32), contrast**2))
    product, energy, image = (_correlation(a, b, side, workers) for a, b in pairs)
    scale = float(squared.sum()) * len(xy_px) / len(near)
    return Surface(product, energy, image, scale)


def _crop(pixels: NDArray[Any], corner: tuple[int, int], shape: tuple[int, int]) -> NDArray[Any]:
    """Window of ``shape`` at ``corner`` (y, x), which may reach outside, where it is 0."""
    window = np.zeros(shape, pixels.dtype)
    start = np.maximum(corner, 0)
    stop = np.minimum(np.add(corner, shape), pixels.shape)
    if (stop > start).all():
        (y0, x0), (y1, x1) = start - corner, stop - corner
        window[y0:y1, x0:x1] = pixels[start[0] : stop[0], start[1] : stop[1]]
    return window


def _correlation(
    small: NDArray[np.float32], large: NDArray[np.float32], side: int, workers: int
) -> NDArray[np.float64]:
    """Sum of ``small[p] * large[p + k]`` over p, for k = 0 ... side - 1 in y and in x."""
    shape = [fft.next_fast_len(n, real=True) for n in large.shape]
    spectrum = np.conj(fft.rfft2(small, shape, workers=workers)) * fft.rfft2(large, shape, workers=workers)
    sums: NDArray[np.float64] = fft.irfft2(spectrum, shape, workers=workers)[:side, :side].astype(np.float64)
    return sums


def add_up(surfaces: Sequence[Surface]) -> Surface:
    """Surface of all parts together."""
    sums = (sum(getattr(s, name) for s in surfaces) for name in ("product", "cells", "image", "total"))
    return Surface(*sums)


def find_peak(ncc: NDArray[np.float64], *, um_per_px: float, max_shift_um: float) -> Peak:
    """Best shift of a surface ``(2 r + 1, 2 r + 1)``, and how clearly it stands out of the other shifts."""
    radius = ncc.shape[0] // 2
    steps = np.arange(-radius, radius + 1) * um_per_px
    allowed = np.hypot(steps[:, None], steps[None]) <= max_shift_um
    valid = allowed & np.isfinite(ncc)
    if valid.sum() < MIN_VALID * allowed.sum():
        return Peak(np.full(2, np.nan), 0.0, 0.0, 1.0)
    row, column = np.unravel_index(np.where(valid, ncc, -np.inf).argmax(), ncc.shape)
    top = float(ncc[row, column])
    distance = np.hypot(steps[:, None] - steps[row], steps[None] - steps[column])
    others = ncc[valid & (distance > APART_UM)]
    middle = float(np.median(others)) if others.size else 0.0
    spread = float(others.std()) if others.size else 0.0
    on_rim = min(row, column) == 0 or max(row, column) == 2 * radius
    on_rim = on_rim or float(np.hypot(steps[row], steps[column])) > max_shift_um - um_per_px
    if spread == 0 or on_rim:
        return Peak(np.full(2, np.nan), top, 0.0, 1.0)
    x = column - radius + _vertex(ncc[row, column - 1 : column + 2])
    y = row - radius + _vertex(ncc[row - 1 : row + 2, column])
    second = float((others.max() - middle) / (top - middle))
    return Peak(np.array([x, y]), top, (top - middle) / spread, second)


def _vertex(three: NDArray[np.float64]) -> float:
    """Place of the top of the parabola through three values at -1, 0, 1."""
    left, middle, right = three
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend < 0 else 0.0
