"""Epochs over batches: resumable at any batch, prefetched by a thread, read by worker processes of torch.

Floor 2, above geometry, nn, signatures, stats, store. Used by 8 modules of data, inference, maps, tl, train.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.data.loader import Batch, PatchBatches

T = TypeVar("T")
_END = object()
_POLL_S = 0.1
AHEAD = 1  # batches that a worker prepares beside those that the DataLoader asks for


class ResumableOrder(ABC):
    """Epoch and position within it, kept as a few numbers.

    Attributes
    ----------
    epoch
        Current pass; the seed and it decide the order.
    """

    epoch: int
    _position: int = 0  # batches handed out in this pass
    _start: int = 0  # batch that the next pass begins at

    @abstractmethod
    def __len__(self) -> int:
        """Batches per epoch, of this process."""

    @abstractmethod
    def order_facts(self) -> dict[str, int]:
        """Everything that the order depends on, besides the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, which begins at its first batch unless this is the epoch being resumed."""
        if epoch != self.epoch:
            self._position = self._start = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Where this pass stands, after the batch handed out last."""
        done = self._position == len(self)
        return self.order_facts() | {"epoch": self.epoch + done, "position": 0 if done else self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where :meth:`state_dict` was taken; it continues exactly as that one would have.

        Raises
        ------
        InputError
            If the state is that of other data, or of another order.
        """
        changed = {name: (state.get(name), own) for name, own in self.order_facts().items() if state.get(name) != own}
        if changed:
            told = ", ".join(f"`{name}` {was} then, {own} now" for name, (was, own) in changed.items())
            msg = f"the batches cannot resume where they stood: {told}. Make them with the same arguments."
            raise InputError(msg)
        self.epoch, self._start = state["epoch"], state["position"]
        self._position = self._start

    def begin_pass(self) -> int:
        """Number of the batch that this pass begins at; the next one begins at its first."""
        self._position, self._start = self._start, 0
        return self._position


def ahead(items: Iterator[T], *, depth: int) -> Iterator[T]:
    """Yield ``items`` in their order, at most ``depth`` of them computed ahead, in one thread.

    An exception of the source is raised where its item would have come. A consumer that stops early ends the thread.
    """
    ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            while _enter(room, stopped):
                ready.put((next(items), None))
        except StopIteration:
            ready.put((_END, None))
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            ready.put((_END, error))

    thread = threading.Thread(target=work, name="spatialsig-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield item
    finally:
        stopped.set()
        thread.join()


def _enter(room: threading.Semaphore, stopped: threading.Event) -> bool:
    """Wait for room; False when nobody wants more."""
    while not stopped.is_set():
        if room.acquire(timeout=_POLL_S):
            return not stopped.is_set()
    return False


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
