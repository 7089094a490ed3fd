from pathlib import Path

import pytest

from spatialsig import _files
from spatialsig._files import object_or_empty, read_json, write_text
from spatialsig.errors import InputError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old µ")
    assert file.read_bytes() == "old µ".encode()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text(encoding="utf-8") == "old µ"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a\.json is not JSON: .*\. Make it again\."),
        ("[" * 100_000, r"a\.json is not JSON: maximum recursion"),
        ("[1]", r"a\.json holds a list; wanted a dict\. Make it again\."),
        ('{"long": "0123456789"}', r"a\.json has 22 bytes; at most 20 are read\. Make it again\."),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_json(file, dict, fix="Make it again.", max_bytes=20 if "long" in text else None)


def test_an_object_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert object_or_empty(file) == {}
    for text, expected in (("{", {}), ("[1]", {}), ('{"a": 1}', {"a": 1})):
        file.write_text(text)
        assert object_or_empty(file) == expected
