"""Counts come in the order of the genes asked for, and are never made up."""

import numpy as np
import pytest
import spatialdata as sd

from spatialsig.errors import InputError
from spatialsig.slide.counts import column_indices, common_genes, counts_of
from spatialsig.slide.slides import Slide


def test_columns_follow_the_genes(toy: sd.SpatialData) -> None:
    frame = toy["table"].to_df()
    genes = [frame.columns[k] for k in (9, 2, 5)]
    counts = counts_of(Slide(toy), "table", genes)
    assert counts.format == "csr"
    np.testing.assert_array_equal(counts.toarray(), frame[genes].to_numpy())
    np.testing.assert_array_equal(column_indices(toy["table"], genes, slide=Slide(toy)), [9, 2, 5])


def test_all_genes_are_the_table_itself(toy: sd.SpatialData) -> None:
    expected = toy["table"].to_df().to_numpy()
    np.testing.assert_array_equal(counts_of(Slide(toy), "table").toarray(), expected)
    np.testing.assert_array_equal(counts_of(Slide(toy), "table", list(toy["table"].var_names)).toarray(), expected)


def test_dense_counts_become_sparse(toy: sd.SpatialData) -> None:
    dense = toy["table"].to_df().to_numpy()
    toy["table"].X = dense
    counts = counts_of(Slide(toy), "table")
    assert counts.nnz == np.count_nonzero(dense)


def test_genes_that_are_not_measured_are_named_and_not_zero(toy: sd.SpatialData) -> None:
    first = toy["table"].var_names[0]
    message = r"slide 'toy' does not measure 2 of 3 genes: \['NONE1', 'NONE2'\]"
    with pytest.raises(InputError, match=message):
        counts_of(Slide(toy), "table", ["NONE1", first, "NONE2"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "found values from 0.5 to"), (-1.0, "found values from -1 to"), (np.nan, r"1 of \d+ are missing \(NaN\)\.")],
)
def test_what_is_no_count_is_refused(toy: sd.SpatialData, value: float, shown: str) -> None:
    toy["table"].X.data[17] = value
    message = rf"slide 'toy': tables\['table'\].X must hold raw counts .*; {shown}"
    with pytest.raises(InputError, match=message):
        counts_of(Slide(toy), "table")


def test_common_genes_keep_the_order_of_the_first_panel() -> None:
    assert common_genes([["C", "A", "B", "D"], ["A", "B", "C", "E"], ["B", "C", "A"]]) == ["C", "A", "B"]
    assert common_genes([["B", "A"]]) == ["B", "A"]
    assert common_genes([["A"], ["B"]]) == []
