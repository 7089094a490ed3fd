"""One small cohort on disk for all tests of the room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import spatialsig as sp

if TYPE_CHECKING:
    import pandas as pd

REAL = Path(__file__).parents[3] / "shared" / "data" / "xenium_mouse_ileum_tiny"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Two slides of 0.5 mm, read only."""
    return sp.datasets.synthetic_xenium(tmp_path_factory.mktemp("synthetic"), n_slides=2, size_um=500.0, seed=3)


@pytest.fixture(scope="session")
def real_bundle() -> Path:
    """The real Xenium folder beside the checkout."""
    if not REAL.exists():
        pytest.skip("needs the real bundle xenium_mouse_ileum_tiny in ../shared/data")
    return REAL
