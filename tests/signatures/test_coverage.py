import numpy as np
import pytest

from spatialsig.signatures import Coverage, coverage_table, measured_genes, overlap_matrix, weights

SETS = {"A": ["a", "b", "c", "d"], "B": ["d", "e"], "C": ["x", "y", "z"]}
PANELS = [["a", "b", "c", "e", "d"], ["c", "b", "a", "d", "x"]]


def test_only_genes_of_every_panel_count() -> None:
    assert measured_genes(SETS, PANELS) == {"A": ["a", "b", "c", "d"], "B": ["d"], "C": []}


def test_table_gives_the_reason() -> None:
    table = coverage_table(SETS, PANELS, coverage=Coverage(min_genes=2, min_fraction=0.5))
    assert table["n_genes_measured"].tolist() == [4, 1, 0]
    assert table.loc["B", "missing"] == "e"
    assert table["reason"].tolist() == ["", "1 genes measured, 2 wanted", "0 genes measured, 2 wanted"]


@pytest.mark.parametrize(
    ("n", "size", "ok"), [(3, 6, True), (2, 6, False), (2, 2, True), (1, 2, False), (4, 9, False), (5, 10, True)]
)
def test_gate(n: int, size: int, *, ok: bool) -> None:
    assert (Coverage().reason(n, size) == "") == ok


def test_overlap_counts_shared_genes() -> None:
    np.testing.assert_array_equal(overlap_matrix(SETS), [[4, 1, 0], [1, 2, 0], [0, 0, 3]])


def test_weights_average_the_measured_genes() -> None:
    np.testing.assert_array_equal(weights(SETS, ["d", "q", "a"]), [[0.5, 1, 0], [0, 0, 0], [0.5, 0, 0]])
