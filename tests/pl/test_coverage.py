"""The numbers in the cells are the numbers of genes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import spatialsig as sp
from spatialsig.errors import KeyMissingError
from spatialsig.pl._coverage import draw_coverage

SETS = {"T": ["A", "B", "C"], "B": ["C", "D"], "none": ["X"]}


def cells(axes):
    n = len(axes.get_xticks())
    texts = [text.get_text() for text in axes.texts]
    return [texts[i : i + n] for i in range(0, len(texts), n)]


def test_genes_of_each_slide_and_of_all():
    axes = draw_coverage(SETS, {"S1": ["A", "B", "C", "D"], "S2": ["A", "D", "Y"]}, Figure())
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["S1", "S2", "all slides"]
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == list(SETS)
    assert cells(axes[0]) == [["3/3", "1/3", "1/3"], ["2/2", "1/2", "1/2"], ["0/1", "0/1", "0/1"]]
    np.testing.assert_allclose(axes[0].images[0].get_array()[0], [1, 1 / 3, 1 / 3])
    assert cells(axes[1]) == [["", "1", ""], ["1", "", ""], ["", "", ""]]


def test_one_slide_has_one_column(toy):
    axes = sp.pl.coverage(toy, "seed", figure=Figure())
    assert len(axes[0].get_xticklabels()) == 1
    genes = set(toy.tables["table"].var_names)
    sets = sp.io.read_signatures("seed")
    expected = [[f"{len(genes & set(members))}/{len(members)}"] for members in sets.values()]
    assert cells(axes[0]) == expected


def test_a_slide_without_cells_is_named(toy):
    with pytest.raises(KeyMissingError, match=r"table_key='cells'"):
        sp.pl.coverage(toy, "seed", table_key="cells")
