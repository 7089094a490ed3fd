"""Our store in other people's tools, as they come."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import spatialdata as sd
import spatialdata_plot  # noqa: F401  adds .pl to SpatialData

import spatialsig as sp

mpl.use("Agg")


def test_spatialdata_plot_colours_patches_by_a_signature(patched: sd.SpatialData, tmp_path: Path) -> None:
    sp.pp.make_patches(patched, patch_px=56, um_per_px=1.0)
    sp.pp.assign_cells(patched)
    sp.tl.aggregate_patches(patched, min_cells=1, use_rep=None)
    sp.io.write(patched, tmp_path / "s.zarr")
    sdata = sd.read_zarr(tmp_path / "s.zarr")
    _, axes = plt.subplots()
    shapes = sdata.pl.render_shapes("patches", color="Fibroblast", table_name="signatures", cmap="viridis")
    shapes.pl.show(ax=axes, coordinate_systems="global")
    (drawn,) = [c for c in axes.collections if len(c.get_facecolors()) > 1]
    colours = mpl.colors.to_rgba_array(drawn.get_facecolors())
    scores = sdata["signatures"].obs_vector("Fibroblast")
    assert len(colours) == len(scores)
    scaled = (scores - np.nanmin(scores)) / np.ptp(scores[np.isfinite(scores)])
    expected = mpl.colormaps["viridis"](scaled)
    seen = np.isfinite(scores)
    np.testing.assert_allclose(colours[seen, :3], expected[seen, :3], atol=0.02)
    plt.close("all")


def test_functions_take_what_the_unmodified_reader_reads(tmp_path: Path) -> None:
    import spatialdata_io

    manifest = sp.datasets.synthetic_xenium(tmp_path, n_slides=1, size_um=300.0)
    bundle = manifest["bundle"][0]
    theirs = spatialdata_io.xenium(bundle, cells_as_circles=True)
    ours = sp.io.read_xenium(bundle, sample="S1", patient="P1")
    for sdata in (theirs, ours):
        sp.pp.filter_cells(sdata)
        sp.pp.make_patches(sdata, patch_px=56, um_per_px=1.0)
        sp.pp.assign_cells(sdata)
        sp.tl.score_cells(sdata, "seed", test_fold=None)
        sp.tl.aggregate_patches(sdata, min_cells=5, use_rep=None)
    np.testing.assert_allclose(theirs["signatures"].X, ours["signatures"].X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(theirs["signatures"].obsm["spatial"], ours["signatures"].obsm["spatial"])
