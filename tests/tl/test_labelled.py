"""Images, labels, embedding and weight of a training patch belong to the same patch."""

import numpy as np
import spatialdata as sd

import spatialsig as sp
from spatialsig.data.slides import Slide
from spatialsig.tl._vit import _labelled


def test_rows_stay_together_when_patches_are_left_out(patched: sd.SpatialData) -> None:
    sp.tl.aggregate_patches(patched, min_cells=int(patched["signatures"].obs["n_cells"].median()), use_rep=None)
    table, shapes = patched["signatures"], patched["patches"]
    table.obsm["X_id"] = np.c_[table.obs["patch_id"], -table.obs["patch_id"]].astype(np.float32)
    rows = (table.obs["patch_id"] % 3 != 0).to_numpy()
    (found,) = _labelled(Slide(patched), rows, "patches", "signatures", "X_id")
    expected = np.flatnonzero(rows & np.isfinite(table.X).all(axis=1))
    assert 0 < len(expected) < rows.sum()
    np.testing.assert_array_equal(found.embedding[:, 0], expected)
    np.testing.assert_array_equal(found.targets, table.X[expected])
    np.testing.assert_array_equal(found.source.origins, shapes[["y0", "x0"]].to_numpy()[expected])
    n_cells = table.obs["n_cells"].to_numpy()[expected]
    np.testing.assert_allclose(found.weights, n_cells / n_cells.mean(), rtol=1e-6)


def test_nothing_labelled_is_nothing(patched: sd.SpatialData) -> None:
    rows = np.zeros(patched["signatures"].n_obs, bool)
    assert _labelled(Slide(patched), rows, "patches", "signatures", None) == []
