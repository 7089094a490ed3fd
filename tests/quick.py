"""Parameters of which `make test` tries some, and `make test-slow` all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def all_of(names: Iterable[str], *, quick: Collection[str]) -> list[object]:
    """Every name as a parameter; slow unless it is one of ``quick``."""
    names = list(names)
    assert set(quick) <= set(names), f"not among the names: {set(quick) - set(names)}"
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]
