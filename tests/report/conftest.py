"""A cohort of three slides, two of them held out, and what a run leaves beside it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib
import pandas as pd
import pytest

from spatialsig.report import write_report

matplotlib.use("Agg")


@pytest.fixture(scope="session")
def drawn() -> ModuleType:
    """The module that makes slides, evaluations and histories."""
    path = Path(__file__).parents[1] / "pl" / "slides.py"
    spec = importlib.util.spec_from_file_location("drawn_slides", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cohort(drawn: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Slides A (training), B and C (held out)."""
    slides = {name: {"size": (256, 320), "fold": fold} for name, fold in (("A", 0), ("B", 1), ("C", 1))}
    return drawn.make_stores(tmp_path_factory.mktemp("stores"), slides)


@pytest.fixture(scope="session")
def given(drawn: ModuleType, cohort) -> dict:
    """Every argument of ``write_report`` but the path."""
    coverage = pd.DataFrame(
        {
            "n_genes_panel": [12, 9],
            "n_genes_measured": [9, 2],
            "missing": ["CD8A, GZMB, PRF1", "FAP, DCN"],
            "reason": ["", "2 genes measured, 3 wanted"],
        },
        index=pd.Index(["Immune_T", "Fibroblast"], name="signature"),
    )
    return {
        "cohort": cohort,
        "evaluation": drawn.make_evaluation(("B", "C")),
        "histories": {"autoencoder": drawn.make_history(), "image model": drawn.make_history(pearson=True)},
        "warnings": ["Judged on 2 held-out patients.", "Coordinates alone reach r = 0.061."],
        "coverage": coverage,
        "parameters": {"synthetic": True, "seed": 17, "split": {"by": "patient", "test_fold": 1}},
    }


@pytest.fixture(scope="session")
def report_path(given: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report that many tests read."""
    return write_report(tmp_path_factory.mktemp("report") / "deep" / "report.html", **given)


@pytest.fixture
def inputs(given: dict, drawn: ModuleType) -> dict:
    """A smaller report, to change: one held-out slide, no curves."""
    return given | {"evaluation": drawn.make_evaluation(("B",)), "histories": {}}
