"""Decoded patches kept in memory, up to a limit, so that later epochs decode nothing that fits.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/loader.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._settings import settings
from spatialsig.data.patches import Request, read_slides
from spatialsig.data.resources import batch_memory, page_aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource

    Ints = NDArray[np.int64]


class PatchCache:
    """Patches of several slides, numbered slide after slide; the first that fit stay.

    A shuffled epoch visits every patch once, so throwing the oldest out (LRU) would throw each out before its next use;
    keeping the first ones serves the share that fits.

    Parameters
    ----------
    sources
        The slides; all with one ``out_px``.
    limit_mb
        Memory for patches, MiB; None takes ``settings.patch_cache_mb``.
    passing
        Share of the memory for patches that are read before their turn and leave after it; only used where not all
        patches fit.
    """

    def __init__(self, sources: Sequence[PatchSource], *, limit_mb: float | None = None, passing: float = 0.0) -> None:
        self.sources = tuple(sources)
        out_px = self.sources[0].out_px
        sizes = [len(source) for source in self.sources]
        self.patch_bytes = 3 * out_px * out_px
        self.capacity = cache_capacity(self.sources, limit_mb=limit_mb)
        self._to_keep = self.capacity if self.capacity == sum(sizes) else int(self.capacity * (1 - passing))
        self._slide, self._row = np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(n) for n in sizes])
        self._pixels = page_aligned((self.capacity, 3, out_px, out_px))
        self._slot = np.full(sum(sizes), -1, np.int64)
        self._stays = np.zeros(sum(sizes), bool)
        self._free = list(range(self.capacity))[::-1]
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of patches held now."""
        return (self.capacity - len(self._free)) * self.patch_bytes

    def read(self, patches: Ints, due: Ints | None = None) -> NDArray[np.uint8]:
        """Pixels of ``patches``, ``(b, 3, out_px, out_px)``.

        ``due`` are patches, these or others, to be read now; they wait here for their own turn, and those for which
        there is no room are read again then.
        """
        out = batch_memory((len(patches), *self._pixels.shape[1:]))
        with self._lock:
            early = due is not None and len(due) > 0
            new = np.concatenate([patches, due]) if early and due is not None else patches
            new = new[np.sort(np.unique(new, return_index=True)[1])]
            new = new[self._slot[new] < 0]
            # those that wait for their turn may hold more than what is to stay
            room = min(len(new), len(self._free) if due is not None else max(self._to_keep - self.held, 0))
            slots = np.array([self._free.pop() for _ in range(room)], np.int64)
            try:
                self._fetch(patches, new[:room], slots, out, local=early)
            except BaseException:
                self._free.extend(slots.tolist())
                raise
            for k, slot in enumerate(self._slot[patches].tolist()):
                if slot >= 0:
                    out[k] = self._pixels[slot]
            self._let_go(patches)
        return out

    @property
    def held(self) -> int:
        """Number of patches held now."""
        return self.capacity - len(self._free)

    def _fetch(self, patches: Ints, new: Ints, slots: Ints, out: NDArray[np.uint8], *, local: bool) -> None:
        """Read ``new`` patches into ``slots``, and those of ``patches`` that have no slot straight into the batch."""
        has_slot = self._slot[patches] >= 0
        bare = np.flatnonzero(~has_slot & ~np.isin(patches, new))
        to_read = np.concatenate([new, patches[bare]])
        places = [self._pixels[slot] for slot in slots.tolist()] + [out[k] for k in bare.tolist()]
        requests = []
        for index in np.unique(self._slide[to_read]).tolist():
            here = np.flatnonzero(self._slide[to_read] == index)
            rows = self._row[to_read[here]]
            requests.append(Request(self.sources[index], rows, [places[k] for k in here.tolist()], local=local))
        read_slides(requests)
        self._slot[new] = slots

    def _let_go(self, patches: Ints) -> None:
        """Keep what was used while there is room for patches that stay; free the rest."""
        used = np.unique(patches[(self._slot[patches] >= 0) & ~self._stays[patches]])
        n = max(self._to_keep - int(self._stays.sum()), 0)
        self._stays[used[:n]] = True
        self._free.extend(self._slot[used[n:]].tolist())
        self._slot[used[n:]] = -1


def cache_capacity(sources: Sequence[PatchSource], *, limit_mb: float | None) -> int:
    """Patches that fit into ``limit_mb`` MiB (``settings.patch_cache_mb`` when None), at most all of them."""
    limit = (settings.patch_cache_mb if limit_mb is None else limit_mb) * 2**20
    return min(int(limit // (3 * sources[0].out_px ** 2)), sum(map(len, sources)))
