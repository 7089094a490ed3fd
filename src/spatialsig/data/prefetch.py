"""Make the next items ready in a thread while the present one is used."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
_END = object()
_POLL_S = 0.1


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
