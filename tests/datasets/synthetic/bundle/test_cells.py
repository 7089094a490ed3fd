from __future__ import annotations

import numpy as np

from spatialsig.datasets.synthetic.bundle.cells import make_cell_ids


def test_ids_are_unique_numbers_in_order_and_their_text() -> None:
    numbers, texts = make_cell_ids(np.random.default_rng(0), 2000)
    assert (np.diff(numbers.astype(np.int64)) > 0).all()
    digits = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
    assert [int(text.removesuffix("-1").translate(digits), 16) for text in texts] == numbers.tolist()
    assert all(len(text) == 10 and text.endswith("-1") for text in texts)
