"""Files and names as spreadsheets and people leave them: read right, or refused with the fix."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._text import check_alike, csv_rows, decoded, delimiter_of, describe_mangled, trimmed
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io._cohort import read_csv, read_manifest

SETS = {"T_cells": ["CD3D", "CD3E"], "B_cells": ["MS4A1"]}
FORMS = {
    "gmt": "T_cells\tsource\tCD3D\tCD3E\nB_cells\t\tMS4A1\n",
    "csv": "signature,gene\nT_cells,CD3D\nT_cells,CD3E\nB_cells,MS4A1\n",
    "json": '{"T_cells": ["CD3D", "CD3E"], "B_cells": ["MS4A1"]}',
    "yaml": "T_cells: [CD3D, CD3E]\nB_cells: [MS4A1]\n",
}
# what programs do to a text file on the way
HABITS = {
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "comments": lambda text: ("# exported\n" + text if text[0] != "{" else text).encode(),
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
    assert describe_mangled(["3/1/2021", "1.3.2021", "44256", "TRUE", "#NAME?", "#REF!"]).startswith("6 gene name(s)")
    other_languages = [
        "1-mars",
        "2-sept",
        "1-mrt",
        "01. Mrz",
        "3月1日",
        "2,31E+13",
        "WAHR",
        "#BEZUG!",
        "#NV",
        "#¿NOMBRE?",
    ]
    assert describe_mangled(other_languages).startswith("10 gene name(s)")
    every_name = [
        gene for name in ("seed", "tumour_microenvironment") for g in sp.io.read_signatures(name).values() for gene in g
    ]
    assert not describe_mangled(
        [
            *every_name,
            "MARCHF1",
            "DEC1",
            "HLA-DRA",
            "H2-Ab1",
            "1700001C02Rik",
            "ENSG00000141510.5",
            "SET1",
            "LIP-1",
            "GEN 1",
        ]
    )


def manifest(tmp_path: Path, text: bytes) -> pd.DataFrame:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
    return read_manifest(written(tmp_path, text))


def written(tmp_path: Path, text: bytes) -> Path:
    (tmp_path / "bundles.csv").write_bytes(text)
    return tmp_path / "bundles.csv"


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
    text = f"sample,bundle,patient\n\nS1,a,P1\nS2,b,{other}\n".encode()
    where = rf"patients of '.*csv': \['P1', '{other}'\] \(line 3, slide 'S1' and line 4, slide 'S2'\)"
    how = r" differ in upper and lower case or in blanks only\. If they are one, write them the same way in column 'patient'"
    with pytest.raises(InputError, match=where + how):
        manifest(tmp_path, text)


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (
            ("S1", "s1"),
            r"sample names \['S1', 's1'\] of '.*csv' \(line 3, line 4\) differ in .*Rename one .* 's1' to 's1_2'",
        ),
        (("S1", "S1 "), r"sample name\(s\) \['S1'\] of '.*csv' \(line 3, line 4\) occur more than once"),
        (("S1", "S/1"), r"sample name\(s\) \['S/1'\] of '.*csv' \(line 4\) cannot name a file"),
        (("S1", ""), r"column 'sample' of '.*csv' is empty in line 4; fill it in"),
    ],
)
@pytest.mark.parametrize("column", ["bundle", "path"])
def test_names_of_slides_are_found_in_the_file_that_has_them(
    tmp_path: Path, samples: tuple[str, str], what: str, column: str
) -> None:
    """The lines are those that an editor shows, empty ones counted."""
    text = f"sample,{column}\n\n{samples[0]},a\n{samples[1]},b\n".encode()
    with pytest.raises(InputError, match=what):
        manifest(tmp_path, text) if column == "bundle" else sp.Cohort(written(tmp_path, text))


def test_patients_of_stores_that_look_alike_are_found(tmp_path: Path) -> None:
    for sample, patient in (("A", "P1"), ("B", "p1")):
        sp.io.write(sp.datasets.toy(size_um=100, sample=sample, patient=patient), tmp_path / f"{sample}.zarr")
    held = r"\(of slide 'A', store '.*A\.zarr' and of slide 'B', store '.*B\.zarr'\)"
    with pytest.raises(InputError, match=rf"\['P1', 'p1'\] {held} differ .* in the list; if not"):
        sp.Cohort(tmp_path)


def test_stores_of_one_patient_fall_into_one_fold(tmp_path: Path) -> None:
    for seed, (sample, patient) in enumerate((("A", "P1"), ("B", "P1 "), ("C", "P2"))):
        slide = sp.datasets.toy(size_um=100, seed=seed, sample=sample, patient=patient)
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


MANIFEST = "sample,bundle,patient\nS1,a,P1\nS2,b,P2\n"


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nsample;bundle;patient\nS1;a;P1\nS2;b;P2\n",
        "sep=,\r\n" + MANIFEST.replace("\n", "\r\n"),
        MANIFEST + ",,\n,,\n",
        MANIFEST.replace("patient", "patient,,").replace("P1", "P1,,").replace("P2", "P2,,"),
        "\n\n" + MANIFEST,
        MANIFEST.replace(",a,", ',"a",'),
    ],
)
def test_what_spreadsheets_add_is_not_read(tmp_path: Path, text: str) -> None:
    rows = manifest(tmp_path, text.encode())
    assert rows[["sample", "patient"]].to_numpy().tolist() == [["S1", "P1"], ["S2", "P2"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,bundle,Patient\nS1,a,P1\n", r"bundles.csv' has column\(s\) 'Patient' \(did you mean 'patient'\?\)"),
        ("sample,bundle,pateint\nS1,a,P1\n", r"'pateint' \(did you mean 'patient'\?\)"),
        ("Sample ID,bundle\nS1,a\n", r"'Sample ID' \(did you mean 'sample'\?\)"),
        ("sample,bundle,he image\nS1,a,x\n", r"'he image' \(did you mean 'he_image'\?\)"),
        ("sample,bundle,patient,patient\nS1,a,P1,P2\n", r"column\(s\) \['patient'\] stand there twice"),
        (
            "sample,bundle,patient\nS1,a\nS2,b,P2\n",
            r"line\(s\) \[2\] have 2 field\(s\), the header has 3; complete them",
        ),
        ("sample,bundle\nS1,a,P1\n", r"line\(s\) \[2\] have 3 field\(s\), the header has 2"),
        (
            "sample,bundle,patient\nS1,a,7\nS2,b,007\n",
            r"\['7', '007'\] \(line 2, slide 'S1' and line 3, slide 'S2'\) are one number",
        ),
        (
            "sample,bundle,patient\nS1,a,1\nS2,b,1.0\n",
            r"\['1', '1.0'\] \(line 2, slide 'S1' and line 3, slide 'S2'\) are one number",
        ),
        ("sample,bundle,patient\nS1,a,3/1/2021\n", r"patients \{'S1': '3/1/2021'\} of these samples are a date"),
        ("sample,bundle,patient\nS1,a,1-Mar\n", "are a date"),
        ("sample,bundle,patient\nS1,a,TRUE\n", "'TRUE'} of these samples are a date, a truth value or an error"),
        ("sample,bundle,patient\nS1,a,#NAME?\n", "'#NAME\\?'} of these"),
    ],
)
def test_manifests_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        manifest(tmp_path, text.encode())


def test_other_columns_are_said_to_be_unused(tmp_path: Path) -> None:
    text = b"sample,bundle,patient,patient_id,site,scanner,stain,batch,age\nS1,a,P1,x,K,A,H,1,60\n"
    unused = r"column\(s\) \['patient_id', 'site', 'scanner', 'stain', 'batch', 'age'\] of .*bundles.csv' are not used"
    with pytest.warns(SpatialsigWarning, match=unused) as caught:
        manifest(tmp_path, text)
    assert len(caught) == 1


def test_numbers_and_homes_in_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.csv").write_text("sample,bundle,patient\n1,~/a,7\n")
    rows = read_manifest("~/m.csv")
    assert rows.loc[0, ["sample", "patient", "bundle"]].tolist() == ["1", "7", (tmp_path / "a").resolve()]
    numbers = pd.DataFrame({"sample": [1, 2], "patient": [7.0, None], "bundle": ["a", "b"]})
    with pytest.warns(SpatialsigWarning, match="no patient is given for"):
        assert read_manifest(numbers)["patient"].tolist() == ["7", "2"]


def test_a_patient_missing_in_a_cohort_is_that_of_the_store(tmp_path: Path) -> None:
    for sample in ("A", "B"):
        sp.io.write(sp.datasets.toy(size_um=100, sample=sample, patient=f"P{sample}"), tmp_path / f"{sample}.zarr")
    (tmp_path / "cohort.csv").write_text("sample,path,patient\nA,A.zarr,\nB,B.zarr,PB\n")
    assert sp.Cohort(tmp_path).obs["patient"].tolist() == ["PA", "PB"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "s.gmt",
            "T\tCD3D\tCD3E\nB\tMS4A1\tCD79A\n",
            "second field of a set is its description, but CD3D, MS4A1 is a gene",
        ),
        ("s.gmt", "T\tZZZ1\tYYY2\nB\tXXX1\tWWW3\n", "but ZZZ1, XXX1 is a gene: put `na` between"),
        ("s.gmt", "T\tna\tFoo1\nB\tFoo1\tBar2\n", "but Foo1 is a gene"),
        (
            "s.gmt",
            "T\tna\tCD3D,CD3E\n",
            "signature 'T' of .*'CD3D,CD3E' holds several names; wanted one gene in each field",
        ),
        ("s.csv", 'signature,gene\nT,"CD3D, CD3E"\n', "'CD3D, CD3E' holds several names"),
        ("s.csv", "signature,genes\nT,CD3D\n", "there is no column 'gene', only .*did you mean 'gene' by 'genes'"),
        ("s.csv", "signature,gene\nT,CD3D\nT,\n", "line 3 has no gene"),
        ("s.csv", "signature,gene\nT,CD3D\n,CD3E\n", "line 3 has no signature"),
        ("s.csv", "signature,gene\nT,CD3D\nCD3E\n", r"line\(s\) \[3\] have 1 field"),
        ("s.csv", "signature,gene,gene\nT,CD3D,CD3E\n", r"\['gene'\] stand there twice"),
        ("s.json", '{"T": ["CD3D CD3E"]}', "holds several names"),
    ],
)
def test_gene_sets_that_cannot_be_meant_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        sp.io.read_signatures(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*columns .* are not read")  # of the one that has a source
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.gmt", 'T_cells\t"from a, b"\t"CD3D"\tCD3E\nB_cells\tKEGG\tMS4A1\n'),
        ("s.gmt", "T_cells\tKEGG\tCD3D\tCD3E\nB_cells\tPID\tMS4A1\t\t\n"),
        ("s.gmt", "T_cells\tM5890\tCD3D\tCD3E\nB_cells\tR-HSA-202403\tMS4A1\n"),
        ("s.gmt", "T_cells\tT_cells\tCD3D\tCD3E\nB_cells\tB_cells\tMS4A1\n"),
        ("s.csv", "sep=;\nsignature;gene;source\nT_cells;CD3D;x\nT_cells;CD3E;\nB_cells;MS4A1;y\n;;\n"),
        ("s.csv", 'signature,gene\n"T_cells","CD3D"\nT_cells,"CD3E"\nB_cells,MS4A1\n,\n'),
    ],
)
def test_gene_sets_as_programs_write_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert sp.io.read_signatures(tmp_path / name) == SETS


def test_a_directory_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory; give the path of a text file"):
        decoded(tmp_path)


TABLE = "sample,patient,bundle\nS1,P1,a\nS2,P2,b\n"


@pytest.mark.parametrize(
    "text",
    [
        "# slides of the study\n#, with commas, in it, and more\n" + TABLE,
        "#S0,P0,left out\n#sample,patient,bundle\n" + TABLE,
        "# slides of the study, from the paper\nsample,patient,bundle\nS1,P1,a\n\nS2,P2,b\n",
        "sample,patient,bundle\nS1,P1,a\n#S9,P9,left out\nS2,P2,b\n# end\n",
        "sample,patient,bundle\nS1,P1,a\n# it's a \"quote\nS2,P2,b\n",
        "# old lines\rsample,patient,bundle\rS1,P1,a\rS2,P2,b\r",
    ],
)
def test_lines_that_begin_with_a_hash_are_comments(text: str) -> None:
    header, rows = csv_rows(text)
    assert header == ["sample", "patient", "bundle"]
    assert list(rows.values()) == [["S1", "P1", "a"], ["S2", "P2", "b"]]
    assert [text.splitlines()[line - 1].split(",")[0] for line in rows] == ["S1", "S2"]


@pytest.mark.parametrize("note", ["two\n#lines", '"" said\n# he', "a\n#b,c\n#d", '5""\n#6'])
def test_a_field_in_quotes_may_hold_lines_that_look_like_comments(note: str) -> None:
    text = f'sample,note\nS1,"{note}"\n#S2,left out\nS3,x"y\n#S4,out\n'
    rows = list(csv_rows(text)[1].values())
    assert rows == [["S1", note.replace('""', '"')], ["S3", 'x"y']]


@pytest.mark.parametrize(
    ("name", "text", "n"),
    [
        ("m.csv", 'sample,he_image\nS1,"a\n#,b.tif"\n#S2,b.tif\n#S3,c.tif\n# prose, with, commas\n#\n', 2),
        ("s.csv", "signature,gene\nT,CD3D\nT,CD3E\n#B,MS4A1\n", 1),
        ("s.gmt", "T\tna\tCD3D\tCD3E\n#B\tna\tMS4A1\n# prose\n", 1),
    ],
)
def test_rows_that_are_commented_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, n: int
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", True)
        read_csv(tmp_path / name, needed=("sample",)) if name == "m.csv" else sp.io.read_signatures(tmp_path / name)
    assert f"{n} row{'s' * (n > 1)} commented out with '#'" in capsys.readouterr().err


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_ends_of_lines_end_lines(sign: str) -> None:
    assert list(csv_rows(f"sample,note\nS1,a{sign}b\n# c\n")[1].values()) == [["S1", f"a{sign}b"]]


def test_errors_of_a_spreadsheet_are_no_comments() -> None:
    errors = ["#NAME?", "#N/A", "#NOM?", "#BEZUG!", "#NV", "#CALC!", "#ÜBERLAUF!"]
    text = "gene,signature\n" + "".join(f"{error},T\n" for error in errors)
    assert [row[0] for row in csv_rows(text)[1].values()] == errors


@pytest.mark.parametrize("line", ["#SetA\tna\tCD3D\tCD3E", "# SetA\tna\tCD3D\tCD3E"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_set_that_is_commented_out_stays_out(tmp_path: Path, line: str, place: int) -> None:
    lines = ["SetB\tna\tMS4A1\tCD79A", "SetC\tna\tEPCAM\tKRT8"]
    lines.insert(place, line)
    (tmp_path / "x.gmt").write_text("\n".join(lines))
    assert list(sp.io.read_signatures(tmp_path / "x.gmt")) == ["SetB", "SetC"]


def test_utf16_that_was_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(TABLE.encode("utf-16-le")[:-1])
    with pytest.raises(InputError, match="t.csv"):
        decoded(tmp_path / "t.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [TABLE, "x", "sample,patient\nS1,Müller\n"])
def test_text_is_read_in_its_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert decoded(tmp_path / "t.csv") == text


@pytest.mark.parametrize("data", [b"\x00" * 64, bytes(range(256)) * 4, b"\x89HDF\r\n\x1a\n" + b"\x00\x01" * 60])
def test_other_files_are_no_text_in_utf16(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError, match="is not UTF-8 text"):
        decoded(tmp_path / "t.csv")
