"""Files to write: every function that writes one refuses a directory, another ending, and a place within a Zarr store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    study = sp.datasets.toy_study(predicted=True)
    sp.tl.predict_cells(study, sp.datasets.toy_model(study), method="patch")
    return study


def report(slide: sd.SpatialData, path: Path) -> None:
    from spatialsig.report import write_report

    nothing = pd.DataFrame()
    write_report(path, cohort=slide, evaluation=nothing, histories={}, warnings=[], coverage=None, parameters={})


WRITERS: dict[str, tuple[str, Callable[[Any, Path], object]]] = {
    "export_geojson": (".geojson", sp.io.export_geojson),
    "export_heatmap": (".png", lambda s, p: sp.io.export_heatmap(s, p, "Immune_T")),
    "export_explorer_groups": (".csv", lambda s, p: sp.io.export_explorer_groups(s, p, "Immune_T")),
    "atlas": (".html", sp.pl.atlas),
    "report": (".html", report),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_place_for_the_file_is_refused_and_stays(study: sd.SpatialData, tmp_path: Path, writer: str) -> None:
    ending, write = WRITERS[writer]
    store = tmp_path / "s.zarr"
    (store / "tables").mkdir(parents=True)
    (store / "zarr.json").write_text("{}")
    mine = tmp_path / "mine.docx"
    mine.write_text("words")
    for place, said in (
        (store / "zarr.json", "ends with '.json'|lies in the Zarr store"),
        (store / f"a{ending}", "lies in the Zarr store"),
        (store / "tables" / f"a{ending}", "lies in the Zarr store"),
        (mine, r"ends with '.docx'; wanted \*"),
        (tmp_path, "is a directory; wanted the file to write"),
    ):
        with pytest.raises(InputError, match=said):
            write(study, place)
    assert (store / "zarr.json").read_text() == "{}"
    assert mine.read_text() == "words"
    assert {path.name for path in tmp_path.rglob("*")} == {"s.zarr", "zarr.json", "tables", "mine.docx"}


@pytest.mark.parametrize("signature", ["Immune_T", None])
def test_groups_need_scores_that_differ(study: sd.SpatialData, tmp_path: Path, signature: str | None) -> None:
    slide = sd.deepcopy(study)
    slide["cells_pred"].X[:] = 0.5
    with pytest.raises(InputError, match="are equal in all of"):
        sp.io.export_explorer_groups(slide, tmp_path / "a.csv", signature)


def test_a_misspelt_table_is_not_left_out_of_the_atlas(study: sd.SpatialData, tmp_path: Path) -> None:
    for name in ("signatures_key", "predictions_key"):
        with pytest.raises(sp.errors.KeyMissingError, match=f"`{name}='typo'` is a table of none of these slides"):
            sp.pl.atlas(study, tmp_path / "a.html", **{name: "typo"})
