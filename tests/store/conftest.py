from __future__ import annotations

import subprocess
import sys

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy import sparse
from shapely import box
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Scale

TO_GLOBAL = Affine(np.array([[0.2, 0.9, 3.0], [-0.9, 0.2, 400.0], [0, 0, 1]]), ("x", "y"), ("x", "y"))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """``(y, x, 3)`` uint8 without repetition."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def dead_pid() -> int:
    """Number of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


def squares(n: int = 3, shift: float = 0.0) -> gpd.GeoDataFrame:
    x = np.arange(n) * 10.0 + shift
    frame = gpd.GeoDataFrame({"row": np.arange(n)}, geometry=box(x, 0, x + 10, 10))
    return ShapesModel.parse(frame, transformations={"global": TO_GLOBAL})


def table(n: int = 4, value: float = 1.0) -> AnnData:
    obs = pd.DataFrame({"region": pd.Categorical(["squares"] * n), "patch_id": np.arange(n)})
    obs.index = obs.index.astype(str)
    adata = AnnData(sparse.csr_matrix(np.full((n, 2), value, np.float32)), obs=obs)
    adata.uns["spatialsig"] = {"a": {"b": 1}}
    return TableModel.parse(adata, region="squares", region_key="region", instance_key="patch_id")


def points(n: int = 5) -> object:
    frame = pd.DataFrame({"x": np.arange(n, dtype=float), "y": np.zeros(n)})
    return PointsModel.parse(frame, transformations={"global": Scale([2, 2], axes=("x", "y"))})


def labels() -> object:
    return Labels2DModel.parse(np.arange(64, dtype=np.int32).reshape(8, 8), dims=("y", "x"))


def image(height: int = 600, width: int = 500, seed: int = 0, scale_factors=None) -> object:
    return Image2DModel.parse(
        np.moveaxis(picture(height, width, seed), 2, 0),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=scale_factors,
        transformations={"global": TO_GLOBAL, "other": Scale([3, 3], axes=("x", "y"))},
    )


def whole() -> sd.SpatialData:
    return sd.SpatialData(
        images={"he": image()},
        labels={"cells": labels()},
        points={"dots": points()},
        shapes={"squares": squares()},
        tables={"table": table()},
        attrs={"spatialsig": {"sample": "S1"}},
    )


@pytest.fixture
def sdata() -> sd.SpatialData:
    return whole()


@pytest.fixture(scope="session")
def kept_stores(tmp_path_factory):
    """One store of ours and one of spatialdata; copied by the tests that change them."""
    from spatialsig import settings
    from spatialsig.store.commit import create_store

    directory = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "progress", False)
        create_store(directory / "ours.zarr", whole())
    whole().write(directory / "theirs.zarr")
    return directory


@pytest.fixture(params=["ours", "theirs"])
def store(kept_stores, tmp_path, request):
    import shutil

    return shutil.copytree(kept_stores / f"{request.param}.zarr", tmp_path / "s.zarr")
