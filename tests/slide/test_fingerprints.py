"""Fingerprints: one and the same for the same content in any order and form, others for others, with any value."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from scipy import sparse
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig._hashing import json_hash
from spatialsig.slide import fingerprints
from spatialsig.slide.coordinates import full_resolution
from spatialsig.slide.fingerprints import Kept, Numbers, of_column, of_pixels
from spatialsig.slide.slides import open_slides
from spatialsig.store import snapshot
from spatialsig.store.tables import parts_of

Change = Callable[[ad.AnnData], None]

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.5, (90, 12)).astype(np.float32)
WITH = {"numbers": 1.0, "NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "minus zero": -0.0}


def numbers(values: np.ndarray | sparse.csr_matrix, order: np.ndarray) -> Numbers:
    table = ad.AnnData(values[order])
    table.obs_names = [f"cell {i}" for i in order]
    found = Numbers.of(table, "X", Kept())
    assert found is not None
    return found


def holding(value: float) -> np.ndarray:
    values = COUNTS.copy()
    values[::7] = value
    return values


@pytest.mark.parametrize("value", WITH.values(), ids=WITH)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_any_value_is_recorded_and_known_again(value: float, form: type) -> None:
    """Also by other software's JSON: rows without a label are NaN."""
    before = numbers(holding(value), np.arange(90))
    spots = json.loads(json.dumps(before.spots, allow_nan=False))
    assert numbers(form(holding(value)), RNG.permutation(90)).is_selection(spots)
    assert numbers(form(holding(value)), np.arange(0, 90, 2)).is_selection(spots)
    other = holding(value)
    other[1:] += 1
    assert not numbers(form(other), RNG.permutation(90)).is_selection(spots)
    assert not numbers(form(other), np.arange(0, 90, 2)).is_selection(spots)


def test_one_value_that_no_spot_holds_shows_in_the_sum() -> None:
    spots = numbers(holding(np.nan), np.arange(90)).spots
    changed = holding(np.nan)
    places = set(zip(spots["row"], spots["column"], strict=True))
    free = next(i for i in range(90) if (f"cell {i}", "5") not in places and np.isfinite(changed[i, 5]))
    changed[free, 5] += 1
    assert not numbers(changed, RNG.permutation(90)).is_selection(spots)


def test_a_table_without_cells_has_no_spots() -> None:
    assert numbers(COUNTS, np.arange(0)).spots == {}


@pytest.mark.parametrize("values", [["a", "b", None], [1.5, None, 2], [True, False, True]])
def test_a_column_has_one_fingerprint_whatever_kind_of_text_pandas_uses(values: list[object]) -> None:
    prints = set()
    for infer in (False, True):
        with pd.option_context("future.infer_string", infer):
            obs = pd.DataFrame({"x": values}, index=pd.Index(["c1", "c2", "c3"]))
            obs["kind"] = obs["x"].astype("category")
            table = ad.AnnData(np.zeros((3, 1)), obs=obs)
            prints.add((of_column(table.obs, "x", Kept()), of_column(table.obs, "kind", Kept())))
    assert len(prints) == 1


def names_sum(names: list[object]) -> list[int]:
    return [len(names), zlib.crc32("\n".join(map(str, names)).encode())]


def bytes_sum(values: np.ndarray) -> list[object]:
    return [values.shape, values.dtype.str, zlib.crc32(values.tobytes())]


@pytest.mark.parametrize("index", [[f"cell {i}" for i in range(90)], list(range(90)), [*range(89), "Zelle ä"]])
def test_fingerprints_stay_those_of_stores_that_exist(index: list[object]) -> None:
    """Written by hand with the standard library: another hash would make every older result look stale."""
    table = ad.AnnData(COUNTS, obs=pd.DataFrame(index=pd.Index(index, dtype=object if "Zelle ä" in index else None)))
    names = [names_sum(index), names_sum(list(table.var_names))]
    found = Numbers.of(table, "X", Kept())
    assert found.fingerprint == json_hash([*names, bytes_sum(COUNTS)])
    table.X = held = sparse.csr_matrix(COUNTS)
    parts = [held.shape, *(bytes_sum(part) for part in (held.data, held.indices, held.indptr))]
    assert Numbers.of(table, "X", Kept()).fingerprint == json_hash([*names, parts])


def test_what_was_found_of_an_object_goes_with_it() -> None:
    kept, seen = Kept(), []

    def count(values: np.ndarray) -> int:
        seen.append(values.sum())
        return len(seen)

    first = np.arange(3)
    assert [kept.of(first, count), kept.of(first, count), kept.of(first + 1, count), kept.of(first + 2, count)] == [
        1,
        1,
        2,
        3,
    ]
    assert [kept.of(first, count), seen] == [1, [3, 6, 9]]
    del first
    assert kept._found == {}


def one_value(table: ad.AnnData) -> None:
    table.X = table.X.copy()
    table.X.data[len(table.X.data) // 3] += 1


def one_name(table: ad.AnnData) -> None:
    table.obs_names = ["another", *table.obs_names[1:]]


def two_names(table: ad.AnnData) -> None:
    names = list(table.obs_names)
    table.obs_names = [names[1], names[0], *names[2:]]


def in_place(table: ad.AnnData) -> None:
    table.X.data[len(table.X.data) // 3] += 1


def looked_at(data: sd.SpatialData | Path) -> tuple[str | None, str]:
    """Fingerprint of the counts, and whether the scores made of them are fresh."""
    (slide,) = open_slides(data)
    rows = {row["part"]: row["state"] for row in slide.lineage.rows()}
    return slide.lineage.fingerprint("table/X"), rows["table/obsm/signatures"]


CHANGES = [(where, change) for where in ("memory", "store") for change in (one_value, in_place, one_name, two_names)]
USUAL = {("memory", one_value), ("memory", two_names), ("memory", one_name), ("store", in_place)}


@pytest.mark.parametrize(
    ("where", "change"), [pytest.param(*c, marks=() if c in USUAL else pytest.mark.slow) for c in CHANGES]
)
def test_one_value_one_name_or_their_order_is_seen(patched, tmp_path: Path, where: str, change: Change) -> None:
    """Also where the same process has just looked at the slide, so that nothing old is believed."""
    path = tmp_path / "a.zarr"
    data = patched if where == "memory" else path
    if data is path:
        sp.io.write(patched, path)
    before, state = looked_at(data)
    assert (before, state) == looked_at(data)
    assert state == "fresh"
    change(patched["table"])
    if data is path:
        sp.io.write(patched, path, overwrite=True)
    now, state = looked_at(data)
    assert now != before
    assert state == ("fresh" if change is one_name else "stale")  # scores stay right when a cell is called another name


@pytest.mark.slow
def test_no_step_writes_into_the_tables_of_a_store(patched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found of their arrays is kept, so that it would be wrong afterwards."""

    def frozen(path: Path) -> ad.AnnData:
        table = read(path)
        parts = [table.X, *table.obsm.values(), *parts_of(table, "layers").values()]
        for part in (getattr(part, "data", part) if sparse.issparse(part) else part for part in parts):
            if isinstance(part, np.ndarray):
                part.setflags(write=False)
        return table

    read = snapshot._read
    monkeypatch.setattr(snapshot, "_read", frozen)
    path = tmp_path / "a.zarr"
    sp.io.write(patched, path)
    sp.pp.assign_cells(path)
    sp.tl.score_cells(path, "seed")
    sp.pp.normalize(path)
    sp.pp.highly_variable_genes(path, n_top_genes=50)
    model = sp.tl.train_autoencoder(path, signatures="seed", n_latent=4, hidden=(16,), max_epochs=1)
    sp.tl.embed_cells(path, model)
    sp.tl.aggregate_patches(path, min_cells=5)
    sp.pp.filter_cells(path, min_counts=1)


COLUMNS = {
    "text": ["a", "b", None, "a"], "numbers": [3, 1, 1, -2], "floats": [0.0, -0.0, np.nan, 1e-300], "bool": [True, False, True, True],
    "category": pd.Categorical(["x", "y", None, "x"]), "dates": pd.to_datetime(["2020-01-01", "2021-02-03", None, "2020-01-01"]),
    "nullable": pd.array([1, None, 3, 1], dtype="Int64"), "mixed": ["a", 1, 2.5, None],
}  # fmt: skip


@pytest.mark.parametrize("names", [["r1", "r2", "r3", "r4"], [4, 3, 2, 1]])
@pytest.mark.parametrize("key", COLUMNS)
def test_a_column_has_the_sum_of_the_hashes_of_pandas(key: str, names: list[Any]) -> None:
    frame = pd.DataFrame({key: COLUMNS[key]}, index=pd.Index(names))
    column = frame[key]
    text = column.astype(str).astype(object).where(column.notna(), "nan").set_axis(frame.index.astype(object))
    total = int(pd.util.hash_pandas_object(text, index=True).to_numpy().sum(dtype=np.uint64))
    assert of_column(frame, key, Kept()) == json_hash([4, total]) == of_column(frame[::-1], key, Kept())


@pytest.mark.parametrize("edge", [512, 1536], ids=["whole", "three blocks"])
def test_pixels_are_read_once_as_long_as_their_files_stay(
    toy: sd.SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge: int
) -> None:
    """Also where another program writes into a chunk; and what is made of an image in memory is not taken for it."""
    pixels = np.random.default_rng(1).integers(0, 255, (3, edge, edge)).astype(np.uint8)
    place = get_transformation(toy["he_image"])
    del toy.images["he_image"]
    toy.images["he_image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations={"global": place}
    )
    sp.io.write(toy, tmp_path / "slide.zarr")
    store, reads = tmp_path / "slide.zarr", []
    compute = fingerprints.compute

    def counted(*blocks: Any, **options: Any) -> Any:
        reads.append(len(blocks))
        return compute(*blocks, **options)

    monkeypatch.setattr(fingerprints, "compute", counted)

    def look() -> str | None:
        return of_pixels(next(iter(open_slides(store))).sdata.images["he_image"])

    first = look()
    assert look() == first == of_pixels(Image2DModel.parse(pixels, dims=("c", "y", "x")))
    assert len(reads) == 2  # once from the files, once in memory
    image = next(iter(open_slides(store))).sdata.images["he_image"]
    turned = full_resolution(image)[:, ::-1]
    assert of_pixels(turned) not in (None, first)
    array = zarr.open_array(store / "images" / "he_image" / "s0", mode="r+")
    at = slice(256, 512) if edge == 512 else slice(768, 1024)  # of the blocks that are looked at
    array[:, at, at] = pixels[:, at, at] = 255 - pixels[:, at, at]
    changed = look()
    assert changed == of_pixels(Image2DModel.parse(pixels, dims=("c", "y", "x"))) != first
