"""A real napari window shows every colour where its patch lies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from matplotlib import colormaps
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl._napari import _check_display
from spatialsig.pl.drawing.slide_panels import robust_limits

WINDOW = Path(__file__).with_name("napari_window.py")
Shot = dict[str, np.ndarray]
SLOW = {kind: pytest.param(kind, marks=pytest.mark.slow) for kind in ("outlines", "raster", "finer")}


@pytest.fixture
def shot(kind: str, tmp_path: Path) -> Shot:
    """Screenshot of a window, made in another process: a driver that fails must not end the tests."""
    screen = [] if os.environ.get("DISPLAY") else ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24"]
    if screen and not shutil.which("xvfb-run"):
        pytest.skip("no display and no xvfb-run")
    pytest.importorskip("napari_spatialdata", reason="napari is not installed")
    pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding", exc_type=ImportError)
    command = [*screen, sys.executable, "-W", "ignore", str(WINDOW), str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(tmp_path / f"{kind}.npz"))


def on_screen(shot: dict[str, np.ndarray], sdata: sd.SpatialData, xy_px: np.ndarray) -> np.ndarray:
    """Colours ``(n, 3)`` of the screen where image pixels ``(x, y)`` must be shown."""
    affine = get_transformation(sdata[_keys.IMAGE]).to_affine_matrix(("x", "y"), ("x", "y"))
    world = xy_px @ affine[:2, :2].T + affine[:2, 2]
    height, width = shot["screen"].shape[:2]
    yx = (world[:, ::-1] - shot["centre"]) * shot["zoom"] + np.array([height, width]) / 2
    y, x = np.rint(yx).astype(int).T
    return shot["screen"][y, x, :3].astype(int)


@pytest.mark.parametrize("kind", ["squares", SLOW["raster"]])
def test_colours_are_where_their_patches_are(kind: str, shot: Shot, slide: sd.SpatialData) -> None:
    patches, table = slide.shapes[_keys.PATCHES], slide.tables[_keys.SIGNATURES]
    values = np.asarray(table[:, "Immune_T"].X, float)[:, 0]
    known = np.isfinite(values)
    centres = np.stack([patches.geometry.centroid.x, patches.geometry.centroid.y], axis=1)
    expected = np.rint(colormaps["viridis"](robust_limits([values])(values[known]))[:, :3] * 255)
    # a fifth of a patch off any centre the colour is the same; the next patch has another
    for shift in ([0, 0], [12, -12], [-12, 12]):
        seen = on_screen(shot, slide, centres[known] + shift)
        assert np.abs(seen - expected).max() <= 3
    # patches without a value show the tissue: pink and purple, more red than green
    bare = on_screen(shot, slide, centres[~known])
    assert (bare[:, 0] > bare[:, 1]).all()
    assert (bare[:, 2] > bare[:, 1] + 20).all()
    first = "patches" if kind == "squares" else "patches: Immune_T"
    assert shot["layers"].tolist() == ["he_image", "tissue", first]


@pytest.mark.parametrize("kind", [SLOW["outlines"]])
def test_outlines_lie_on_the_edges_of_the_patches(shot: Shot, slide: sd.SpatialData) -> None:
    patches = slide.shapes[_keys.PATCHES]
    inner = patches[(patches[_keys.X0] > 100) & (patches[_keys.Y0] > 100)]
    edges = np.stack([inner[_keys.X0], inner[_keys.Y0] + 20], axis=1)
    blue = on_screen(shot, slide, edges)
    assert (np.abs(blue - [0, 114, 178]).max(axis=1) < 60).mean() > 0.9


@pytest.mark.parametrize("kind", [SLOW["finer"]])
def test_a_map_and_cells_are_shown_in_place_of_patches(shot: Shot, slide: sd.SpatialData) -> None:
    assert shot["layers"].tolist()[-2:] == ["signature_map: Immune_T", "cells_pred: Immune_T"]
    rows, columns = np.mgrid[:12, :18]
    cells = (rows % 2 == 0) & (columns % 2 == 1)
    middle = np.stack([columns, rows], axis=-1) * 40.0 + 20
    shades = colormaps["viridis"]
    values = np.cos(3.0 * columns[cells] + rows[cells])
    expected = np.rint(shades(robust_limits([values])(values))[:, :3] * 255)
    assert np.abs(on_screen(shot, slide, middle[cells]) - expected).max() <= 3
    below = (rows > 0) & (columns > 0) & ~cells  # the map, at its own alpha of 1, where no dot lies
    expected = np.rint(shades((np.sin(rows[below] + 2.0 * columns[below]) + 1) / 2)[:, :3] * 255)
    assert np.abs(on_screen(shot, slide, middle[below] + 8) - expected).max() <= 4
    bare = on_screen(shot, slide, middle[1:, 0])  # no value: the tissue
    assert (bare[:, 0] > bare[:, 1]).all()


def test_several_slides_are_refused(cohort: object) -> None:
    with pytest.raises(InputError, match=r"napari shows one slide; got 2"):
        sp.pl.napari(cohort)


def test_an_unknown_signature_is_refused_before_a_window_opens(slide: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`signature='Nope'`.*Immune_T"):
        sp.pl.napari(slide, "Nope")


def test_without_a_screen_it_is_refused_before_qt_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("spatialsig.pl._napari.sys.platform", "linux")
    with pytest.raises(InputError, match="there is no screen here"):
        _check_display()
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    _check_display()
