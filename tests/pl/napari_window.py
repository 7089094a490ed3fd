"""Open a slide in a real napari window and save what the screen shows: run by ``test_napari.py`` in its own process."""

import importlib.util
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from qtpy.QtWidgets import QApplication
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, Sequence, get_transformation

import spatialsig as sp
from spatialsig import _keys
from spatialsig.pl import _napari


def drawn_slides():
    spec = importlib.util.spec_from_file_location("drawn_slides", Path(__file__).with_name("slides.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_tissue(sdata) -> None:
    to_global = get_transformation(sdata[_keys.IMAGE], get_all=True)
    frame = GeoDataFrame(geometry=[shapely.box(16, 16, 704, 464)])
    sdata["tissue"] = ShapesModel.parse(frame, transformations=to_global)


def finer_values():
    """A map of 12 x 18 bins of 40 px, NaN in its first column, and cells in the middle of every other bin with other values."""
    rows, columns = np.mgrid[:12, :18]
    map_ = np.where(columns > 0, np.sin(rows + 2.0 * columns), np.nan).astype(np.float32)
    at = np.stack([columns[::2, 1::2].ravel(), rows[::2, 1::2].ravel()], axis=1)
    return map_, at, np.cos(3.0 * at[:, 0] + at[:, 1]).astype(np.float32)


def add_finer(sdata) -> None:
    """A map of the scores and predicted cells, as ``tl.signature_map`` and ``tl.predict_cells`` leave them."""
    map_, at, values = finer_values()
    way = get_transformation(sdata[_keys.IMAGE])
    sdata["signature_map"] = Image2DModel.parse(
        map_[None], dims=("c", "y", "x"), c_coords=["Immune_T"], scale_factors=[2],
        transformations={_keys.GLOBAL: Sequence([Scale([40, 40], ("x", "y")), way])},
    )  # fmt: skip
    legend = {"Immune_T": {"low": -1.0, "high": 1.0}}
    sdata.attrs["spatialsig"]["signature_map"] = {"signature_map": {"legend": legend}}
    px = np.c_[at * 40 + 20, np.ones(len(at))] @ way.to_affine_matrix(("x", "y"), ("x", "y")).T
    table = ad.AnnData(values[:, None], var=pd.DataFrame(index=["Immune_T"]))
    table.obsm["spatial"] = px[:, :2] * sdata.attrs["spatialsig"]["um_per_global_px"]
    table.uns["spatialsig"] = {"predict_cells": {}}
    sdata["cells_pred"] = TableModel.parse(table)


def settle(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.instance().processEvents()
        time.sleep(0.02)


def show(kind: str, out: Path) -> None:
    sdata = drawn_slides().make_slide()
    add_tissue(sdata)
    if kind == "raster":
        _napari.MAX_SQUARES = 10
    if kind == "finer":
        add_finer(sdata)
    signature = None if kind == "outlines" else "Immune_T"
    viewer = sp.pl.napari(sdata, signature, alpha=1.0, run=False)
    if kind == "finer":
        assert not viewer.layers["signature_map: Immune_T"].visible  # dots show the same more finely
        viewer.layers["signature_map: Immune_T"].visible = True
    settle(4)
    screen = viewer.screenshot(canvas_only=True, flash=False)
    np.savez(
        out / f"{kind}.npz",
        screen=screen,
        zoom=viewer.camera.zoom,
        centre=np.asarray(viewer.camera.center)[-2:],
        layers=np.array([layer.name for layer in viewer.layers]),
        kinds=np.array([type(layer).__name__ for layer in viewer.layers]),
    )
    viewer.close()


def main(out: str, *kinds: str) -> None:
    sp.settings.progress = False
    for kind in kinds:
        show(kind, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
