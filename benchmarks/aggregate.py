"""Cells to patches: assignment, mean of an embedding, median of scores, beside the ways people have today.

One thread, the ways interleaved in one process, medians of CPU time. ``prototype`` is the plain way: group the cells by
the corner of their patch, then loop over the groups.

    python benchmarks/aggregate.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import json
import warnings
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import spatialdata as sd
from machine import cpu_seconds, record_options
from scipy import sparse
from shapely import box
from spatialdata.models import PointsModel, ShapesModel

from spatialsig.geometry.grid import patch_origins, points_in_patches
from spatialsig.stats.grouped import grouped_mean, grouped_median

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE, N_DIMS, N_SCORES, PATCHES_ACROSS = 512, 32, 6, 79  # 79 x 79 = 6,241 patches
GOALS = {"mean": 4.5, "median": 7.5, "spatialdata": 500.0}


def prototype(xy: np.ndarray, values: np.ndarray, how: Callable[..., np.ndarray]) -> np.ndarray:
    """Group by the corner of the patch and loop over the groups."""
    corner = np.floor(xy / SIZE).astype(np.int64) * SIZE
    groups = pd.DataFrame({"y0": corner[:, 1], "x0": corner[:, 0]}).groupby(["y0", "x0"]).indices
    return np.stack([how(values[rows], axis=0) for rows in groups.values()])


def by_pandas(member: sparse.csr_matrix, values: np.ndarray, how: str) -> np.ndarray:
    """Pandas' own grouping, patches known."""
    return pd.DataFrame(values).groupby(member.indices).agg(how).to_numpy()


def by_spatialdata(xy: np.ndarray, values: np.ndarray, squares: gpd.GeoDataFrame) -> sd.SpatialData:
    columns = [f"d{i}" for i in range(values.shape[1])]
    frame = pd.DataFrame(values, columns=columns).assign(x=xy[:, 0], y=xy[:, 1])
    points = PointsModel.parse(frame, coordinates={"x": "x", "y": "y"})
    return sd.aggregate(values=points, by=squares, value_key=columns, agg_func="mean")


def cells(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, embedding and scores of ``n`` cells in random order."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, PATCHES_ACROSS * SIZE, (n, 2))
    return xy, rng.normal(size=(n, N_DIMS)).astype(np.float32), rng.normal(size=(n, N_SCORES)).astype(np.float32)


def million(n: int, repeats: int) -> dict[str, dict[str, float]]:
    """Mean of an embedding and median of scores."""
    xy, embedding, scores = cells(n)
    origins = patch_origins(PATCHES_ACROSS * SIZE, PATCHES_ACROSS * SIZE, patch_px=SIZE, stride_px=SIZE)
    member = points_in_patches(xy, origins, size=SIZE)
    filled = np.unique(member.indices)
    np.testing.assert_allclose(
        grouped_mean(embedding, member)[filled], prototype(xy, embedding, np.mean), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        grouped_median(scores, member)[filled], prototype(xy, scores, np.nanmedian), rtol=1e-5, atol=1e-7
    )
    return {
        "assign": cpu_seconds({"ours": lambda: points_in_patches(xy, origins, size=SIZE)}, repeats),
        "mean": cpu_seconds(
            {
                "prototype": lambda: prototype(xy, embedding, np.mean),
                "pandas": lambda: by_pandas(member, embedding, "mean"),
                "sparse product": lambda: member.T.astype(np.float64) @ embedding,
                "ours": lambda: grouped_mean(embedding, member),
                "ours with assignment": lambda: grouped_mean(embedding, points_in_patches(xy, origins, size=SIZE)),
            },
            repeats,
        ),
        "median": cpu_seconds(
            {
                "prototype": lambda: prototype(xy, scores, np.nanmedian),
                "pandas": lambda: by_pandas(member, scores, "median"),
                "ours": lambda: grouped_median(scores, member),
            },
            repeats,
        ),
    }


def against_spatialdata(n: int, repeats: int) -> dict[str, float]:
    """Positions in, means out: both sides find the patches themselves."""
    xy, embedding, _ = cells(n)
    origins = patch_origins(PATCHES_ACROSS * SIZE, PATCHES_ACROSS * SIZE, patch_px=SIZE, stride_px=SIZE)
    squares = ShapesModel.parse(
        gpd.GeoDataFrame(geometry=box(origins[:, 1], origins[:, 0], origins[:, 1] + SIZE, origins[:, 0] + SIZE))
    )
    member = points_in_patches(xy, origins, size=SIZE)
    ways = {
        "spatialdata.aggregate": lambda: by_spatialdata(xy, embedding, squares),
        "ours with assignment": lambda: grouped_mean(embedding, points_in_patches(xy, origins, size=SIZE)),
        "ours": lambda: grouped_mean(embedding, member),
    }
    return cpu_seconds(ways, repeats)


def main() -> None:
    parser = record_options(__doc__, "aggregate", quick="a tenth of the cells")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    n, n_sd, repeats = (100_000, 20_000, 3) if args.quick else (1_000_000, 200_000, 5)
    grouped_mean(np.zeros((1, 1), np.float32), sparse.csr_matrix(np.ones((1, 1), np.uint8)))  # compile first
    seconds = million(n, repeats)
    seconds["spatialdata"] = against_spatialdata(n_sd, 1 if args.quick else 3)
    ratios = {
        "mean": seconds["mean"]["prototype"] / seconds["mean"]["ours"],
        "median": seconds["median"]["prototype"] / seconds["median"]["ours"],
        # the assignment is kept in the store, so that it is paid once
        "spatialdata": seconds["spatialdata"]["spatialdata.aggregate"] / seconds["spatialdata"]["ours"],
        "spatialdata, with assignment": seconds["spatialdata"]["spatialdata.aggregate"]
        / seconds["spatialdata"]["ours with assignment"],
    }
    for task, ways in seconds.items():
        for name, spent in ways.items():
            print(f"{task:12} {name:24} {1e3 * spent:9.1f} ms")
    for task, ratio in ratios.items():
        print(f"{task:28} {ratio:7.1f} x" + (f", goal {GOALS[task]} x" if task in GOALS else ""))
    result = {"n_cells": n, "n_cells_spatialdata": n_sd, "seconds": seconds, "ratios": ratios, "goals": GOALS}
    args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
