"""Axes of an embedding: principal components to start from, and after the fit a scale by the signal in them.

Floor 3, above data, models. Used by train/autoencoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig.stats.agreement import split_counts
from spatialsig.train.cells import CellBatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.nn.autoencoder import AutoencoderNet

MAX_CELLS = 200_000  # the covariance of a few hundred genes is known well by then
LEAST = 0.01  # share of an axis that is kept where the halves agree on nothing
CELLS_PER_AXIS = 20  # fewer cells say nothing about the axes


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


@torch.no_grad()
def scale_by_signal(
    net: AutoencoderNet,
    counts: Sequence[sparse.csr_matrix],
    *,
    mean: NDArray[Any],
    std: NDArray[Any],
    measured: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> NDArray[np.float64] | None:
    """Give the embedding the covariance that is signal, and change nothing of what the decoder rebuilds.

    Every molecule is dealt to one of two halves of its cell. The noise of the halves is independent, so the covariance
    *between* their embeddings is that of the cells; the rest of the covariance of the embeddings is noise. A linear map,
    undone by the decoder, takes one to the other: distances between cells are then those of their signal.

    Parameters
    ----------
    net
        Trained autoencoder, changed in place.
    counts
        Raw counts of cells that did not train, per slide ``(n_cells, n_genes)``.
    mean, std
        Scaler, ``(n_genes,)``.
    measured
        ``(n_slides, n_genes)`` bool; None where all genes are measured.
    seed
        Of the halves.

    Returns
    -------
    Share of signal of each direction at half of the molecules, descending ``(n_latent,)``; None where there are too few
    cells, and nothing was changed.
    """
    if sum(c.shape[0] for c in counts) < CELLS_PER_AXIS * net.config.n_latent:
        return None
    rng = np.random.default_rng(seed)
    first, second = zip(*(split_counts(c, seed=rng) for c in counts), strict=True)
    whole, a, b = (_codes(net, part, mean, std, measured) for part in (counts, first, second))
    change, share = signal_scaling(whole, a, b)
    net.change_axes(torch.from_numpy(whole.mean(axis=0)), torch.from_numpy(change))
    return share


def signal_scaling(
    whole: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map ``(k, k)`` that gives the embeddings ``whole`` the covariance that those of the halves ``a`` and ``b`` share.

    All are ``(n_cells, k)``. Also returns the shares of signal, descending.
    """
    off_a, off_b = a - a.mean(axis=0), b - b.mean(axis=0)
    between = (off_a.T @ off_b + off_b.T @ off_a) / (2 * len(a))
    root, inverse = _roots(np.atleast_2d(np.cov(whole.T)))
    share, axes = np.linalg.eigh(inverse @ between @ inverse)
    kept = np.clip(share, LEAST, 1.0)
    change = inverse @ (axes * np.sqrt(kept)) @ axes.T @ root
    return change, share[::-1]


def _roots(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Square root of a covariance, and its inverse; a direction without any variance counts as a narrow one."""
    variance, axes = np.linalg.eigh(covariance)
    sd = np.sqrt(np.maximum(variance, 1e-9 * variance.max()))
    return (axes * sd) @ axes.T, (axes / sd) @ axes.T


def _codes(
    net: AutoencoderNet,
    counts: Sequence[sparse.csr_matrix],
    mean: NDArray[Any],
    std: NDArray[Any],
    measured: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    batches = CellBatches(counts, mean=mean, std=std, measured=measured, batch_size=4096, shuffle=False)
    device = next(net.parameters()).device
    was = net.training
    net.eval()
    codes = [net.encode(batch.z.to(device)).double().cpu().numpy() for batch in batches]
    net.train(was)
    return np.concatenate(codes)
