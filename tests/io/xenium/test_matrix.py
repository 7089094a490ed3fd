from __future__ import annotations

import h5py
import numpy as np
import pytest

from spatialsig.errors import InputError
from spatialsig.io.xenium.matrix import read_matrix

from ..conftest import N_CELLS, N_GENES  # noqa: TID252 - the bundle of the room above


def test_counts_sums_and_what_was_left_out_are_those_of_the_dense_matrix(bundle) -> None:
    matrix = read_matrix(bundle.path / "cell_feature_matrix.h5")
    genes, probes, codewords = np.split(bundle.counts, [N_GENES, N_GENES + 3], axis=1)
    np.testing.assert_array_equal(matrix.counts.toarray(), genes)
    assert matrix.cell_ids.tolist() == bundle.cell_ids
    assert matrix.features_dropped == {"Negative Control Probe": 3, "Unassigned Codeword": 1}
    assert matrix.counts_dropped == {"Negative Control Probe": probes.sum(), "Unassigned Codeword": codewords.sum()}
    np.testing.assert_array_equal(matrix.per_cell["transcript_counts"], genes.sum(axis=1))
    np.testing.assert_array_equal(matrix.per_cell["control_probe_counts"], probes.sum(axis=1))
    np.testing.assert_array_equal(matrix.per_cell["total_counts"], bundle.counts.sum(axis=1))
    assert matrix.var.index.is_unique
    assert matrix.var["gene_ids"].tolist() == [f"ENSG{i:05d}" for i in range(N_GENES)]


def test_a_list_longer_than_the_file_can_hold_is_refused_before_it_is_read(bundle) -> None:
    file = bundle.path / "cell_feature_matrix.h5"
    with h5py.File(file, "r+") as opened:
        del opened["matrix/data"]
        opened.create_dataset("matrix/data", shape=(10**10,), dtype=np.int32, chunks=(1024,))
    with pytest.raises(InputError, match=r"has a /matrix/data of 10000000000 entries, more than the file can hold"):
        read_matrix(file)


def test_a_type_without_a_column_leaves_no_total(bundle) -> None:
    kinds = np.array([b"Gene Expression"] * (N_GENES + 3) + [b"Something New"])
    bundle.edit_matrix(**{"features/feature_type": kinds})
    matrix = read_matrix(bundle.path / "cell_feature_matrix.h5")
    assert set(matrix.per_cell) == {"transcript_counts"}  # a total over unknown types is not that of cells.parquet
    assert matrix.counts.shape == (N_CELLS, N_GENES + 3)
