"""A table finds its patches by id or by place, whoever made it and in whatever order its rows are."""

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from shapely import box
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Scale, get_transformation

from spatialsig.errors import InputError, KeyMissingError
from spatialsig.slide.slides import Slide


def tiles_table(patched: sd.SpatialData, *, zoom: float | None, drop: int = 0) -> np.ndarray:
    """Tiles of another tool at the places of the patches, shuffled; in coordinates ``zoom`` times ours (None: bare)."""
    patches = patched["patches"]
    order = np.random.default_rng(0).permutation(len(patches))[drop:]
    bounds = patches.geometry.bounds.to_numpy()[order] * (zoom or 1)
    names = [f"tile{k}" for k in range(len(order))]
    frame = gpd.GeoDataFrame({"geometry": [box(*b) for b in bounds]}, index=names)
    known = get_transformation(patches, get_all=True)
    moved = (
        {}
        if zoom is None
        else {
            "transformations": {
                "global": sd.transformations.Sequence([Scale([1 / zoom] * 2, ("x", "y")), known["global"]])
            }
        }
    )
    patched["tiles"] = ShapesModel.parse(frame, **moved)
    obs = pd.DataFrame({"region": pd.Categorical(["tiles"] * len(order)), "tile_id": names}, index=names)
    table = ad.AnnData(sparse.csr_matrix(patches.index.to_numpy()[order][:, None].astype(np.float32)), obs=obs)
    shuffled = table[np.random.default_rng(1).permutation(len(order))].copy()
    patched["uni"] = TableModel.parse(shuffled, region="tiles", region_key="region", instance_key="tile_id")
    return np.sort(order)


@pytest.mark.parametrize("zoom", [1.0, 0.25, None])
def test_tiles_of_another_tool_are_found_by_their_place(patched: sd.SpatialData, zoom: float | None) -> None:
    there = tiles_table(patched, zoom=zoom, drop=3)
    found = Slide(patched).patches().matrix("uni", name="backbone")
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(found.values[:, 0])), there)
    np.testing.assert_array_equal(found.values[there, 0], patched["patches"].index.to_numpy()[there])


def test_tiles_elsewhere_are_not_taken_for_neighbours(patched: sd.SpatialData) -> None:
    tiles_table(patched, zoom=1.0)
    tiles = patched["tiles"]
    tiles["geometry"] = tiles.geometry.translate(3.0, 0.0)
    with pytest.raises(InputError, match="no row of table 'uni' belongs to one of the patches 'patches'"):
        Slide(patched).patches().matrix("uni", name="backbone")


def test_entries_of_obsm_carry_their_names(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    table.obsm["pair"] = np.arange(2.0 * table.n_obs).reshape(-1, 2)
    found = Slide(patched).patches().matrix("signatures/pair", name="x")
    assert found.names == ["pair_0", "pair_1"]
    np.testing.assert_array_equal(found.values, table.obsm["pair"])
    assert found.sem is None


def test_rows_that_name_no_patch_are_refused(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    patched["bare"] = ad.AnnData(table.X)
    with pytest.raises(InputError, match=r"their order is not trusted. Add `obs\['patch_id'\]`"):
        Slide(patched).patches().matrix("bare", name="x")
    patched["plain"] = ad.AnnData(table.X, obs=pd.DataFrame({"patch_id": table.obs["patch_id"].to_numpy()}))
    np.testing.assert_array_equal(Slide(patched).patches().matrix("plain", name="x").values, table.X)
    patched["plain"].obs["patch_id"] = 1
    with pytest.raises(InputError, match="table 'plain' has several rows for patches 1; wanted one each"):
        Slide(patched).patches().matrix("plain", name="x")
    tiles_table(patched, zoom=1.0)
    del patched.shapes["tiles"]
    with pytest.raises(KeyMissingError, match=r"`region='tiles'` is not in the shapes .* which table 'uni' annotates"):
        Slide(patched).patches().matrix("uni", name="x")
