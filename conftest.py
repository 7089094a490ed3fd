"""What holds for the tests and for the examples in docstrings alike."""

import pytest

import spatialsig as sp


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No progress bars: they would be taken for the output of an example."""
    monkeypatch.setattr(sp.settings, "progress", False)
