"""Nuclei of a piece of an H&E by their haematoxylin: a light detection, for slides that nobody has segmented.

Floor 1, above the ground floor. Used by pp/_find_nuclei.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTH_UM = 1.2  # sd: chromatin is no nucleus
SURROUND_UM = 10.0  # sd: what is smooth on this scale is cytoplasm, fibres and uneven stain
APART_UM = 4.0  # nuclei do not lie nearer
SMALLEST_UM2, LARGEST_UM2 = 8.0, 400.0


def nuclear_signal(stain: NDArray[np.float32], *, um_per_px: float) -> NDArray[np.float32]:
    """Haematoxylin ``(h, w)`` above what surrounds it."""
    smooth = ndimage.gaussian_filter(stain, SMOOTH_UM / um_per_px)
    signal: NDArray[np.float32] = smooth - ndimage.gaussian_filter(stain, SURROUND_UM / um_per_px)
    return signal


def nuclei_of(
    signal: NDArray[np.float32], threshold: float, *, um_per_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles ``(n, 2)`` (x, y, px that begin at their corners) and areas ``(n,)`` (µm²) of the nuclei in a signal.

    What lies above the threshold is cut into basins, one around each point that is highest within :data:`APART_UM`.
    """
    mask = signal > threshold
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        signal, min_distance=max(1, round(APART_UM / 2 / um_per_px)), threshold_abs=threshold, exclude_border=False
    )
    markers = np.zeros(signal.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    basins = watershed(-signal, markers, mask=mask)  # type: ignore[no-untyped-call]
    n = np.bincount(basins.ravel(), minlength=len(peaks) + 1)[1:]
    y, x = np.nonzero(basins)
    label = basins[y, x]
    x_sum, y_sum = (np.bincount(label, axis + 0.5, minlength=len(peaks) + 1)[1:] for axis in (x, y))
    area = np.asarray(n * um_per_px**2, np.float64)
    keep = (area >= SMALLEST_UM2) & (area <= LARGEST_UM2)
    return np.stack([x_sum[keep] / n[keep], y_sum[keep] / n[keep]], axis=1), area[keep]
