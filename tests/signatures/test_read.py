import inspect
import json
import re
from pathlib import Path

import pytest

from spatialsig.errors import FileMissingError, InputError
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
        ({"A": "CD3D"}, InputError, "must be .* a list, not one string"),
    ],
)
def test_errors_say_what_is_wrong(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_signatures(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"), [("s.csv", "a,b\n1,2\n"), ("s.json", "[1]"), ("s.yaml", "a: [b"), ("s.txt", "")]
)
def test_file_of_another_layout_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_signatures(tmp_path / name)
