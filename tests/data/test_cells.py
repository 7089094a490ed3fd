"""Counts read in blocks from a store equal the matrix that was written."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from spatialsig.data import cells
from spatialsig.data.cells import RUN_CELLS, MemoryCells, StoredCells, blocks, hold_out
from spatialsig.errors import InputError


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.4, (211, 17)).astype(np.float32))
    counts[5] = 0
    counts.eliminate_zeros()
    path = tmp_path_factory.mktemp("cells") / "table.zarr"
    ad.AnnData(counts, var=pd.DataFrame(index=[f"G{i}" for i in range(17)])).write_zarr(path)
    return path / "X", counts.toarray()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_block_of_any_cells_and_genes(stored, data) -> None:
    group, dense = stored
    columns = np.array(data.draw(st.lists(st.integers(0, 16), min_size=1, max_size=17, unique=True)))
    absent = data.draw(st.integers(0, len(columns) - 1))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, 210), min_size=1, max_size=50))))
    source = StoredCells(group, columns, rows)
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first, len(rows)))
    found = source.read(first, last)
    assert found.dtype == np.float32
    assert np.array_equal(found.toarray(), dense[rows[first:last]][:, columns])
    assert source.n_cells == len(rows)
    assert source.nnz == np.count_nonzero(dense[rows])
    assert source.nnz_of(first, last) == np.count_nonzero(dense[rows[first:last]])

    columns[absent] = -1  # a gene the slide does not measure
    found = StoredCells(group, columns, rows).read(first, last).toarray()
    assert (found[:, absent] == 0).all()
    kept = columns >= 0
    assert np.array_equal(found[:, kept], dense[rows[first:last]][:, columns[kept]])


def test_blocks_cover_every_cell_once(stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BLOCK_NNZ", 100)
    source = StoredCells(stored[0], np.arange(17))
    parts = blocks(source)
    assert len(parts) > 5
    assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
    assert parts[-1][1] == 211
    joined = sparse.vstack([source.read(*part) for part in parts]).toarray()
    assert np.array_equal(joined, stored[1])
    assert blocks(MemoryCells(sparse.csr_matrix((3, 2)))) == [(0, 3)]


def test_a_dense_matrix_is_refused(tmp_path) -> None:
    ad.AnnData(np.ones((3, 2), np.float32)).write_zarr(tmp_path / "t.zarr")
    root = zarr.open_group(tmp_path / "t.zarr", mode="a")
    root.create_group("M").attrs["encoding-type"] = "csc_matrix"
    with pytest.raises(InputError, match=r"stored as 'csc_matrix'; wanted a CSR matrix"):
        StoredCells(tmp_path / "t.zarr" / "M", np.arange(2))


@pytest.mark.parametrize(("n_cells", "share", "held"), [(211, 0.2, 32), (211, 0.0, 32), (33, 0.9, 32), (32, 0.9, 0)])
def test_held_out_cells_and_the_others_are_the_slide(stored, n_cells: int, share: float, held: int) -> None:
    source = StoredCells(stored[0], np.arange(17), np.arange(n_cells))
    kept, apart = hold_out(source, share=share, rng=np.random.default_rng(0))
    assert kept.n_cells + apart.n_cells == n_cells
    assert abs(apart.n_cells - held) < RUN_CELLS
    every = np.concatenate([kept.read(0, kept.n_cells).toarray(), apart.counts.toarray()])
    assert sorted(map(tuple, every)) == sorted(map(tuple, stored[1][:n_cells]))
    for first, last in [(0, 0), (0, min(5, kept.n_cells)), (kept.n_cells // 2, kept.n_cells)]:
        part = kept.read(first, last)
        assert np.array_equal(part.toarray(), every[first:last])
        assert kept.nnz_of(first, last) >= part.nnz
