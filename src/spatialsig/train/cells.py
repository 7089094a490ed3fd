"""Batches of cells from several slides, shuffled together; only the batch is dense.

Floor 3, above data, models. Used by train/autoencoder, train/latent_axes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from spatialsig._checks import check_positive
from spatialsig._settings import settings
from spatialsig.data.cells import MemoryCells, blocks
from spatialsig.data.passes import ResumableOrder, ahead
from spatialsig.errors import InputError
from spatialsig.stats.cell_rows import dense_rows, log_expression, standardised_rows
from spatialsig.stats.expression import library_size
from spatialsig.train.run_fingerprint import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from spatialsig.data.cells import CellSource

BYTES_PER_NNZ = 8  # float32 expression, int32 column; 4 more where the counts stay too
BATCHES_AHEAD = 4
PROBE_CELLS = 256  # cells that tell one slide from another, three times


class CellBatch(NamedTuple):
    """One batch; ``counts`` is empty unless the loss asks for it."""

    z: torch.Tensor  # (b, n_genes) float32 z-scores; 0 where the slide does not measure the gene
    counts: torch.Tensor  # (b, n_genes) float32, or (0,)
    library: torch.Tensor  # (b,) float32
    slide: torch.Tensor  # (b,) int64


class CellBatches(ResumableOrder):
    """Iterate over the cells of all slides; each pass is one epoch.

    A cohort that fits ``settings.cells_mb`` is held in memory as CSR and shuffled as a whole. A larger one is read from
    its stores: blocks of consecutive cells, drawn from all slides at random, fill a buffer of that size, which is
    shuffled and handed out.

    Parameters
    ----------
    slides
        Per slide raw counts ``(n_cells, n_genes)`` CSR, or a :class:`spatialsig.data.cells.CellSource`.
    mean, std
        Scaler, ``(n_genes,)``.
    batch_size
        Cells per batch.
    measured
        ``(n_slides, n_genes)`` bool, False where a slide does not measure a gene; None where all do.
    seed
        Seed of the order.
    shuffle
        Draw a new order every epoch; a last, smaller batch is then left out.
    with_counts
        Also hand out the counts.
    """

    def __init__(
        self,
        slides: Sequence[sparse.csr_matrix | CellSource],
        *,
        mean: NDArray[Any],
        std: NDArray[Any],
        batch_size: int,
        measured: NDArray[np.bool_] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        with_counts: bool = False,
    ) -> None:
        check_positive(batch_size=batch_size)
        self.sources = [MemoryCells(sparse.csr_matrix(s)) if sparse.issparse(s) else s for s in slides]
        self.n_cells = int(sum(source.n_cells for source in self.sources))
        self.mean, self.std, self.measured = mean, std, measured
        self._check_widths()
        self.batch_size, self.seed, self.shuffle, self.epoch = min(batch_size, self.n_cells), seed, shuffle, 0
        self.rank, self.world_size = 0, 1
        self.with_counts = with_counts
        self.first_slide = 0  # number that the batches give to the first slide
        self._nnz_bytes = BYTES_PER_NNZ + (4 if with_counts else 0)
        size_mb = sum(source.nnz for source in self.sources) * self._nnz_bytes / 2**20
        self.streamed = size_mb > settings.cells_mb
        whole = [(s, 0, source.n_cells) for s, source in self._numbered()]
        self._pool = None if self.streamed else self._read(whole)

    def __len__(self) -> int:
        """Batches per epoch, of this process."""
        together = self.batch_size * self.world_size
        short = 0 if self.shuffle else together - 1
        return (self.n_cells + short) // together

    def shared(self, *, rank: int, world_size: int) -> CellBatches:
        """The same cells as one of ``world_size`` processes sees them; each batch is its share of a larger one."""
        if self.n_cells < world_size:
            msg = f"{self.n_cells} cells cannot be shared by {world_size} processes; use fewer."
            raise InputError(msg)
        mine = copy.copy(self)
        mine.rank, mine.world_size = rank, world_size
        mine.batch_size = min(self.batch_size, self.n_cells // world_size)
        while not self.shuffle and 0 < self.n_cells % (mine.batch_size * world_size) < world_size:
            mine.batch_size -= 1  # else some process would have no cell in the last batch
        return mine

    def identity(self) -> dict[str, Any]:
        """What a resumed training must agree in: order, scaler, panels, and the counts of every slide (in part)."""
        return self.order_facts() | {
            "cells": [source.n_cells for source in self.sources],
            "counts": digest(*(array for source in self.sources for array in _probe(source))),
            "scaler": digest(np.asarray(self.mean), np.asarray(self.std)),
            "measured": digest(self.measured),
        }

    def __iter__(self) -> Iterator[CellBatch]:
        """Yield the batches of one epoch, the next ones being made ready meanwhile."""
        start = self.begin_pass()
        rng = np.random.default_rng((self.seed, self.epoch))
        for position, batch in enumerate(ahead(self._batches(rng, start), depth=BATCHES_AHEAD), start=start + 1):
            self._position = position
            yield batch

    def _batches(self, rng: np.random.Generator, first: int) -> Iterator[CellBatch]:
        """Batches from the ``first`` on; those before it are drawn, so that the rest stays what it is, but not made."""
        left, number, together = None, 0, self.batch_size * self.world_size
        for pool in self._pools(rng):
            order = rng.permutation(len(pool.slide)) if self.shuffle else np.arange(len(pool.slide))
            if left is not None:
                few = together - len(left.slide)
                left, order = _Pool.joined(left, pool.taken(order[:few])), order[few:]
                if len(left.slide) < together:
                    continue
                if number >= first:
                    yield self._batch(left, np.arange(self.rank, together, self.world_size))
                number += 1
            whole = len(order) // together * together
            for start in range(0, whole, together):
                if number >= first:
                    yield self._batch(pool, order[start : start + together][self.rank :: self.world_size])
                number += 1
            left = pool.taken(order[whole:]) if whole < len(order) else None
        if left is not None and not self.shuffle:
            yield self._batch(left, np.arange(self.rank, len(left.slide), self.world_size))

    def _pools(self, rng: np.random.Generator) -> Iterator[_Pool]:
        """Parts of the cohort small enough for memory, together every cell once."""
        if self._pool is not None:
            yield self._pool
            return
        parts = [(s, first, last) for s, source in self._numbered() for first, last in blocks(source)]
        if self.shuffle:
            parts = [parts[i] for i in rng.permutation(len(parts))]
        sizes = [self.sources[s].nnz * (last - first) / self.sources[s].n_cells for s, first, last in parts]
        # a pool is read while the one before is being used: two are in memory
        room = settings.cells_mb * 2**20 / self._nnz_bytes / 2
        number = (np.cumsum(sizes) - sizes) // room
        groups = [[parts[i] for i in np.flatnonzero(number == n)] for n in np.unique(number)]
        yield from ahead((self._read(group) for group in groups), depth=1)

    def _read(self, parts: Sequence[tuple[int, int, int]]) -> _Pool:
        return _Pool.of(self.sources, parts, with_counts=self.with_counts)

    def _batch(self, pool: _Pool, rows: NDArray[np.int64]) -> CellBatch:
        z = standardised_rows(pool.expression, rows, self.mean, self.std)
        slide = pool.slide[rows]
        if self.measured is not None:
            z *= self.measured[slide]
        counts = np.empty(0, np.float32) if pool.counts is None else dense_rows(pool.counts, rows)
        library = pool.library[rows].astype(np.float32)
        return CellBatch(*(torch.from_numpy(part) for part in (z, counts, library, slide + self.first_slide)))

    def order_facts(self) -> dict[str, int]:
        """What the order depends on, besides the epoch."""
        names = ("seed", "n_cells", "batch_size", "world_size", "shuffle", "streamed")
        room = int(settings.cells_mb * 2**20) if self.streamed else 0
        return {name: int(getattr(self, name)) for name in names} | {"room": room}

    def _numbered(self) -> Iterator[tuple[int, CellSource]]:
        return enumerate(self.sources)

    def _check_widths(self) -> None:
        widths = {source.read(0, 1).shape[1] for source in self.sources}
        if not self.n_cells or widths != {len(self.mean)}:
            msg = f"{self.n_cells} cells of {sorted(widths)} genes; wanted cells of {len(self.mean)} genes, as the scaler."
            raise InputError(msg)


def _probe(source: CellSource) -> tuple[NDArray[Any], ...]:
    """Counts of the first, the middle and the last cells of a slide."""
    n = source.n_cells
    parts = [source.read(first, min(first + PROBE_CELLS, n)) for first in (0, n // 2, max(n - PROBE_CELLS, 0))]
    read = sparse.vstack(parts, format="csr")
    read.sort_indices()
    return np.array([n, source.nnz]), read.data, read.indices.astype(np.int64), read.indptr.astype(np.int64)


class _Stack:
    """Matrices one below the other, in memory taken once; what stays empty of it is never touched."""

    def __init__(self, room: int) -> None:
        self._data, self._indices = np.empty(room, np.float32), np.empty(room, np.int32)
        self._lengths: list[NDArray[np.int64]] = []
        self._n = self._n_columns = 0

    def add(self, block: sparse.csr_matrix) -> None:
        rows = slice(self._n, self._n + block.nnz)
        self._data[rows], self._indices[rows] = block.data, block.indices
        self._lengths.append(np.diff(block.indptr).astype(np.int64))
        self._n, self._n_columns = rows.stop, block.shape[1]

    def matrix(self) -> sparse.csr_matrix:
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        shape = (len(indptr) - 1, self._n_columns)
        return sparse.csr_matrix((self._data[: self._n], self._indices[: self._n], indptr), shape=shape, copy=False)


class _Pool(NamedTuple):
    """Cells in memory, ready to be drawn from; the counts stay only where batches need them."""

    expression: sparse.csr_matrix
    counts: sparse.csr_matrix | None
    library: NDArray[np.float64]
    slide: NDArray[np.int64]

    @classmethod
    def of(
        cls, sources: Sequence[CellSource], parts: Sequence[tuple[int, int, int]], *, with_counts: bool = False
    ) -> _Pool:
        room = sum(sources[slide].nnz_of(first, last) for slide, first, last in parts)
        expression, counts = _Stack(room), _Stack(room) if with_counts else None
        library = []
        for slide, first, last in parts:  # one part beside the pool is in memory, not the whole pool twice
            block = sources[slide].read(first, last)
            library.append(library_size(block))
            expression.add(log_expression(block, library[-1]))
            if counts is not None:
                counts.add(block)
        slides = np.repeat([slide for slide, _, _ in parts], [len(of_part) for of_part in library])
        whole = None if counts is None else counts.matrix()
        return cls(expression.matrix(), whole, np.concatenate(library), slides.astype(np.int64))

    @classmethod
    def joined(cls, a: _Pool, b: _Pool) -> _Pool:
        expression = sparse.vstack([a.expression, b.expression], format="csr")
        counts = None if a.counts is None else sparse.vstack([a.counts, b.counts], format="csr")
        return cls(expression, counts, np.concatenate([a.library, b.library]), np.concatenate([a.slide, b.slide]))

    def taken(self, rows: NDArray[np.int64]) -> _Pool:
        counts = None if self.counts is None else self.counts[rows]
        return _Pool(self.expression[rows], counts, self.library[rows], self.slide[rows])
