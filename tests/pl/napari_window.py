"""Open a slide in a real napari window and save what the screen shows: run by ``test_napari.py`` in its own process."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import shapely
from geopandas import GeoDataFrame
from qtpy.QtWidgets import QApplication
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

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
    signature = None if kind == "outlines" else "Immune_T"
    viewer = sp.pl.napari(sdata, signature, alpha=1.0, run=False)
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
