import copy
import inspect
import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning
from spatialsig.signatures import builtin_names, read_signatures

EXPECTED = {"A": ["CD3D", "CD3E"], "B": ["MS4A1"]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.gmt", "A\tsource\tCD3D\tCD3E\nB\t\tMS4A1\n"),
        ("s.csv", "signature,gene\nA,CD3D\nA,CD3E\nB,MS4A1\n"),
        ("s.json", '{"A": ["CD3D", "CD3E", "CD3D"], "B": [" MS4A1 "]}'),
        ("s.yaml", "A: [CD3D, CD3E]\nB:\n  - MS4A1\n"),
        ("full.json", '{"signatures": {"A": {"genes": ["CD3D", "CD3E"]}, "B": {"genes": ["MS4A1"]}}}'),
    ],
)
def test_every_format_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_signatures(tmp_path / name) == EXPECTED


def test_seed_set_is_the_prototypes() -> None:
    sets = read_signatures("seed")
    assert list(sets) == ["Immune_T", "Immune_B", "Pericyte", "SmoothMuscle", "Fibroblast", "Proliferation"]
    assert len(set(sets["Pericyte"]) & set(sets["SmoothMuscle"])) == 4


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_sets_name_their_sources(name: str) -> None:
    path = Path(inspect.unwrap(read_signatures).__code__.co_filename).parent / f"{name}.json"
    loaded = json.loads(path.read_text())
    assert loaded["licence"]
    assert loaded["version"]
    for signature, entry in loaded["signatures"].items():
        assert entry["source"], signature
        assert len(set(entry["genes"])) == len(entry["genes"]) >= 3
        assert all(re.fullmatch(r"[A-Z][A-Z0-9-]+", gene) for gene in entry["genes"]), signature


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("sed", FileMissingError, r"no such file, and the built-in sets are \['seed', 'tumour_microenvironment'\]"),
        ({}, InputError, "holds no signatures"),
        ({"A": []}, InputError, "signature 'A' of the given mapping has no genes"),
        (
            {" ": ["CD3D"]},
            InputError,
            r"a signature of the given mapping has no name; give it one. Its genes: \['CD3D'\]",
        ),
        ({"A": "CD3D"}, InputError, "must be a list, not one string"),
    ],
)
def test_errors_say_what_is_wrong(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_signatures(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.csv", "a,b\n1,2\n", "there is no column 'signature'"),
        ("s.json", "[1]", "it holds a list; wanted names of signatures, each with its genes"),
        ("s.json", "3", "it holds a int"),
        ("s.yaml", "a: [b", "not the layout"),
        ("s.yaml", "T: [CD3D, NO]", "YAML reads NO, ON and YES as true and false: put quotes around them"),
        ("s.yaml", "NO: [CD3D]", r"is named False \(YAML reads NO"),
        ("s.yaml", "'': [CD3D]", "has no name; give it one"),
        ("s.json", "[" * 100_000, "not the layout"),
        ("s.yaml", "[" * 3000, "not the layout"),
        ("s.txt", "", "cannot read '.txt' files"),
    ],
)
def test_file_of_another_layout_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}.*{said}"):
        read_signatures(tmp_path / name)


SIGNED = {"T cell": {"CD3D": 1.0, "CD3E": 1.0, "DCN": -1.0}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", '{"T cell": ["CD3D+", "CD3E", "DCN-"]}'),
        ("s.json", '{"T cell": {"CD3D": 1, "CD3E": 1, "DCN": -1}}'),
        ("s.json", '{"signatures": {"T cell": {"genes": ["CD3D", "CD3E", "DCN-"], "source": "a paper"}}}'),
        ("s.yaml", "T cell: {CD3D: 1, CD3E: 1.0, DCN: -1}"),
        ("s.yaml", "T cell: [CD3D, CD3E+, DCN-]"),
        ("s.gmt", "T cell\tna\tCD3D\tCD3E\tDCN-"),
        ("s.gmt", "T cell\t\tCD3D\tCD3E\tDCN-\t\t"),
        ("s.gmt", "T cell\tna\tCD3D\tCD3E\tDCN\u2212"),
        ("s.csv", "signature,gene\nT cell,CD3D\nT cell,CD3E\nT cell,DCN-\n"),
        ("s.csv", "signature,gene,weight\nT cell,CD3D,1\nT cell,CD3E,1.0\nT cell,DCN,-1\n"),
    ],
)
def test_signs_and_weights_are_read_from_every_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_signatures(tmp_path / name) == SIGNED


@pytest.mark.parametrize(
    ("column", "up", "down"),
    [
        *((name, "up", "down") for name in ("direction", "Regulation", "notes")),
        *((name, "+", sign) for name in ("sign", "Sign") for sign in "-\u2212"),
        *((name, "0.5", "-1.5") for name in ("coef", "logFC", "score", "w", "loading", "avg_log2FC")),
        ("direction", "-", "-"),
        ("logFC", "NA", "-1,5"),
    ],
)
def test_signs_under_another_name_are_refused(tmp_path: Path, column: str, up: str, down: str) -> None:
    (tmp_path / "s.csv").write_text(f"signature;gene;{column}\nT;CD3D;{up}\nT;DCN;{down}\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"s\.csv.*column '{column}' holds signs or weights.*call the column 'weight'"
    ):
        read_signatures(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("text", "genes"),
    [
        ("signature,gene,source\nT,CD3D,a paper\nT,DCN,-\n", ["CD3D", "DCN"]),
        ("signature,gene,source\nT,CD3D,-\nT,DCN,-\n", ["CD3D", "DCN"]),
        ("signature,gene,strand\nT,CD3D,+\nT,DCN,-\n", ["CD3D", "DCN"]),
        ("signature,gene,pvalue\nT,CD3D,0.1\nT,DCN,1e-5\n", ["CD3D", "DCN"]),
        ("signature,gene,logFC,weight\nT,CD3D,2,1\nT,DCN,-2,-1\n", {"CD3D": 1.0, "DCN": -1.0}),
        ("signature,gene,sign\nT,CD3D+,+\nT,DCN-,-\n", {"CD3D": 1.0, "DCN": -1.0}),
    ],
)
def test_columns_that_change_nothing_are_named_once(tmp_path: Path, text: str, genes: object) -> None:
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    with pytest.warns(SpatialsigWarning, match=r"s\.csv: columns \['\w+'\] are not read") as said:
        assert read_signatures(tmp_path / "s.csv") == {"T": genes}
    assert len(said) == 1


def test_weights_of_1_are_a_plain_signature() -> None:
    assert read_signatures({"T": {"CD3D": 1, "CD3E": 1.0}}) == {"T": ["CD3D", "CD3E"]}
    assert read_signatures({"T": ["CD3D+", "CD3D"]}) == {"T": ["CD3D"]}
    assert read_signatures({"T": {"CD3D": np.float32(2), "CD2": np.int64(-1)}}) == {"T": {"CD3D": 2.0, "CD2": -1.0}}


@pytest.mark.parametrize(("name", "text"), [("s.yaml", "T:\nU: [CD3D]"), ("s.json", '{"T": 3}')])
def test_a_signature_that_is_nothing_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="signature 'T' of .*: wanted a list of gene names, or weights by gene name"):
        read_signatures(tmp_path / name)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("signature;gene;weight\nT;CD3D;0,5\nT;DCN;\u22121\n", encoding="utf-8")
    assert read_signatures(tmp_path / "s.csv") == {"T": {"CD3D": 0.5, "DCN": -1.0}}


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (["CD3D", "CD3D-"], "signature 'T' of the given mapping: gene 'CD3D' has the weights 1 and -1; wanted one"),
        ({"DCN-": -1.0}, "gene 'DCN-' has the sign '-' and the weight -1; write one of them"),
        ({"CD3D": 0, "CD2": 1}, "gene 'CD3D' has the weight 0; wanted a number from 1e-06"),
        ({"CD3D": float("nan")}, "gene 'CD3D' has the weight nan; wanted a number"),
        ({"CD3D": 1e308}, r"gene 'CD3D' has the weight 1e\+308; wanted a number"),
        (["CD3D--"], "'CD3D--' is no gene with a sign"),
        (["-", "CD3D"], "'-' is no gene with a sign"),
        (["CD3E", "-DCN"], "'-DCN' is no gene with a sign; wanted one such as 'DCN-'"),
        ({"+CD3D": 1.0}, r"'\+CD3D' is no gene with a sign"),
    ],
)
def test_weights_that_contradict_are_refused(genes: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_signatures({"T": genes})


def test_a_csv_with_a_weight_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("signature,gene,weight\nT,CD3D,x\n")
    with pytest.raises(InputError, match="gene 'CD3D' has the weight 'x'; wanted a number from 1e-06 to 1e\\+06"):
        read_signatures(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("signature,gene,weights\nT,CD3D,1\n")
    with pytest.raises(InputError, match="column 'weights' is not known; did you mean 'weight'"):
        read_signatures(tmp_path / "s.csv")


def test_spoilt_names_are_told_once() -> None:
    """By the reader, and not again by the function to which its sets are given; others that were added meanwhile are."""
    with pytest.warns(SpatialsigWarning, match="1-Mar") as caught:
        sets = read_signatures({"T": ["CD3D", "CD3E", "1-Mar"]})
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (sets, pickle.loads(pickle.dumps(copy.deepcopy(sets)))):
            assert read_signatures(same) == sets
    assert yaml.safe_load(yaml.safe_dump(sets)) == json.loads(json.dumps(sets)) == sets
    sets["B"] = ["CD19", "2-Sep"]
    with pytest.warns(SpatialsigWarning, match="'B' .* 1 gene name.* 2-Sep") as caught:
        read_signatures(sets)
    assert len(caught) == 1
