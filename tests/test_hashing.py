"""Hashes that stores, models and checkpoints hold must not change: each against hashlib, written out."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from spatialsig._hashing import END_BYTES, array_hash, content_hash, file_ends_hash, file_hash, json_hash


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2).T, np.zeros((0, 4)), np.float32(2), np.array([True])],
    ids=["2d", "transposed", "empty", "scalar", "bool"],
)
def test_content_is_text_and_values_in_row_major_order(array: np.ndarray) -> None:
    raw = "é".encode() + b"\0" + np.asarray(array).tobytes(order="C")
    assert content_hash(["é", b"\0", array]) == hashlib.sha256(raw).hexdigest()
    assert content_hash(["é", b"\0", array], short=True) == hashlib.blake2b(raw, digest_size=16).hexdigest()


def test_arrays_count_with_shape_and_type() -> None:
    row, column = np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32)
    assert array_hash(row) == hashlib.sha256(b"((1, 2), '<f4')" + bytes(8)).hexdigest()
    assert len({array_hash(row), array_hash(column), array_hash(row.view(np.int32)), array_hash(row, row)}) == 4


def test_json_counts_without_the_order_of_keys() -> None:
    expected = hashlib.sha256(json.dumps({"a": "1", "b": [2]}).encode()).hexdigest()
    assert json_hash({"b": [2], "a": Path("1")}) == expected


@pytest.mark.parametrize("size", [0, 10, END_BYTES, END_BYTES + 5, 3 * END_BYTES])
def test_files_whole_and_by_their_ends(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "f").write_bytes(data)
    assert file_hash(tmp_path / "f") == hashlib.sha256(data).hexdigest()
    ends = data[:END_BYTES] + data[max(END_BYTES, size - END_BYTES) :]
    assert file_ends_hash(tmp_path / "f") == hashlib.sha256(str(size).encode() + ends).hexdigest()
