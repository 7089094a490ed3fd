"""Cells of several slides that an autoencoder learns from, and the scaler of their expression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.data.cells import MemoryCells, StoredCells
from spatialsig.stats.cell_rows import sub_matrix
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.cells import CellSource
    from spatialsig.slide.slides import Slide


@dataclass
class TrainingCells:
    """Cells of several slides to read from, the genes each measures, and sums of their expression."""

    genes: list[str]
    samples: list[str] = field(default_factory=list)
    sources: list[CellSource] = field(default_factory=list)
    measured: list[NDArray[np.bool_]] = field(default_factory=list)
    sums: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Genes that each slide measures, ``(n_slides, n_genes)``."""
        return np.stack(self.measured)

    def add(self, slide: Slide, table_key: str, counts: sparse.csr_matrix, rows: NDArray[np.bool_]) -> None:
        """Take chosen cells of a slide; its counts are at hand now, so nothing has to be read for the scaler later."""
        if not rows.any():
            return
        columns = np.asarray(slide.table(table_key).var_names.get_indexer(self.genes), np.int64)
        chosen, measured = np.flatnonzero(rows), columns >= 0
        used = np.zeros(counts.shape[1], bool)
        used[columns[measured]] = True
        sums = gene_moments(counts, library_size(counts, genes=used), rows=rows)
        self.sums.append((np.where(measured, sums[0][columns], 0), np.where(measured, sums[1][columns], 0)))
        if slide.path is None:
            source: CellSource = MemoryCells(sub_matrix(counts, columns, chosen))
        else:
            source = StoredCells(slide.path / "tables" / table_key / "X", columns, chosen)
        self.samples.append(slide.name)
        self.sources.append(source)
        self.measured.append(measured)

    def scaler(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of every gene over the cells of the slides that measure it."""
        total, squares = np.sum(self.sums, axis=0)
        n = np.array([source.n_cells for source in self.sources]) @ self.mask
        mean, std = scaler_from_moments(total, squares, n.astype(np.float64))
        return mean.astype(np.float32), std.astype(np.float32)
