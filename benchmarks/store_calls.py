"""Calls of the operating system by which a writer changes files, counted, so that something can happen at each."""

from __future__ import annotations

import builtins
import io
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spatialsig.store import atomic
from spatialsig.store import commit as commit_module
from spatialsig.store import swap as swap_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Counter:
    """Calls of the operating system that a writer makes; something happens at the k-th, or at each."""

    def __init__(self, at: int | None, happen: Callable[[], None]) -> None:
        self.at, self.happen, self.count = at, happen, 0
        self.names: list[str] = []

    def tick(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.at in (None, self.count):
            self.happen()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tick(name)
            return function(*args, **kwargs)

        return counted


class _File:
    """An open file whose writes are counted; one that fails has written half."""

    def __init__(self, file: Any, counter: Counter) -> None:
        self._file, self._counter = file, counter

    def write(self, data: Any) -> Any:
        try:
            self._counter.tick("write")
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)


OPERATIONS = ("rename", "replace", "link", "unlink", "fsync", "mkdir", "rmdir")


@contextmanager
def counted_calls(counter: Counter) -> Iterator[Callable[[], Any]]:
    """Count the calls that change files; yields a context in which nothing is counted."""
    plain_open = io.open

    def opening(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wxa+") or isinstance(file, int):
            return plain_open(file, mode, *args, **kwargs)
        counter.tick("open")
        return _File(plain_open(file, mode, *args, **kwargs), counter)

    places = [(os, name) for name in OPERATIONS]
    places += [(atomic, "link"), (atomic, "_exchange_at_once")]
    places += [(module, "flush_tree") for module in (swap_module, commit_module)]
    originals = [(module, name, getattr(module, name)) for module, name in places]
    originals += [(io, "open", plain_open), (builtins, "open", plain_open)]

    def patch() -> None:
        for module, name, function in originals:
            setattr(module, name, opening if name == "open" else counter.around(name.strip("_"), function))

    def restore() -> None:
        for module, name, function in originals:
            setattr(module, name, function)

    @contextmanager
    def plain() -> Iterator[None]:
        restore()
        try:
            yield
        finally:
            patch()

    patch()
    try:
        yield plain
    finally:
        restore()
