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
    """Yield ``items`` in their order, up to ``depth`` of them computed ahead in one thread.

    An exception of the source is raised where its item would have come. A consumer that stops early ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _offer(ready, (item, None), stopped):
                    return
            _offer(ready, (_END, None), stopped)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            _offer(ready, (_END, error), stopped)

    thread = threading.Thread(target=work, name="spatialsig-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


def _offer(ready: queue.Queue[Any], entry: tuple[Any, Any], stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            ready.put(entry, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False
