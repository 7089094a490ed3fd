"""The order in which patches are visited: a function of seed and epoch, whoever reads them.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/features, data/loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource

BLOCK_PATCHES = 8  # patches along the edge of a block, at least: few of them then cross its border
MAX_AMPLIFICATION = 8.0  # pixels decoded per pixel used, above which patches are visited by blocks
MAX_WINDOW = 6144  # patches; a longer window would only delay the first batch
ROUNDS = 3  # passes over the epoch that one block may be spread into: a window is up to half as long again
WAITING = 1 / 3  # mean wait of a patch, as a share of the window: as large a share of them is in memory


def spread(
    group: NDArray[np.int64], rng: np.random.Generator, shuffled: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Shuffle items so that every stretch holds the groups in the proportion of the whole, ``(n,)``.

    Item k of a group's n_g items, in random order or in that of ``shuffled``, sits at ``(k + u) / n_g`` of the whole.
    """
    shuffled = rng.permutation(len(group)) if shuffled is None else shuffled
    place = np.empty(len(group))
    for index in range(int(group.max(initial=-1)) + 1):
        mine = shuffled[group[shuffled] == index]
        place[mine] = (np.arange(len(mine)) + rng.random(len(mine))) / max(len(mine), 1)
    return np.argsort(place, kind="stable")


def dispersed(items: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle items so that every stretch comes evenly from all parts of their order, ``(n,)``.

    Both halves are dispersed, and merged with item k of n at ``(k + u) / n``.
    """
    if len(items) < 2:
        return items
    halves = np.array_split(items, 2)
    place = np.concatenate([(np.arange(len(half)) + rng.random(len(half))) / len(half) for half in halves])
    return np.concatenate([dispersed(half, rng) for half in halves])[np.argsort(place, kind="stable")]


def full_shuffle(slide: NDArray[np.int64], *, seed: int, epoch: int, slide_balanced: bool) -> NDArray[np.int64]:
    """Every order of the patches is as likely, or every one that spreads the slides evenly over the epoch."""
    rng = np.random.default_rng((seed, epoch))
    return spread(slide, rng) if slide_balanced else rng.permutation(len(slide))


def block_shuffle(
    slide: NDArray[np.int64], block: NDArray[np.int64], *, window: int, seed: int, epoch: int, slide_balanced: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shuffle blocks, then patches within a window that slides over them.

    Blocks that follow each other come from all parts of a slide. A patch comes up to ``window`` patches after the start
    of its block, after a third of that on average, by a density that falls to 0 in a line: of all densities with that
    mean, and so with as many patches waiting, it brings fewest patches of a block together. What would come after the
    end comes at the beginning instead, so that the first and the last batches mix as many blocks as all others; the
    blocks concerned are visited up to ``ROUNDS`` times.

    Parameters
    ----------
    slide, block
        Of each patch, ``(n_patches,)``; a block lies on one slide, and numbers that are close lie close.
    window
        Patches to mix; more than half as many again as there are make no difference.
    seed, epoch
        Seed of all draws.
    slide_balanced
        Spread the blocks of every slide evenly over the epoch.

    Returns
    -------
    Patches in their order, and the visit in which each patch is read (by patch, not by place), ``(n_patches,)`` both.
    """
    rng = np.random.default_rng((seed, epoch))
    blocks, first, member = np.unique(block, return_index=True, return_inverse=True)
    sequence = dispersed(np.arange(len(blocks)), rng)
    if slide_balanced:
        each = [dispersed(np.flatnonzero(slide[first] == index), rng) for index in np.unique(slide)]
        sequence = spread(slide[first], rng, np.concatenate(each))
    sizes, n = np.bincount(member), len(block)
    start = np.empty(len(blocks))
    start[sequence] = np.cumsum(sizes[sequence]) - sizes[sequence]
    place = start[member] + min(window, 1.5 * n) * (1 - np.sqrt(rng.random(n)))
    round_ = (place // n).astype(np.int64)
    return np.argsort(place - n * round_, kind="stable"), ROUNDS * member + round_


def blocks_of(sources: Sequence[PatchSource]) -> NDArray[np.int64]:
    """Block of every patch, numbered over all slides: neighbours whose chunks are worth decoding together."""
    numbers, n = [], 0
    for source in sources:
        chunk = source.level.chunk_px or source.level.shape
        first, last = source.windows
        size = (last - first).max(axis=0, initial=1)
        edge = [c * -(-BLOCK_PATCHES * int(s) // c) for c, s in zip(chunk, size, strict=True)]
        cell, number = np.unique(on_curve(first // np.array(edge)), return_inverse=True)
        numbers.append(number.reshape(-1) + n)
        n += len(cell)
    return np.concatenate(numbers)


def on_curve(cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of cells ``(n, 2)`` along a Z-shaped curve: the bits of y and x interleaved (Morton order), so that neighbours stay close."""
    bits = np.arange(24)
    split = ((cell[:, :, None] >> bits) & 1) << (2 * bits + np.array([[1], [0]]))
    place: NDArray[np.int64] = split.sum(axis=(1, 2))
    return place


def rank_batches(
    order: NDArray[np.int64], *, batch_size: int, rank: int = 0, world_size: int = 1, drop_last: bool = False
) -> list[NDArray[np.int64]]:
    """Batches of one of ``world_size`` processes; all get as many, and no patch twice.

    Step k of all processes together holds the patches that step k of a single one with ``world_size * batch_size``
    would hold, save at the end: a rest too small for every process to get a patch of it is shared out over the last two
    steps. Only with ``batch_size=1`` such a rest is left out of this epoch.

    Raises
    ------
    InputError
        If there are fewer patches than processes.
    """
    n, step = len(order), batch_size * world_size
    full, rest = divmod(n, step)
    if n < world_size:
        msg = f"{n} patches cannot be shared by `world_size={world_size}` processes; use fewer."
        raise InputError(msg)
    sizes = [step] * full
    if rest and not drop_last:
        if rest >= world_size:
            sizes.append(rest)
        elif batch_size > 1 and full:
            both = sizes.pop() + rest
            sizes += [both - both // 2, both // 2]
    ends = np.cumsum(sizes)
    return [order[end - size : end][rank::world_size] for end, size in zip(ends, sizes, strict=True)]


def with_blocks(
    batches: Sequence[NDArray[np.int64]], block: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each batch with what is to be read at its turn: all patches, now or later, of the blocks that it is the first to use."""
    patches = np.concatenate([*batches, np.empty(0, np.int64)])
    turn = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    first = np.full(int(block.max(initial=0)) + 1, len(batches))
    np.minimum.at(first, block[patches], turn)
    due = first[block[patches]]
    by_turn = np.argsort(due, kind="stable")
    parts = np.split(patches[by_turn], np.searchsorted(due[by_turn], np.arange(1, len(batches))))
    return list(zip(batches, parts, strict=True)) if len(batches) else []
