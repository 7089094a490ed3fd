"""Slides to draw, built once per session; no test changes them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
import spatialdata as sd

import spatialsig as sp

matplotlib.use("Agg")


def load_slides() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawn_slides", Path(__file__).with_name("slides.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def drawn() -> ModuleType:
    """The module that makes slides, evaluations and histories."""
    return load_slides()


@pytest.fixture(scope="session")
def slide(drawn: ModuleType) -> sd.SpatialData:
    """One slide; its patches touch."""
    sp.settings.progress = False
    return drawn.make_slide()


@pytest.fixture(scope="session")
def cohort(drawn: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Two slides on disk, in folds 0 and 1."""
    slides = {"S1": {"size": (256, 320), "fold": 0}, "S2": {"size": (256, 384), "fold": 1}}
    return drawn.make_stores(tmp_path_factory.mktemp("stores"), slides)
