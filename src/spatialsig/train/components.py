"""Principal components of z-scored cells, from batches: the matrix of a slide is never made dense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CELLS = 200_000  # the covariance of a few hundred genes is known well by then


def principal_components(
    batches: Iterable[torch.Tensor], n_components: int, *, max_cells: int = MAX_CELLS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leading components of the covariance of the first cells.

    Parameters
    ----------
    batches
        z-scores ``(b, n_genes)``.
    n_components
        How many; at most ``n_genes`` are given.
    max_cells
        Cells to look at, of shuffled batches a random sample.

    Returns
    -------
    Orthonormal rows ``(n_components, n_genes)``, the largest variance first, and the mean ``(n_genes,)``, float32.
    """
    n, total, products = 0, torch.zeros(1), torch.zeros(1)
    for z in batches:
        n += len(z)
        total = total + z.sum(dim=0, dtype=torch.float64)
        products = products + (z.T @ z).double()
        if n >= max_cells:
            break
    mean = total / n
    covariance = products / n - torch.outer(mean, mean)
    vectors = torch.linalg.eigh(covariance).eigenvectors  # ascending
    return vectors.flip(1)[:, :n_components].T.float().contiguous(), mean.float()
