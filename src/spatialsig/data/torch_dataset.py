"""The same batches, read by the worker processes of a torch ``DataLoader``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import IterableDataset, get_worker_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.data.loader import Batch, PatchBatches

AHEAD = 1  # batches that a worker prepares beside those that the DataLoader asks for


class PatchDataset(IterableDataset[dict[str, torch.Tensor]]):
    """Whole batches of :class:`~spatialsig.data.loader.PatchBatches`, in its order, from any number of workers.

    ``DataLoader(PatchDataset(batches), batch_size=None, num_workers=2)``; workers may be forked or spawned, and may
    persist. On few cores iterating over ``batches`` itself is faster: nothing is copied between processes.

    Parameters
    ----------
    batches
        What to read. Each worker keeps its part of the cache's memory.
    """

    def __init__(self, batches: PatchBatches) -> None:
        super().__init__()
        self.batches = batches
        self._pass = torch.tensor([batches.epoch, 0]).share_memory_()  # type: ignore[no-untyped-call]  # epoch and first batch, seen by all workers

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Choose the order of the next pass, and the batch that it begins at."""
        self._pass.copy_(torch.tensor([epoch, start]))

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's batches; the ``DataLoader`` puts those of all workers back into order."""
        worker = get_worker_info()
        index, n = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch, start = self._pass.tolist()
        self.batches.set_epoch(epoch)
        return self.batches.read(start=start, worker=index, n_workers=n, depth=AHEAD)
