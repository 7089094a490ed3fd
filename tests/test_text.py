"""Files and names as spreadsheets and people leave them: read right, or refused with the fix."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._text import check_alike, decoded, delimiter_of, describe_mangled, trimmed
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io._cohort import read_manifest

SETS = {"T_cells": ["CD3D", "CD3E"], "B_cells": ["MS4A1"]}
FORMS = {
    "gmt": "T_cells\tsource\tCD3D\tCD3E\nB_cells\t\tMS4A1\n",
    "csv": "signature,gene\nT_cells,CD3D\nT_cells,CD3E\nB_cells,MS4A1\n",
    "json": '{"T_cells": ["CD3D", "CD3E"], "B_cells": ["MS4A1"]}',
    "yaml": "T_cells: [CD3D, CD3E]\nB_cells: [MS4A1]\n",
}
# what programs do to a text file on the way
HABITS = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "windows lines": lambda text: text.replace("\n", "\r\n").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "blank line at the end": lambda text: (text + "\n").encode(),
}


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("ending", [*FORMS, *(form.upper() for form in FORMS)])
def test_sets_are_read_whatever_wrote_them(tmp_path: Path, ending: str, habit: str) -> None:
    path = tmp_path / f"sets.{ending}"
    path.write_bytes(HABITS[habit](FORMS[ending.lower()]))
    assert sp.io.read_signatures(path) == SETS


def test_a_set_may_take_in_another_by_reference(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    path.write_text("signatures:\n  <<: &base {T_cells: [CD3D, CD3E], B_cells: [CD19]}\n  B_cells: [MS4A1]\n")
    assert sp.io.read_signatures(path) == SETS


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_columns_may_stand_between_other_characters(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "sets.csv"
    text = FORMS["csv"].replace("signature,gene", "Signature, Gene ").replace(",", delimiter)
    path.write_text(text.replace("T_cells", "\u00a0T_cells "))
    assert sp.io.read_signatures(path) == SETS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.gmt", "A\t\tCD3D\nA\t\tCD3E\n"),
        ("s.json", '{"A": ["CD3D"], "A": ["CD3E"]}'),
        ("s.yaml", "A: [CD3D]\nA: [CD3E]\n"),
        ("s.json", '{"A": ["CD3D"], "A ": ["CD3E"]}'),
        ("s.csv", "signature,gene\nImmune,CD3D\nimmune,CD3E\n"),
    ],
)
def test_a_set_named_twice_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="twice|differ in upper and lower case or in blanks"):
        sp.io.read_signatures(tmp_path / name)


def test_genes_that_a_spreadsheet_took_for_dates_are_named() -> None:
    with pytest.warns(SpatialsigWarning, match=r"signature 'A' .*2 gene name\(s\) were turned .*1-Mar, 2-Sep"):
        sp.io.read_signatures({"A": ["CD3D", "1-Mar", "2-Sep"]})
    assert describe_mangled(["1-Mar", "Sep-02", "1-Dec", "2001-03-01", "2001-03-01 00:00:00", "2.31E+13"]).startswith(
        "6 gene name(s)"
    )
    every_name = [
        gene for name in ("seed", "tumour_microenvironment") for g in sp.io.read_signatures(name).values() for gene in g
    ]
    assert not describe_mangled(
        [*every_name, "MARCHF1", "DEC1", "HLA-DRA", "H2-Ab1", "1700001C02Rik", "ENSG00000141510.5"]
    )


def manifest(tmp_path: Path, text: bytes) -> pd.DataFrame:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "bundles.csv").write_bytes(text)
    return read_manifest(tmp_path / "bundles.csv")


@pytest.mark.parametrize(
    "text",
    [
        b"sample,bundle,patient\nS1,a,P1\nS2,b,P1 \n",
        "sample,bundle,patient\nS1,a,P1\nS2,b,\u00a0P1\n".encode(),
        "sample,bundle,patient\nS1,a,P1\nS2,b,P1\u200b\n".encode(),
        "\ufeffsample;bundle;patient\r\nS1;a;P1\r\nS2;b;P1\ufeff\r\n".encode(),
        "sample\tbundle\tpatient \n S1\ta\tP1\nS2 \tb \tP1\n".encode("utf-16"),
    ],
)
def test_one_patient_is_one_patient(tmp_path: Path, text: bytes) -> None:
    rows = manifest(tmp_path, text)
    assert rows["patient"].tolist() == ["P1", "P1"]
    assert rows["sample"].tolist() == ["S1", "S2"]


@pytest.mark.parametrize("other", ["p1", "P 1"])
def test_patients_that_look_alike_are_refused(tmp_path: Path, other: str) -> None:
    text = f"sample,bundle,patient\nS1,a,P1\nS2,b,{other}\n".encode()
    with pytest.raises(InputError, match=r"patients \['P1', .*\] differ in upper and lower case or in blanks only"):
        manifest(tmp_path, text)


def test_stores_of_one_patient_fall_into_one_fold(tmp_path: Path) -> None:
    for sample, patient in (("A", "P1"), ("B", "P1 "), ("C", "P2")):
        slide = sp.datasets.toy(size_um=100, sample=sample, patient=patient)
        sp.io.write(slide, tmp_path / f"{sample}.zarr")
    cohort = sp.Cohort(tmp_path)
    assert "2 patients (P1: 2 slides)" in repr(cohort)
    sp.pp.split(cohort, by="patient", n_folds=2)
    folds = {sample: sd.read_zarr(path).attrs["spatialsig"]["split"]["fold"] for sample, path in cohort.stores.items()}
    assert folds["A"] == folds["B"] != folds["C"]


def test_text_that_is_no_text_says_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "sets.csv"
    path.write_bytes("signature,gene\nÄ,CD3D\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text .*CSV UTF-8"):
        sp.io.read_signatures(path)


def test_parts(tmp_path: Path) -> None:
    assert trimmed("\ufeff \u00a0x y\u200b ") == "x y"
    assert delimiter_of("a;b;c\n1,2;3;4") == ";"
    assert delimiter_of("a") == ","
    check_alike(["P1", "P2", "P1"], what="patients")
    (tmp_path / "x").write_bytes("ä".encode("utf-8-sig"))
    assert decoded(tmp_path / "x") == "ä"
