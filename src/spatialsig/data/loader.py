"""Batches of patches and their labels, the same for the same ``(seed, epoch)``, whoever reads them.

Floor 2, above geometry, nn, signatures, stats, store. Used by 10 modules of data, inference, tl, train.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig._checks import check_positive, warn
from spatialsig.data.cache import PatchCache, cache_capacity
from spatialsig.data.labels import checked_weight, stacked
from spatialsig.data.order import (
    MAX_AMPLIFICATION,
    MAX_WINDOW,
    WAITING,
    block_shuffle,
    blocks_of,
    full_shuffle,
    rank_batches,
    with_blocks,
)
from spatialsig.data.passes import ResumableOrder, ahead
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource

Batch = dict[str, torch.Tensor]
Turn = tuple["NDArray[np.int64]", "NDArray[np.int64] | None"]  # patches of a batch, patches to read at its turn

PREFETCH = 3  # batches read ahead of the one being computed
FEW_BLOCKS = 6  # blocks in a window, below which there is a warning


class PatchBatches(ResumableOrder):
    """Iterate over the patches of several slides; each pass is one epoch.

    Parameters
    ----------
    sources
        One per slide, all with one ``out_px``.
    targets
        Per slide, ``(n_patches, n_targets)`` float32, NaN where not measured.
    ae
        Per slide, ``(n_patches, n_latent)`` float32, NaN rows where not measured; None without expression.
    weights
        Per slide, ``(n_patches,)`` at least 0; None weighs all alike.
    batch_size
        Patches per batch, of each process.
    seed
        Seed of the order.
    shuffle
        Draw a new order every epoch; otherwise slide after slide, row after row.
    drop_last
        Leave out a last batch of fewer patches.
    slide_balanced
        Spread every slide evenly over the epoch, so that all batches hold the slides in the same proportion.
    cache_mb
        Memory for decoded patches, MiB; None takes ``settings.patch_cache_mb``.
    by_block
        Shuffle blocks of neighbours, and patches within a window over them, so that every chunk is decoded about once
        an epoch, see :func:`spatialsig.data.order.block_shuffle`; False shuffles freely. None chooses blocks where
        reading patches one by one would decode more than :data:`spatialsig.data.order.MAX_AMPLIFICATION` times the
        pixels asked for.
    rank, world_size
        Which of how many processes this is. All together see every patch once an epoch, and each the same number of
        batches.

    Raises
    ------
    InputError
        If lengths or widths do not match.

    Warns
    -----
    SpatialsigWarning
        If the cache is too small to mix blocks well.
    """

    def __init__(
        self,
        sources: Sequence[PatchSource],
        *,
        targets: Sequence[NDArray[np.float32]],
        ae: Sequence[NDArray[np.float32]] | None = None,
        weights: Sequence[NDArray[np.floating[Any]]] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        slide_balanced: bool = True,
        cache_mb: float | None = None,
        by_block: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_positive(batch_size=batch_size, world_size=world_size)
        _check_rank(rank, world_size)
        _check_sources(sources)
        self.sources = tuple(sources)
        self.slide = np.repeat(np.arange(len(sources)), [len(source) for source in sources])
        self.row = np.concatenate([np.arange(len(source)) for source in sources])
        self.target = stacked(sources, targets, name="targets", ndim=2)
        self.ae = None if ae is None else stacked(sources, ae, name="ae", ndim=2)
        self.weight = (
            np.ones(len(self.row), np.float32)
            if weights is None
            else checked_weight(stacked(sources, weights, name="weights", ndim=1))
        )
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.shuffle, self.drop_last, self.slide_balanced = shuffle, drop_last, slide_balanced
        self.rank, self.world_size, self.cache_mb = rank, world_size, cache_mb
        self.block = self._blocks(by_block=by_block)
        self.window = 0 if self.block is None else self._window(self.block)
        self._cache: tuple[tuple[int, int], PatchCache] | None = None
        self._n_batches = len(self._own(np.arange(len(self.row))))

    def __len__(self) -> int:
        """Batches per epoch, of this process."""
        return self._n_batches

    @property
    def n_patches(self) -> int:
        """Patches of all slides."""
        return len(self.row)

    @property
    def out_px(self) -> int:
        """Edge of a patch, px."""
        return self.sources[0].out_px

    def shared(self, *, rank: int, world_size: int) -> PatchBatches:
        """The same patches as one of ``world_size`` processes sees them."""
        _check_rank(rank, world_size)
        mine = copy.copy(self)
        mine.rank, mine.world_size, mine._cache = rank, world_size, None
        mine._n_batches = len(mine._own(np.arange(len(mine.row))))
        return mine

    def order(self) -> NDArray[np.int64]:
        """Positions of all patches in the order of the current epoch, ``(n_patches,)``."""
        if not self.shuffle:
            return np.arange(len(self.row))
        draw = {"seed": self.seed, "epoch": self.epoch, "slide_balanced": self.slide_balanced}
        if self.block is None:
            return full_shuffle(self.slide, **draw)  # type: ignore[arg-type]
        return block_shuffle(self.slide, self.block, window=self.window, **draw)[0]  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch, read ahead by a thread.

        Each is a dict of tensors: ``image`` (b, 3, px, px) uint8; ``target`` (b, t) float32, 0 where not measured;
        ``mask`` (b, t) bool; ``weight`` (b,) float32; ``id`` (b,) int64, the patch's number over all slides; ``slide``
        and ``row`` (b,) int64; with expression also ``ae`` (b, d) float32, 0 where missing, and ``ae_present`` (b,) bool.
        """
        start = self.begin_pass()
        for position, batch in enumerate(self.read(start=start), start=start + 1):
            self._position = position
            yield batch

    def read(self, *, start: int = 0, worker: int = 0, n_workers: int = 1, depth: int = PREFETCH) -> Iterator[Batch]:
        """Batches ``start + worker``, ``start + worker + n_workers``, ... of this epoch, up to ``depth`` of them ahead."""
        chosen = self._own(self.order())[start + worker :: n_workers]
        cache = self._cache_of(n_workers)
        turns: list[Turn] = [(patches, None) for patches in chosen]
        if self.block is not None:
            turns = list(with_blocks(chosen, self._visits(self.block)))
        return ahead((self._batch(cache, *turn) for turn in turns), depth=depth)

    def __getstate__(self) -> dict[str, Any]:
        """State without the pixels read so far, which stay with their process."""
        return self.__dict__ | {"_cache": None}

    def _own(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return rank_batches(
            order, batch_size=self.batch_size, rank=self.rank, world_size=self.world_size, drop_last=self.drop_last
        )

    def order_facts(self) -> dict[str, int]:
        """Numbers that the order depends on, besides the epoch."""
        names = ("seed", "n_patches", "batch_size", "world_size", "window", "shuffle", "slide_balanced", "drop_last")
        return {name: int(getattr(self, name)) for name in names}

    def _blocks(self, *, by_block: bool | None) -> NDArray[np.int64] | None:
        if not self.shuffle:
            return None
        if by_block is None:
            by_block = max(source.amplification for source in self.sources) > MAX_AMPLIFICATION
        return blocks_of(self.sources) if by_block else None

    def _visits(self, block: NDArray[np.int64]) -> NDArray[np.int64]:
        """Groups of patches read together: a block, if all fit into the cache; else those of one visit of it."""
        if cache_capacity(self.sources, limit_mb=self.cache_mb) == self.n_patches:
            return block
        draw = {"seed": self.seed, "epoch": self.epoch, "slide_balanced": self.slide_balanced}
        return block_shuffle(self.slide, block, window=self.window, **draw)[1]  # type: ignore[arg-type]

    def _window(self, block: NDArray[np.int64]) -> int:
        capacity, largest = cache_capacity(self.sources, limit_mb=self.cache_mb), int(np.bincount(block).max())
        if capacity == self.n_patches:
            return MAX_WINDOW
        window = min(MAX_WINDOW, max(int((capacity - largest) / WAITING), 1))  # each block comes as a whole
        if window < FEW_BLOCKS * largest:
            patch_mb = 3 * self.out_px**2 / 2**20
            msg = (
                f"patches come in blocks of up to {largest}, since the image is stored in large chunks, and the cache has "
                f"room to mix {window}: neighbours will share batches. Allow at least `patch_cache_mb="
                f"{int(np.ceil((FEW_BLOCKS * WAITING + 1) * largest * patch_mb))}`, or store the image again with `sp.io.write`."
            )
            warn(msg)
        return window

    def _cache_of(self, n_workers: int) -> PatchCache:
        """The cache of this process, which has its part of the memory."""
        key = os.getpid(), n_workers
        if self._cache is None or self._cache[0] != key:
            total = cache_capacity(self.sources, limit_mb=self.cache_mb) * 3 * self.out_px**2 / 2**20
            passing = float(self.block is not None)
            self._cache = key, PatchCache(self.sources, limit_mb=total / n_workers, passing=passing)
        return self._cache[1]

    def _batch(self, cache: PatchCache, chosen: NDArray[np.int64], due: NDArray[np.int64] | None) -> Batch:
        target = torch.from_numpy(self.target[chosen])
        batch = {
            "image": torch.from_numpy(cache.read(chosen, due)),
            "target": torch.nan_to_num(target, nan=0.0),
            "mask": ~torch.isnan(target),
            "weight": torch.from_numpy(self.weight[chosen]),
            "id": torch.from_numpy(chosen.copy()),
            "slide": torch.from_numpy(self.slide[chosen]),
            "row": torch.from_numpy(self.row[chosen]),
        }
        if self.ae is not None:
            ae = torch.from_numpy(self.ae[chosen])
            batch["ae_present"] = ~torch.isnan(ae).any(dim=1)
            batch["ae"] = torch.where(batch["ae_present"][:, None], ae, torch.zeros_like(ae))
        return batch


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        msg = f"`rank={rank}` must lie in 0..{world_size - 1}, with `world_size={world_size}`."
        raise InputError(msg)


def _check_sources(sources: Sequence[PatchSource]) -> None:
    if not sources or not sum(map(len, sources)):
        msg = "no patches: `sources` is empty."
        raise InputError(msg)
    sizes = {source.sample: source.out_px for source in sources}
    if len({source.out_px for source in sources}) > 1:
        msg = f"slides with patches of different size: {sizes} px; read all with one `out_px`."
        raise InputError(msg)
