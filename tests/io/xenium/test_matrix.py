from __future__ import annotations

import h5py
import numpy as np
import pytest

from spatialsig.errors import InputError
from spatialsig.io.xenium import counts as blocks
from spatialsig.io.xenium.matrix import read_h5_axes, read_h5_counts

from ..conftest import N_CELLS, N_GENES  # noqa: TID252 - the bundle of the room above


def read(file, keep=None):
    axes = read_h5_axes(file)
    return axes, read_h5_counts(file, axes, np.ones(len(axes.cell_ids), bool) if keep is None else keep)


@pytest.mark.parametrize("block", [1, 7, 2**20])
@pytest.mark.parametrize("chunks", [None, (1,), (10,), (10**4,)])
def test_counts_sums_and_what_was_left_out_are_those_of_the_dense_matrix(bundle, monkeypatch, block, chunks) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", block)
    file = bundle.path / "cell_feature_matrix.h5"
    with h5py.File(file, "r+") as opened:
        for name in ("data", "indices"):
            values = opened[f"matrix/{name}"][()]
            del opened[f"matrix/{name}"]
            size = None if chunks is None else (min(chunks[0], len(values)),)
            opened.create_dataset(f"matrix/{name}", data=values, chunks=size)
    keep = np.arange(N_CELLS) % 7 != 3
    axes, matrix = read(file, keep)
    genes, probes, codewords = np.split(bundle.counts, [N_GENES, N_GENES + 3], axis=1)
    np.testing.assert_array_equal(matrix.counts.toarray(), genes[keep])
    assert matrix.counts.indices.dtype == matrix.counts.indptr.dtype == np.int32
    assert (matrix.counts.data > 0).all()
    assert axes.cell_ids.tolist() == bundle.cell_ids
    assert matrix.features_dropped == {"Negative Control Probe": 3, "Unassigned Codeword": 1}
    assert matrix.counts_dropped == {"Negative Control Probe": probes.sum(), "Unassigned Codeword": codewords.sum()}
    np.testing.assert_array_equal(matrix.per_cell["transcript_counts"], genes.sum(axis=1))
    np.testing.assert_array_equal(matrix.per_cell["control_probe_counts"], probes.sum(axis=1))
    np.testing.assert_array_equal(matrix.per_cell["total_counts"], bundle.counts.sum(axis=1))
    assert axes.var.index.is_unique
    assert axes.var["gene_ids"].tolist() == [f"ENSG{i:05d}" for i in range(N_GENES)]


def test_more_values_than_32_bits_can_count_have_64_bit_row_starts() -> None:
    assert blocks.index_type(2**31 - 1) is np.int32
    assert blocks.index_type(2**31) is np.int64


def test_no_chunk_is_decoded_twice() -> None:
    class Stored:
        shape, dtype, chunks = (1000,), np.dtype("i4"), (64,)
        asked: list[tuple[int, int]] = []  # noqa: RUF012

        def __getitem__(self, part: slice):
            self.asked.append((part.start, part.stop))
            return np.arange(part.start, part.stop, dtype="i4")

    front, at = blocks._Front(Stored()), 0
    for stop in (0, 3, 3, 200, 201, 640, 999, 1000):
        np.testing.assert_array_equal(front.take(at, stop), np.arange(at, stop))
        at = stop
    assert [start for start, _ in Stored.asked] == [0, *(stop for _, stop in Stored.asked[:-1])]
    assert all(start % 64 == 0 for start, _ in Stored.asked)


def test_a_list_longer_than_the_file_can_hold_is_refused_before_it_is_read(bundle) -> None:
    file = bundle.path / "cell_feature_matrix.h5"
    with h5py.File(file, "r+") as opened:
        del opened["matrix/data"]
        opened.create_dataset("matrix/data", shape=(10**10,), dtype=np.int32, chunks=(1024,))
    with pytest.raises(InputError, match=r"has a /matrix/data of 10000000000 entries, more than the file can hold"):
        read(file)


def test_a_type_without_a_column_leaves_no_total(bundle) -> None:
    kinds = np.array([b"Gene Expression"] * (N_GENES + 3) + [b"Something New"])
    bundle.edit_matrix(**{"features/feature_type": kinds})
    _, matrix = read(bundle.path / "cell_feature_matrix.h5")
    assert set(matrix.per_cell) == {"transcript_counts"}  # a total over unknown types is not that of cells.parquet
    assert matrix.counts.shape == (N_CELLS, N_GENES + 3)
