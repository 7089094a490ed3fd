"""Decoded patches kept in memory, up to a limit, so that later epochs decode nothing that fits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._settings import settings
from spatialsig.data.patches import read_patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource


class PatchCache:
    """Patches of several slides; the first that fit stay.

    A shuffled epoch visits every patch once, so throwing the oldest out (LRU) would throw each out before its next use;
    keeping the first ones serves the share that fits.

    Parameters
    ----------
    sources
        The slides; all with one ``out_px``.
    limit_mb
        Memory for patches, MiB; None takes ``settings.patch_cache_mb``.
    """

    def __init__(self, sources: Sequence[PatchSource], *, limit_mb: float | None = None) -> None:
        self.sources = tuple(sources)
        out_px = self.sources[0].out_px
        self.patch_bytes = 3 * out_px * out_px
        limit = (settings.patch_cache_mb if limit_mb is None else limit_mb) * 2**20
        self.capacity = min(int(limit // self.patch_bytes), sum(map(len, self.sources)))
        self._pixels = np.empty((self.capacity, 3, out_px, out_px), np.uint8)  # pages are taken when first written
        self._slot = [np.full(len(source), -1, np.int64) for source in self.sources]
        self._used = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of patches held now."""
        return self._used * self.patch_bytes

    def read(self, slide: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Patches ``row`` of slides ``slide`` (indices into ``sources``), ``(b, 3, out_px, out_px)``."""
        out = np.empty((len(row), *self._pixels.shape[1:]), np.uint8)
        for index in np.unique(slide):
            here = np.flatnonzero(slide == index)
            out[here] = self._read_slide(int(index), row[here])
        return out

    def _read_slide(self, index: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        slots = self._slot[index][rows]
        held = slots >= 0
        out: NDArray[np.uint8] = np.empty((len(rows), *self._pixels.shape[1:]), np.uint8)
        out[held] = self._pixels[slots[held]]
        if not held.all():
            out[~held] = read_patches(self.sources[index], rows[~held])
            self._keep(index, rows[~held], out[~held])
        return out

    def _keep(self, index: int, rows: NDArray[np.int64], patches: NDArray[Any]) -> None:
        with self._lock:
            room = self.capacity - self._used
            fresh = np.unique(rows[self._slot[index][rows] < 0], return_index=True)[1][:room]
            new = np.flatnonzero(self._slot[index][rows] < 0)[fresh]
            slots = np.arange(self._used, self._used + len(new))
            self._pixels[slots] = patches[new]
            self._slot[index][rows[new]] = slots
            self._used += len(new)
