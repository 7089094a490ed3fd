"""What was found of files of a store, asked once for as long as these files stay.

Floor 1, above the ground floor. Used by slide/fingerprints, store/stored/files.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MANY = 4096


class Answers:
    """Answers by a hash of what they are about, the latest ``n`` of them; what was asked to find them is not kept."""

    def __init__(self, n: int = MANY) -> None:
        self._n = n
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, about: str, find: Callable[[], T]) -> T:
        """The answer kept for ``about``, a hash that holds in what state the files are, or else what ``find`` finds."""
        with self._lock:
            if about in self._kept:
                self._kept.move_to_end(about)
                return cast("T", self._kept[about])
        found = find()
        with self._lock:
            self._kept[about] = found
            while len(self._kept) > self._n:
                self._kept.popitem(last=False)
        return found


ANSWERS = Answers()
