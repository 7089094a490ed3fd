"""Batches of patches and their labels, the same for the same ``(seed, epoch)``."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from spatialsig._checks import check_positive
from spatialsig._errors import InputError
from spatialsig.data.cache import PatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource

T = TypeVar("T")
R = TypeVar("R")
Batch = dict[str, torch.Tensor]

PREFETCH = 3  # batches read ahead of the one being computed


class PatchBatches:
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
        Patches per batch.
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

    Raises
    ------
    InputError
        If lengths or widths do not match.
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
    ) -> None:
        check_positive(batch_size=batch_size)
        _check_sources(sources)
        self.sources = tuple(sources)
        self.slide = np.repeat(np.arange(len(sources)), [len(source) for source in sources])
        self.row = np.concatenate([np.arange(len(source)) for source in sources])
        self.target = _stacked(sources, targets, name="targets", ndim=2)
        self.ae = None if ae is None else _stacked(sources, ae, name="ae", ndim=2)
        self.weight = (
            np.ones(len(self.row), np.float32)
            if weights is None
            else _checked_weight(_stacked(sources, weights, name="weights", ndim=1))
        )
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.shuffle, self.drop_last, self.slide_balanced = shuffle, drop_last, slide_balanced
        self._cache = PatchCache(self.sources, limit_mb=cache_mb)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch."""
        n, size = len(self.row), self.batch_size
        return n // size if self.drop_last else -(-n // size)

    @property
    def n_patches(self) -> int:
        """Patches of all slides."""
        return len(self.row)

    @property
    def out_px(self) -> int:
        """Edge of a patch, px."""
        return self.sources[0].out_px

    def order(self) -> NDArray[np.int64]:
        """Positions of all patches in the order of the current epoch, ``(n_patches,)``."""
        n = len(self.row)
        if not self.shuffle:
            return np.arange(n)
        rng = np.random.default_rng((self.seed, self.epoch))
        shuffled = rng.permutation(n)
        if not self.slide_balanced:
            return shuffled
        # the k-th of a slide's n_s patches sits at (k + u) / n_s of the epoch
        place = np.empty(n)
        for index in range(len(self.sources)):
            mine = shuffled[self.slide[shuffled] == index]
            place[mine] = (np.arange(len(mine)) + rng.random(len(mine))) / len(mine)
        return np.argsort(place, kind="stable")

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch, read ahead by a thread.

        Each is a dict of tensors: ``image`` (b, 3, px, px) uint8; ``target`` (b, t) float32, 0 where not measured;
        ``mask`` (b, t) bool; ``weight`` (b,) float32; ``slide`` and ``row`` (b,) int64; with expression also ``ae``
        (b, d) float32, 0 where missing, and ``ae_present`` (b,) bool.
        """
        order, size = self.order(), self.batch_size
        chunks = [order[start : start + size] for start in range(0, len(self) * size, size)]
        return prefetched(self._batch, chunks, depth=PREFETCH)

    def _batch(self, chosen: NDArray[np.int64]) -> Batch:
        target = torch.from_numpy(self.target[chosen])
        batch = {
            "image": torch.from_numpy(self._cache.read(self.slide[chosen], self.row[chosen])),
            "target": torch.nan_to_num(target, nan=0.0),
            "mask": ~torch.isnan(target),
            "weight": torch.from_numpy(self.weight[chosen]),
            "slide": torch.from_numpy(self.slide[chosen]),
            "row": torch.from_numpy(self.row[chosen]),
        }
        if self.ae is not None:
            ae = torch.from_numpy(self.ae[chosen])
            batch["ae_present"] = ~torch.isnan(ae).any(dim=1)
            batch["ae"] = torch.where(batch["ae_present"][:, None], ae, torch.zeros_like(ae))
        return batch


def prefetched(function: Callable[[T], R], items: Iterable[T], *, depth: int) -> Iterator[R]:
    """Map ``function`` over ``items`` in a thread, up to ``depth`` results ahead; errors surface at their own place."""
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="patch-prefetch")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_sources(sources: Sequence[PatchSource]) -> None:
    if not sources or not sum(map(len, sources)):
        msg = "no patches: `sources` is empty."
        raise InputError(msg)
    sizes = {source.sample: source.out_px for source in sources}
    if len({source.out_px for source in sources}) > 1:
        msg = f"slides with patches of different size: {sizes} px; read all with one `out_px`."
        raise InputError(msg)


def _stacked(
    sources: Sequence[PatchSource], arrays: Sequence[NDArray[Any]], *, name: str, ndim: int
) -> NDArray[np.float32]:
    if len(arrays) != len(sources):
        msg = f"`{name}` holds {len(arrays)} arrays for {len(sources)} slides."
        raise InputError(msg)
    for source, array in zip(sources, arrays, strict=True):
        if array.ndim != ndim or len(array) != len(source) or array.shape[1:] != arrays[0].shape[1:]:
            msg = (
                f"slide {source.sample!r}: `{name}` of shape {array.shape}; wanted {len(source)} rows"
                f"{f' of {arrays[0].shape[1:]}' if ndim > 1 else ''}."
            )
            raise InputError(msg)
    stacked: NDArray[np.float32] = np.concatenate(arrays).astype(np.float32)
    if np.isinf(stacked).any():
        msg = f"`{name}` holds infinite values; use NaN for what was not measured."
        raise InputError(msg)
    return stacked


def _checked_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        msg = "`weights` must be finite, at least 0, and not all 0."
        raise InputError(msg)
    return weight
