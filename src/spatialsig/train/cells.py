"""Batches of z-scored cells from several slides, shuffled together; only the batch is dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from spatialsig._checks import check_positive
from spatialsig._errors import InputError
from spatialsig.stats.expression import library_size, zscore_dense

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class CellBatches:
    """Iterate over the cells of all slides; each pass is one epoch.

    Parameters
    ----------
    slides
        Raw counts ``(n_cells, n_genes)`` per slide, all with the same genes.
    mean, std
        Scaler, ``(n_genes,)``.
    batch_size
        Cells per batch.
    seed
        Seed of the order.
    shuffle
        Draw a new order every epoch; a last, smaller batch is then left out.
    """

    def __init__(
        self,
        slides: Sequence[sparse.csr_matrix],
        *,
        mean: NDArray[Any],
        std: NDArray[Any],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        check_positive(batch_size=batch_size)
        self.slides = [sparse.csr_matrix(slide) for slide in slides]
        widths = {slide.shape[1] for slide in self.slides}
        self.n_cells = int(sum(slide.shape[0] for slide in self.slides))
        if not self.n_cells or widths != {len(mean)}:
            msg = f"{self.n_cells} cells of {sorted(widths)} genes; wanted cells of {len(mean)} genes, as the scaler."
            raise InputError(msg)
        self.library = [library_size(slide) for slide in self.slides]
        self.mean, self.std = mean, std
        self.batch_size, self.seed, self.shuffle, self.epoch = min(batch_size, self.n_cells), seed, shuffle, 0
        self._first = np.cumsum([0, *(slide.shape[0] for slide in self.slides)])

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch."""
        short = 0 if self.shuffle else self.batch_size - 1
        return (self.n_cells + short) // self.batch_size

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield z-scores ``(b, n_genes)`` float32."""
        order = np.arange(self.n_cells)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_cells)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self.zscores(order[start : start + self.batch_size])

    def zscores(self, cells: NDArray[np.int64]) -> torch.Tensor:
        """z-scores of ``cells``, numbered over all slides; grouped by slide, the order inside a batch being idle."""
        slide = np.searchsorted(self._first, cells, side="right") - 1
        rows = [(index, cells[slide == index] - self._first[index]) for index in np.unique(slide)]
        counts = sparse.vstack([self.slides[index][chosen] for index, chosen in rows], format="csr")
        library = np.concatenate([self.library[index][chosen] for index, chosen in rows])
        return torch.from_numpy(zscore_dense(counts, library, self.mean, self.std))
