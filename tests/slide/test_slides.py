"""What every function takes opened as slides; what is put into one is in its store, and its errors name it."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import geopandas as gpd
import numpy as np
import pytest
import spatialdata as sd
from shapely import box
from spatialdata.models import ShapesModel, TableModel

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, StoreError
from spatialsig.slide import slides
from spatialsig.slide.slides import Slide, on_slide, open_slides, recorded_slides, slide_count


class Two:
    """Anything with stores is taken, not a ``Cohort`` alone."""

    def __init__(self, stores: dict[str, Path]) -> None:
        self.stores = stores


def shapes(n: int) -> gpd.GeoDataFrame:
    return ShapesModel.parse(gpd.GeoDataFrame(geometry=box(np.arange(n), 0, np.arange(n) + 1, 1)))


@pytest.fixture
def cells() -> sd.SpatialData:
    return sd.SpatialData(tables={"table": TableModel.parse(ad.AnnData(np.ones((4, 2), np.float32)))})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sdata = sd.SpatialData(shapes={"spots": shapes(3)}, attrs={"spatialsig": {"patient": "P7"}})
    sp.io.write(sdata, tmp_path / "biopsy.zarr")
    return tmp_path / "biopsy.zarr"


def test_a_slide_in_memory_a_store_and_several_are_opened_alike(store: Path) -> None:
    in_memory = sd.SpatialData()
    (slide,) = open_slides(in_memory)
    assert slide.sdata is in_memory
    for data in (store, str(store)):
        assert [slide.path for slide in open_slides(data)] == [store]
    several = Two({"A": store, "B": store})
    assert [slide.path for slide in open_slides(several)] == [store, store]
    assert [slide_count(data) for data in (in_memory, str(store), several)] == [1, 1, 2]


def test_what_is_recorded_of_slides_is_read_without_their_elements(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [(slide.name, slide.patient, slide.attrs) for slide in open_slides(Two({"a": store, "b": store}))]
    monkeypatch.setattr(slides, "read_store", lambda *_, **__: pytest.fail("a store was read"))
    assert [(s.name, s.patient, s.attrs) for s in recorded_slides(Two({"a": store, "b": store}))] == opened
    assert [s.patient for s in recorded_slides(store)] == ["P7"]
    with pytest.raises(StoreError, match="does not exist"):
        list(recorded_slides(store.with_name("none.zarr")))


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store .*gone.zarr does not exist; make it with `sp.io.read_xenium"):
        next(open_slides(tmp_path / "gone.zarr"))
    with pytest.raises(InputError, match="wanted a SpatialData, the path of a store or a Cohort; got list"):
        next(open_slides([tmp_path]))


@pytest.mark.parametrize(
    ("attrs", "path", "name", "patient"),
    [
        ({"sample": "S1", "patient": "P1"}, None, "S1", "P1"),
        ({"sample": "S1"}, Path("x/biopsy.zarr"), "S1", "S1"),
        ({"sample": None, "patient": ""}, Path("x/biopsy.zarr"), "biopsy", "biopsy"),
        ({}, None, "sample", "sample"),
    ],
)
def test_a_slide_without_names_is_called_after_its_store(
    attrs: dict, path: Path | None, name: str, patient: str
) -> None:
    slide = Slide(sd.SpatialData(attrs={"spatialsig": attrs}), path)
    assert (slide.name, slide.patient) == (name, patient)


def test_what_is_put_into_a_slide_replaces_the_element_in_its_store(store: Path) -> None:
    (slide,) = open_slides(store)
    slide.put("spots", shapes(5))
    slide.put("more", shapes(2), made_by="pp.make_patches", sources=["spots"], attrs={"patches": {"patch_px": 8}})
    back = sd.read_zarr(store)
    assert [len(back[key]) for key in ("spots", "more")] == [5, 2]
    attrs = back.attrs["spatialsig"]
    assert set(attrs.pop("lineage")["more"]["from"]) == {"spots"}
    assert attrs == {"patient": "P7", "patches": {"more": {"patch_px": 8}}}


def test_parameters_of_a_step_are_written_and_those_of_others_left(cells: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.write(cells, tmp_path / "s.zarr")
    (slide,) = open_slides(tmp_path / "s.zarr")
    slide.params("table").update({"first": {"a": 1}, "second": {"b": 2}})
    slide.commit_table("table", steps=["first"])
    kept = sd.read_zarr(tmp_path / "s.zarr")["table"].uns["spatialsig"]
    assert kept["first"]["a"] == 1
    assert "second" not in kept


def test_what_is_missing_is_told_with_slide_and_fix(cells: sd.SpatialData) -> None:
    slide = Slide(cells)
    with pytest.raises(KeyMissingError, match=rf"`cells_key='x'` is not in the tables of slide '{slide.name}'; av"):
        slide.table("x", name="cells_key")
    with pytest.raises(KeyMissingError, match=rf"`use_rep='x'` is not in the obsm of slide '{slide.name}'.* Embed it."):
        slide.obsm("table", "x", name="use_rep", fix="Embed it.")
    with pytest.raises(KeyMissingError, match=rf"'{slide.name}': table 'table' has no result of `score`. Score it."):
        slide.step("table", "score", fix="Score it.")
    slide.params("table")["score"] = {"a": 1}
    slide.step("table", "score", fix="")["a"] = 2
    assert slide.params("table")["score"] == {"a": 1}  # a copy was given


@pytest.mark.parametrize(("text", "notes"), [("no room", ["This happened on slide 'S1'."]), ("S1 has no room", [])])
def test_an_error_names_its_slide_once(text: str, notes: list[str]) -> None:
    with pytest.raises(OSError, match=text) as caught, on_slide("S1"):
        raise OSError(text)
    assert getattr(caught.value, "__notes__", []) == notes
