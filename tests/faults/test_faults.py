"""Every fault of a bundle gets an error that names it and the way out, or is read without loss; nothing is written."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import spatialsig as sp
from spatialsig.errors import SpatialsigError, SpatialsigWarning

from .table import EQUAL, FAULTS, WARNED, Fault

CASES = [(name, layout) for name, fault in FAULTS.items() for layout in fault.layouts]


@pytest.fixture(scope="session")
def references(originals):
    return {version: sp.io.read_xenium(path) for version, path in originals.items()}


def check_equal(sdata, reference) -> None:
    one, two = sdata["table"], reference["table"]
    assert one.obs["cell_id"].tolist() == two.obs["cell_id"].tolist()
    assert one.var_names.equals(two.var_names)
    assert (one.X != two.X).nnz == 0
    np.testing.assert_array_equal(one.obsm["spatial"], two.obsm["spatial"])
    np.testing.assert_array_equal(sdata["cell_circles"]["radius"], reference["cell_circles"]["radius"])
    pixels = [s["he_image"]["scale0"]["image"].values for s in (sdata, reference)]
    np.testing.assert_array_equal(*pixels)


def check_read(answer: str, sdata, reference) -> None:
    """What else but equal an object may be."""
    if answer == EQUAL:
        check_equal(sdata, reference)
    elif answer == "read, all zero":
        assert sdata["table"].X.nnz == 0 or sdata["table"].X.max() == 0
        assert sdata["table"].shape == reference["table"].shape
    elif answer == "read, symbols made unique":
        assert sdata["table"].var_names.is_unique
        assert sdata["table"].var["gene_ids"].tolist() == reference["table"].var["gene_ids"].tolist()
    elif answer == "read, median radius":
        assert sdata["cell_circles"]["radius"].nunique() == 1


def options_of(fault: Fault, broken) -> dict:
    given = dict(fault.options)
    if "he_image" in given:
        given["he_image"] = broken.path / given["he_image"]
    return given


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_fault(name, layout, broken, references, tmp_path, record_property) -> None:
    fault = FAULTS[name].of(layout)
    bundle = broken(layout)
    fault.breaks(bundle)
    options, out = options_of(fault, bundle), tmp_path / "out" / "s.zarr"
    record_property("fault", name)
    record_property("layout", layout)
    if isinstance(fault.answer, str):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sdata = sp.io.read_xenium(bundle.path, **options)
        said = [str(w.message) for w in caught if issubclass(w.category, SpatialsigWarning)]
        assert bool(said) == (fault.answer == WARNED), said
        check_read(fault.answer, sdata, references[layout])
        record_property("answer", fault.answer)
    else:
        with pytest.raises(fault.answer) as error:
            sp.io.read_xenium(bundle.path, **options, out=out)
        assert isinstance(error.value, SpatialsigError)
        said = [str(error.value)]
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        record_property("answer", fault.answer.__name__)
    for word in fault.words:
        assert any(bundle.spelled(word) in text for text in said), (word, said)
