from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.xenium.segmentation import Segmentation, cell_names, check_cells


def test_numbers_become_the_letters_of_the_instrument() -> None:
    numbers = np.array([0, 1, 16, 0x12345678, 0xFFFFFFFF], np.uint32)
    expected = [f"{n:08x}".translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) + "-3" for n in numbers]
    assert cell_names(np.stack([numbers, np.full(5, 3, np.uint32)], axis=1)).tolist() == expected
    assert cell_names(numbers).tolist() == [str(n) for n in numbers]


@pytest.fixture
def both(tmp_path):
    """The same three cells in the zip and, in another order, in ``cells.parquet``."""
    summary = pd.DataFrame({"x_centroid": [1.0, 2.0, 3.0], "cell_area": [10.0, 20.0, 30.0]})
    zipped = Segmentation(tmp_path / "z", "2 and later", np.array(["a", "b", "c"]), summary, 0.2, frozenset({"DAPI"}))
    cells = pd.DataFrame({"cell_id": ["c", "a", "b"], "segmentation_method": "DAPI"})
    return zipped, cells.assign(x_centroid=[3.0, 1.0, 2.0], cell_area=[30.0, 10.0, 20.0])


def test_the_same_cells_in_another_order_agree(both) -> None:
    check_cells(*both, name="cells", needed=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_centroid": [3.0, 1.0, 2.5]}, r"x_centroid differs for 1 cells, as 2.5 against 2 for 'b'"),
        ({"cell_area": [30.0, np.nan, 20.0]}, r"cell_area differs for 1 cells, as 0 against 10 for 'a'"),
        ({"cell_id": ["c", "x", "b"]}, r"1 of its 3 cells are missing there and 1 are only there"),
    ],
)
def test_what_differs_is_named_as_an_error_or_a_warning(both, change, message) -> None:
    zipped, cells = both
    with pytest.raises(InputError, match=message):
        check_cells(zipped, cells.assign(**change), name="cells", needed=True)
    with pytest.warns(SpatialsigWarning, match=message):
        check_cells(zipped, cells.assign(**change), name="cells", needed=False)


def test_an_id_that_stands_there_twice_is_named(both) -> None:
    zipped, cells = both
    twice = replace(zipped, cell_ids=np.array(["a", "b", "b"]))
    with pytest.raises(
        InputError, match=r"1 ids stand there twice; 1 of its 3 cells are missing there and 1 are only there"
    ):
        check_cells(twice, cells, name="cells", needed=True)


def test_a_cell_without_a_position_is_no_difference_but_an_unknown_method_is(both) -> None:
    zipped, cells = both
    check_cells(zipped, cells.assign(x_centroid=[3.0, np.nan, 2.0]), name="cells", needed=True)
    with pytest.warns(SpatialsigWarning, match=r"is 'by hand' for 3 cells, which .*z' does not list: \['DAPI'\]"):
        check_cells(zipped, cells.assign(segmentation_method="by hand"), name="cells", needed=True)
