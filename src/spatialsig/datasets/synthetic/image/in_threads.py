"""Parts of a picture painted by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from spatialsig._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Part = TypeVar("Part")


def paint_parts(paint: Callable[[Part], None], parts: Iterable[Part]) -> None:
    """Paint every part, several at a time; each must write to pixels of its own."""
    with ThreadPoolExecutor(settings.threads) as pool:
        for _ in pool.map(paint, parts):  # asking for each result raises what a thread raised
            pass
