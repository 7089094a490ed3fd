"""Hypothesis profile and the slides that many tests share."""

import os

import hypothesis
import pytest
import spatialdata as sd

import spatialsig as sp

hypothesis.settings.register_profile("default", deadline=None, max_examples=60)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "progress", False)


@pytest.fixture(scope="session")
def _toy() -> sd.SpatialData:
    return sp.datasets.toy()


@pytest.fixture
def toy(_toy: sd.SpatialData) -> sd.SpatialData:
    """One small slide in memory, a fresh copy for every test."""
    return sd.deepcopy(_toy)


@pytest.fixture
def patched(toy: sd.SpatialData) -> sd.SpatialData:
    """The toy slide with overlapping patches, cells assigned, scored and averaged."""
    sp.pp.split(toy, by="block", block_um=150, buffer_um=40, n_folds=2)
    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0, stride_um=28.0)
    sp.pp.assign_cells(toy)
    sp.tl.score_cells(toy, "seed")
    sp.tl.aggregate_patches(toy, min_cells=5, use_rep=None)
    return toy
