"""A labelled slide with predictions and intervals, and its page."""

import json
import re
from pathlib import Path

import pytest
import spatialdata as sd

import spatialsig as sp


def content_of(page: Path) -> dict:
    """What the page holds."""
    (found,) = re.findall(
        r'<script type="application/json" id="content">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    return json.loads(found)


@pytest.fixture(scope="session")
def study() -> sd.SpatialData:
    """One slide; no test changes it."""
    sp.settings.progress = False
    slide = sp.datasets.toy_study(predicted=True)
    predicted = slide["signatures_pred"]
    predicted.layers["lower"], predicted.layers["upper"] = predicted.X - 0.5, predicted.X + 0.5 + abs(predicted.X)
    return slide


@pytest.fixture(scope="session")
def page(study: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its atlas."""
    return sp.pl.atlas(study, tmp_path_factory.mktemp("atlas") / "atlas.html")
