"""Records that an editor or other software changed are refused by name, wherever in them the change is."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigError
from spatialsig.slide.slides import open_slides

NS = "spatialsig"
WRONG = [None, 5, -1.5, "x", [], {}, [1, 2], {"a": 1}]
FUNCTIONS: dict[str, Callable[[sd.SpatialData], Any]] = {
    "assign_cells": sp.pp.assign_cells,
    "qc_patches": sp.pp.qc_patches,
    "find_tissue": sp.pp.find_tissue,
    "normalize": sp.pp.normalize,
    "noise_ceiling": sp.tl.noise_ceiling,
    "aggregate_patches": lambda sdata: sp.tl.aggregate_patches(sdata, min_cells=5),
    "score_cells": lambda sdata: sp.tl.score_cells(sdata, "seed"),
}


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    sdata = sp.datasets.toy_study()
    sp.pp.normalize_stain(sdata)
    sp.pp.qc_patches(sdata)
    sp.pp.find_tissue(sdata)
    return sdata


def places(record: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(record, dict):
        for key, value in record.items():
            yield from places(value, (*path, key))


def damaged(study: sd.SpatialData, where: str, path: tuple[str, ...], wrong: Any) -> sd.SpatialData:
    elements = {name: copy.deepcopy(e) if kind != "images" else e for kind, name, e in study.gen_elements()}
    made = sd.SpatialData.init_from_elements(elements, attrs=copy.deepcopy(dict(study.attrs)))
    whole = made.attrs if where == "attrs" else made.tables[where].uns
    whole[NS] = with_wrong(whole[NS], path, wrong)
    return made


def with_wrong(record: Any, path: tuple[str, ...], wrong: Any) -> Any:
    if not path:
        return copy.deepcopy(wrong)
    return record | {path[0]: with_wrong(record.get(path[0], {}), path[1:], wrong)}


def all_places(study: sd.SpatialData) -> list[tuple[str, tuple[str, ...]]]:
    of_tables = [(key, path) for key, table in study.tables.items() for path in places(table.uns[NS])]
    return [("attrs", path) for path in places(study.attrs[NS])] + of_tables


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_slide_opens_or_its_records_are_refused(study: sd.SpatialData, wrong: Any) -> None:
    refused = 0
    for where, path in all_places(study):
        whole = study.attrs if where == "attrs" else study.tables[where].uns
        kept = whole[NS]
        whole[NS] = with_wrong(kept, path, wrong)
        try:
            for slide in open_slides(study):
                assert slide.lineage.entries is not None
        except SpatialsigError:
            refused += 1
        finally:
            whole[NS] = kept
    assert refused > 20


@pytest.mark.parametrize("seed", range(4))
def test_no_function_falls_over_a_record(study: sd.SpatialData, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tried = all_places(study)
    for name, function in FUNCTIONS.items():
        for _ in range(2):
            where, path = tried[rng.integers(len(tried))]
            wrong = WRONG[rng.integers(len(WRONG))]
            try:
                function(damaged(study, where, path, wrong))
            except SpatialsigError:
                pass
            except Exception as error:
                error.add_note(f"{name}: {where} {path} = {wrong!r}")
                raise


@pytest.mark.parametrize(
    ("where", "path", "wrong", "said"),
    [
        ("attrs", ("split", "n_folds"), "x", r"\['split'\]\['n_folds'\] is 'x', but must be a valid integer"),
        (
            "attrs",
            ("split",),
            {"by": "block"},
            r"\['split'\] is \{'by': 'block'\}, but must be a record with 'n_folds'",
        ),
        (
            "attrs",
            ("patches", "patches"),
            {},
            r"\['patches'\]\['patches'\] is \{\}, but must be a record with 'image_key'",
        ),
        ("attrs", ("patches", "patches", "stain"), [1], r"\['stain'\] is \[1\], but must be a valid dictionary"),
        ("attrs", ("lineage", "patches"), 5, r"\['lineage'\]\['patches'\] is 5, but must be a valid dictionary"),
        (
            "signatures",
            ("score_cells", "std"),
            -1.5,
            r"a record whose 'std' are numbers of the shape \(\d+,\), for \d+ genes",
        ),
        ("signatures", ("score_cells", "method"), "x", r"a record with a 'method' of \['aucell', "),
        ("signatures", ("aggregate_patches", "trim"), 7, r"\['trim'\] is 7, but must be less than or equal to 1"),
    ],
)
def test_the_place_and_what_is_wanted_are_named(
    study: sd.SpatialData, where: str, path: tuple[str, ...], wrong: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        sp.io.status(damaged(study, where, path, wrong))


def test_what_a_user_keeps_there_is_left_alone(study: sd.SpatialData, tmp_path: Path) -> None:
    own = {"site": {"name": ["Uppsala", 3]}, "tissue": "breast", "source": "biobank", "grade": 2}
    sdata = study
    for name, value in own.items():
        sdata = damaged(sdata, "attrs", (name,), value)
    sdata = damaged(sdata, "table", ("batch",), 7)
    sp.io.write(sdata, path := tmp_path / "a.zarr")
    assert set(sp.io.status(path)["state"]) == {"fresh"}
    sp.pp.find_tissue(path)
    sp.pp.make_patches(path, patch_px=28, um_per_px=2.0)
    sp.pp.qc_alignment(path)
    back = sp.io.read(path)
    assert {name: back.attrs[NS][name] for name in own} == own
    assert back["table"].uns[NS]["batch"] == 7
