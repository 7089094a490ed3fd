"""Slides that were gathered for an evaluation, with numbers that are easily computed again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialsig.evaluation.rows import Rows

SIGNATURES = ["A", "B", "C"]
SIDE = 12  # patches along an edge


def gathered(sample: str, *, patient: str = "P1", train: Any = False, seed: int = 0) -> Rows:
    """A square of patches, one grid cell apart; the last signature is never measured."""
    rng = np.random.default_rng(seed)
    row, col = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    n = len(row)
    targets = rng.normal(size=(n, 3)).astype(np.float32)
    targets[rng.random(n) < 0.1, 1] = np.nan
    targets[:, 2] = np.nan
    features = {"colour": rng.normal(size=(n, 6)), "density": rng.normal(size=(n, 1)), "hand": rng.normal(size=(n, 15))}
    return Rows(
        sample=sample,
        patient=patient,
        signatures=SIGNATURES,
        train=np.broadcast_to(train, n).copy(),
        targets=targets,
        position=np.stack([col, row], axis=1) / SIDE,
        row=row,
        col=col,
        step=1,
        density=np.stack([rng.poisson(20.0, n), rng.normal(size=n)], axis=1).astype(np.float64),
        facts=None,  # type: ignore[arg-type]  # metrics and predictors look at numbers alone
        features=features,
        index=np.arange(n),
        ceiling=pd.DataFrame({"sample": sample, "signature": SIGNATURES, "ceiling": [0.9, 0.0, np.nan]}),
    )


@pytest.fixture
def gather_rows() -> Callable[..., Rows]:
    return gathered
