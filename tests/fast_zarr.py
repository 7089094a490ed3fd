"""Zarr without its threads, for tests: they write thousands of files of a few bytes, for each of which it changes threads thrice.

`make test-slow`, the benchmarks and every process that a test starts use Zarr as it is.
"""

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import zarr.core.sync

_USE_THREADS = (
    "zarr.storage._local",
    "zarr.codecs.zstd",
    "zarr.codecs.blosc",
    "zarr.codecs.gzip",
    "zarr.codecs.numcodecs._codecs",
)
_loops = threading.local()
_with_threads = zarr.core.sync.sync


class _Here:
    """``asyncio``, but what is meant for another thread is done in this one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def to_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


def _sync(coroutine: Coroutine[Any, Any, Any], loop: Any = None, timeout: float | None = None) -> Any:
    if asyncio._get_running_loop() is not None:  # called from inside, where Zarr says why this cannot be
        return _with_threads(coroutine, loop, timeout)
    if getattr(_loops, "pid", None) != os.getpid():  # a loop shares its sockets with a forked process
        _loops.pid, _loops.loop = os.getpid(), asyncio.new_event_loop()
    return _loops.loop.run_until_complete(coroutine)


def use() -> None:
    """Let all of Zarr work in the thread that asks."""
    for name in _USE_THREADS:
        importlib.import_module(name).asyncio = _Here()
    for name, module in list(sys.modules.items()):
        if name.startswith("zarr.") and getattr(module, "sync", None) is _with_threads:
            module.sync = _sync
