"""Every file has the fields and types of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr

PARQUET = ("cells", "cell_boundaries", "nucleus_boundaries", "transcripts")


@pytest.fixture(scope="module")
def bundle(cohort):
    return Path(cohort["bundle"][0])


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_fields(bundle, real_bundle, name):
    ours, theirs = (pq.read_schema(folder / f"{name}.parquet").remove_metadata() for folder in (bundle, real_bundle))
    assert ours.equals(theirs)


def test_matrix_fields(bundle, real_bundle):
    def fields(folder):
        found = {}
        with h5py.File(folder / "cell_feature_matrix.h5") as file:
            file.visititems(
                lambda name, item: found.update({name: getattr(getattr(item, "dtype", None), "kind", None)})
            )
            integers = {name: str(file["matrix"][name].dtype) for name in ("data", "indices", "indptr", "shape")}
            return found, integers, set(file.attrs)

    assert fields(bundle) == fields(real_bundle)


def test_segmentation_fields(bundle, real_bundle):
    def fields(folder):
        with zarr.storage.ZipStore(folder / "cells.zarr.zip", read_only=True) as store:
            root = zarr.open_group(store, mode="r")
            found = {name: (str(a.dtype), a.ndim) for name, a in root.members(max_depth=None) if hasattr(a, "dtype")}
            attributes = {key: value for key, value in root.attrs.items() if key != "number_cells"}
            return found, attributes, dict(root["cell_summary"].attrs), root["masks/homogeneous_transform"][:].tolist()

    ours, theirs = fields(bundle), fields(real_bundle)
    assert ours[:3] == theirs[:3]
    np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-6)


def test_experiment_fields(bundle, real_bundle):
    ours, theirs = (json.loads((folder / "experiment.xenium").read_text()) for folder in (bundle, real_bundle))
    assert set(ours) == set(theirs)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}


def test_gene_panel_fields(bundle, real_bundle):
    ours, theirs = (json.loads((folder / "gene_panel.json").read_text())["payload"] for folder in (bundle, real_bundle))
    assert set(ours) == set(theirs)
    assert set(ours["panel"]) == set(theirs["panel"])
    for kind in ("gene", "negative_control"):
        mine, real = (next(t for t in p["targets"] if t["type"]["descriptor"] == kind) for p in (ours, theirs))
        assert set(mine) == set(real)
        assert set(mine["type"]["data"]) == set(real["type"]["data"])


def test_metrics_are_a_subset(bundle, real_bundle):
    ours, theirs = (pd.read_csv(folder / "metrics_summary.csv") for folder in (bundle, real_bundle))
    assert set(ours) <= set(theirs)


def test_morphology_layout(bundle, real_bundle):
    def layout(folder):
        with tifffile.TiffFile(folder / "morphology_focus" / "morphology_focus_0000.ome.tif") as file:
            page = file.pages[0]
            halves = all(
                small.shape == tuple(side // 2 for side in large.shape)
                for large, small in zip(file.series[0].levels, file.series[0].levels[1:], strict=False)
            )
            in_subifds = len(file.pages) == 1 and len(page.pages) == len(file.series[0].levels) - 1
            return page.dtype, page.compression, page.tile, file.is_bigtiff, file.series[0].axes, halves, in_subifds

    assert layout(bundle) == layout(real_bundle)
