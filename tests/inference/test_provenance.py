"""What made the inputs of a model is compared wherever both sides say it."""

import numpy as np
import pytest
import spatialdata as sd

from spatialsig.errors import InputError
from spatialsig.inference.provenance import check_same, recorded
from spatialsig.slide.slides import Slide

OURS = {"embedding": {"model_sha256": "aa", "genes": ["A", "B"]}, "targets": {"method": "mean"}}


def test_every_difference_is_listed() -> None:
    other = {"embedding": {"model_sha256": "bb", "genes": ["B", "C", "D"]}, "targets": {"method": "ucell"}}
    with pytest.raises(InputError) as caught:
        check_same(OURS, other, slide="S1", other="the model")
    text = str(caught.value)
    assert "slide 'S1' does not fit the model:" in text
    assert "embedding `genes`: 2 wanted, 3 here, without A, with C, D" in text
    assert "embedding `model_sha256`: 'aa' wanted, 'bb' here" in text
    assert "targets `method`: 'mean' wanted, 'ucell' here" in text


def test_the_order_of_genes_counts_and_silence_does_not() -> None:
    with pytest.raises(InputError, match="`genes`: the same in another order"):
        check_same(OURS, {"embedding": {"genes": ["B", "A"]}}, slide="S1", other="x")
    check_same(OURS, {}, slide="S1", other="x")
    check_same({}, OURS, slide="S1", other="x")
    check_same(OURS, {"embedding": {"other": 1}}, slide="S1", other="x")


def test_tables_say_what_they_were_made_with(patched: sd.SpatialData) -> None:
    params = patched["signatures"].uns["spatialsig"]
    params["embed_cells"] = {"key": "X_ae", "model_sha256": "aa", "genes": np.array(["A", "B"]), "mean": np.zeros(2)}
    found = recorded(Slide(patched), embedding=("signatures", "X_ae"), features_key=None, targets_key="signatures")
    assert found["embedding"] == OURS["embedding"]
    assert found["targets"]["names"] == list(patched["signatures"].var_names)
    assert recorded(Slide(patched), embedding=("signatures", "X_pca"), features_key="none", targets_key="a/b") == {}
