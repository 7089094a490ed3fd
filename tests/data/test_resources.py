"""Memory that is used again but never while somebody looks at it, and handles that do not outlive their arrays."""

from __future__ import annotations

import mmap
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from spatialsig._settings import settings
from spatialsig.data import resources
from spatialsig.data.resources import batch_memory, metadata_file, open_array, page_aligned


def write(path: Path, value: int, **options: object) -> None:
    shutil.rmtree(path, ignore_errors=True)
    zarr.create_array(path, data=np.full((3, 8, 8), value, np.uint8), chunks=(3, 8, 8), **options)


@pytest.mark.parametrize("shape", [(7, 3, 5, 5), (1,), (0, 3, 8, 8)])
def test_page_aligned_memory_is_zero_and_writable(shape: tuple[int, ...]) -> None:
    first, second = page_aligned(shape), page_aligned(shape)
    assert first.shape == shape
    assert first.dtype == np.uint8
    assert not first.any()
    first += 1
    assert not second.any()
    if first.size:
        assert first.ctypes.data % mmap.PAGESIZE == 0


def test_batches_that_live_at_once_never_share_memory() -> None:
    arrays = [batch_memory((2, 3, 11, 13)) for _ in range(9)]
    for k, array in enumerate(arrays):
        array[...] = k
    assert [np.unique(array).tolist() for array in arrays] == [[k] for k in range(9)]


def test_few_free_blocks_wait_for_their_next_use() -> None:
    shape = (2, 3, 17, 19)
    arrays = [batch_memory(shape) for _ in range(9)]
    addresses = {array.ctypes.data for array in arrays}
    del arrays
    kept = resources._free[resources.os.getpid(), int(np.prod(shape))]
    assert len(kept) == resources._KEPT < 9
    assert batch_memory(shape).ctypes.data in addresses


def test_a_forked_process_leaves_the_blocks_of_its_parent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 3, 23, 29)
    address = batch_memory(shape).ctypes.data  # free again at once
    with monkeypatch.context() as child:
        child.setattr(resources.os, "getpid", lambda: 1)
        assert batch_memory(shape).ctypes.data != address
    assert batch_memory(shape).ctypes.data == address


@pytest.mark.parametrize(("zarr_format", "name"), [(3, "zarr.json"), (2, ".zarray")])
def test_a_handle_is_kept_until_its_array_is_replaced(tmp_path: Path, zarr_format: int, name: str) -> None:
    path = tmp_path / "a"
    write(path, 3, zarr_format=zarr_format)
    assert metadata_file(path) == path / name
    handle = open_array(path)
    assert open_array(path) is handle
    assert np.unique(handle.read().result()).tolist() == [3]
    write(path, 5, zarr_format=zarr_format)
    assert open_array(path) is not handle
    assert np.unique(open_array(path).read().result()).tolist() == [5]


def test_arrays_of_a_process_share_one_pool_whose_size_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 1)
    monkeypatch.setattr(settings, "patch_cache_mb", 16)
    first, second = (open_array(tmp_path / name).spec(retain_context=True).to_json()["context"] for name in "ab")
    assert first == second
    assert first["cache_pool"]["total_bytes_limit"] == 16 * 2**20 // resources.CHUNK_POOL_SHARE
