"""One name in two forms of Unicode is one name, at every door that reads names; look-alikes are refused or named."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._checks import check_key
from spatialsig._paths import local_path
from spatialsig._text import check_alike, trimmed
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.io._cohort import read_manifest
from spatialsig.signatures._names import describe_names
from spatialsig.slide.slides import open_slides

NAME = "Ren\u00e9"
# how other programs write it: all are this one name
FORMS = {
    "accent of its own": unicodedata.normalize("NFD", NAME),
    "blank that does not break": f"\u00a0{NAME}\u00a0",
    "blank of no width": f"{NAME}\u200b",
    "mark of direction": f"\u200e{NAME}\u200f",
    "wide blank": f"\u3000{NAME}",
}
WIDE = "\uff32en\u00e9"  # looks alike, and is refused beside the plain one


def slide(patient: str, sample: str = "S", seed: int = 0) -> sd.SpatialData:
    return sp.datasets.toy(size_um=120, patient=patient, sample=sample, seed=seed)


def spots(**columns: str) -> ad.AnnData:
    table = ad.AnnData(np.ones((4, 1), np.float32), var=pd.DataFrame(index=[columns.pop("gene", "A")]))
    table.obsm["spatial"] = np.array([[2.0, 2], [2, 9], [9, 2], [9, 9]])
    return (
        table
        if not columns
        else ad.AnnData(table.X, obs=pd.DataFrame(columns, index=table.obs_names), var=table.var, obsm=table.obsm)
    )


def of_csv(name: str, folder: Path) -> str:
    (folder / "m.csv").write_text(f"sample,bundle,patient\nS,b,{name}\n")
    return str(read_manifest(folder / "m.csv")["patient"][0])


def of_store(name: str, folder: Path) -> str:
    data = slide("P")
    data.attrs["spatialsig"]["patient"] = name  # as a store of an early version, or another program, holds it
    sp.io.write(data, folder / "S.zarr")
    assert [one.patient for one in open_slides(folder / "S.zarr")] == [NAME]
    (folder / "cohort.csv").write_text(f"sample,patient,path\nS,{NAME},S.zarr\n")
    return str(sp.Cohort(folder).obs["patient"]["S"])


def of_spots(name: str, _: Path) -> str:
    image = np.full((12, 12, 3), 200, np.uint8)
    both = sp.io.from_anndata(spots(patient=name, sample="S"), image, um_per_px=1.0, patient=NAME)
    return str(both.attrs["spatialsig"]["patient"])


def sets(ending: str, text: Callable[[str], str]) -> Callable[[str, Path], str]:
    def read(name: str, folder: Path) -> str:
        (folder / f"s.{ending}").write_text(text(name))
        ((signature, (gene,)),) = sp.io.read_signatures(folder / f"s.{ending}").items()
        assert signature == gene
        return signature

    return read


DOORS: dict[str, Callable[[str, Path], str]] = {
    "csv": of_csv,
    "frame": lambda name, _: str(
        read_manifest(pd.DataFrame({"sample": ["S"], "bundle": ["b"], "patient": [name]}))["patient"][0]
    ),
    "store and list": of_store,
    "argument": lambda name, _: str(slide(name).attrs["spatialsig"]["patient"]),
    "cells": lambda name, _: str(
        sp.io.from_anndata(spots(), np.full((12, 12, 3), 200, np.uint8), um_per_px=1.0, patient=name)["table"].obs["patient"].iloc[0]
    ),
    "column of spots and argument": of_spots,
    "gmt": sets("gmt", lambda name: f"{name}\tna\t{name}\n"),
    "sets in csv": sets("csv", lambda name: f"signature,gene\n{name},{name}\n"),
    "json": sets("json", lambda name: json.dumps({name: [name]})),
    "yaml": sets("yaml", lambda name: json.dumps({name: [name]})),
    "mapping": lambda name, _: next(iter(sp.io.read_signatures({name: ["A"]}))),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_one_name(door: str, form: str, tmp_path: Path) -> None:
    assert DOORS[door](FORMS[form], tmp_path) == NAME


@pytest.mark.parametrize("form", FORMS)
def test_one_patient_is_in_one_fold(form: str, tmp_path: Path) -> None:
    for number, patient in enumerate((NAME, FORMS[form], "B", "C")):
        data = slide("P", f"S{number}", seed=number)
        data.attrs["spatialsig"]["patient"] = patient
        sp.io.write(data, tmp_path / f"S{number}.zarr")
    cohort = sp.Cohort(tmp_path)
    assert cohort.obs["patient"].nunique() == 3
    sp.pp.split(cohort, n_folds=3)
    folds = [one.attrs["split"]["fold"] for one in open_slides(cohort)]
    assert folds[0] == folds[1]
    assert len(set(folds)) == 3


def test_what_only_looks_alike_is_refused_with_its_characters() -> None:
    with pytest.raises(InputError, match=r"or in characters that look alike \('Ren\\xe9', '\\uff32en\\xe9'\)"):
        check_alike([NAME, WIDE], what="patients")
    check_alike(["Ren\u00e9", "Rene", "Ren\u00e8"], what="patients")  # other names


@pytest.mark.parametrize("form", ["accent of its own", "wide"])
def test_a_key_in_another_form_is_named(form: str) -> None:
    there = (FORMS | {"wide": WIDE})[form]
    with pytest.raises(KeyMissingError, match=r"It stands there as '.*\\u"):
        check_key([there, "B"], NAME, name="key", where="the tables")


def test_genes_of_a_panel() -> None:
    written = FORMS["accent of its own"]
    image = np.full((12, 12, 3), 200, np.uint8)
    assert sp.io.from_anndata(spots(gene=written), image, um_per_px=1.0)["table"].var_names.tolist() == [NAME]
    said = describe_names([NAME], pd.DataFrame(index=[written, "A"]))  # of an object that others made
    assert r"('Ren\xe9' is 'Rene\u0301' there)" in said
    fixed = pd.Index([written]).str.normalize("NFC").str.strip()  # as it says
    assert "normalize('NFC')" in said
    assert fixed.tolist() == [NAME]


def test_categories_of_cells() -> None:
    data = slide("P")
    cells = data["table"]
    names = np.array([NAME, FORMS["accent of its own"]])
    cells.obs["kind"] = pd.Categorical(names[np.arange(cells.n_obs) % 2])
    sp.pp.make_patches(data, patch_px=28, um_per_px=2.0, min_tissue=0)
    sp.pp.assign_cells(data)
    with pytest.raises(InputError, match="has category 'Ren\u00e9' twice"):
        sp.tl.aggregate_patches(data, targets={"obs": "kind"}, use_rep=None, min_cells=1)
    cells.obs["kind"] = cells.obs["kind"].astype(str).str.normalize("NFC").astype("category")
    sp.tl.aggregate_patches(data, targets={"obs": "kind"}, use_rep=None, min_cells=1)
    assert data["signatures"].var_names.tolist() == [NAME]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("given", ["NFC", "NFD"])
def test_a_file_is_found_in_either_form(on_disk: str, given: str, tmp_path: Path) -> None:
    lies = tmp_path / unicodedata.normalize(on_disk, "Z\u00fcrich") / unicodedata.normalize(on_disk, "\u00e9.json")
    lies.parent.mkdir()
    lies.write_text('{"A": ["CD3D"]}')
    asked = tmp_path / unicodedata.normalize(given, "Z\u00fcrich") / unicodedata.normalize(given, "\u00e9.json")
    assert sp.io.read_signatures(asked) == {"A": ["CD3D"]}
    assert local_path(asked) == lies
    (tmp_path / "m.csv").write_text(f"sample,bundle\nS,{asked.relative_to(tmp_path)}\n")
    with pytest.warns(sp.errors.SpatialsigWarning, match="no patient is given"):
        assert read_manifest(tmp_path / "m.csv")["bundle"][0] == lies.resolve()
    assert local_path(tmp_path / given / "\u00e9") == tmp_path / given / "\u00e9"  # what is not there is not made up


def test_trimming_leaves_other_text_as_it_is() -> None:
    for text in ("CD3D", "T cell (na\u00efve)", "\u03b1\u03b2 T", "NK\u00b9"):
        assert trimmed(text) == text
