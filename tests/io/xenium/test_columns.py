from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spatialsig.errors import InputError
from spatialsig.io.xenium.columns import as_text, id_kind


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ([1, 20], ["1", "20"]),
        ([1.0, 20.0], ["1", "20"]),
        ([b"aaab-1", b"aaac-1"], ["aaab-1", "aaac-1"]),
        (["a", "b"], ["a", "b"]),
        (np.array([b"x\xc3\xa9"], object), ["xé"]),
        (np.array([], "S4"), []),
    ],
)
def test_ids_become_the_text_they_mean(stored, text) -> None:
    assert as_text(stored, name="cells").tolist() == text


def test_fractions_stay_and_bytes_that_are_no_text_are_refused() -> None:
    assert as_text([1.5, 2.0], name="cells").tolist() == ["1.5", "2.0"]
    with pytest.raises(InputError, match=r"'cells: cell_id' holds bytes that are no text"):
        as_text([b"\xff\xfe"], name="cells: cell_id")


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (pa.int32(), "integer"),
        (pa.float64(), "integer"),
        (pa.string(), "text"),
        (pa.large_string(), "text"),
        (pa.binary(), "bytes"),
        (pa.dictionary(pa.int8(), pa.string()), "text"),
        (pa.dictionary(pa.int8(), pa.binary()), "bytes"),
    ],
)
def test_the_storage_of_a_column_is_recognised_behind_a_dictionary(dtype, kind) -> None:
    assert id_kind(dtype) == kind
