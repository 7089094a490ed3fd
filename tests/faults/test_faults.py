"""Every fault of a bundle gets an error that names it and the way out, or is read without loss; nothing is written."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spatialsig as sp
from spatialsig import cli
from spatialsig.errors import SpatialsigError, SpatialsigWarning

from .conftest import Broken
from .others import OTHERS
from .table import EQUAL, FAULTS, OF_HE, WARNED, Fault

ALIKE = OF_HE | OTHERS  # of files that are alike in all layouts of one form: tried through the command line as well
ALL = FAULTS | ALIKE


def layout_by_default(name: str) -> str:
    """The layout that a fault is tried in by default: each of its own in turn."""
    layouts = ALL[name].layouts
    return layouts[list(ALL).index(name) % len(layouts)]


CASES = [
    pytest.param(name, layout, marks=() if layout == layout_by_default(name) else pytest.mark.slow)
    for name, fault in ALL.items()
    for layout in fault.layouts
]


@pytest.fixture(scope="session")
def references(originals):
    return {version: sp.io.read_xenium(path) for version, path in originals.items()}


def check_equal(sdata, reference, *, atol: float = 0) -> None:
    one, two = sdata["table"], reference["table"]
    assert one.obs["cell_id"].tolist() == two.obs["cell_id"].tolist()
    assert one.var_names.equals(two.var_names)
    assert (one.X != two.X).nnz == 0
    np.testing.assert_allclose(one.obsm["spatial"], two.obsm["spatial"], rtol=0, atol=atol)
    np.testing.assert_array_equal(sdata["cell_circles"]["radius"], reference["cell_circles"]["radius"])
    pixels = [s["he_image"]["scale0"]["image"].values for s in (sdata, reference)]
    np.testing.assert_array_equal(*pixels)


def check_read(answer: str, sdata, reference) -> None:
    """What else but equal an object may be."""
    table, whole = sdata["table"], reference["table"]
    if answer == EQUAL:
        check_equal(sdata, reference)
    elif answer == "read, in single precision":
        check_equal(sdata, reference, atol=1e-4)
    elif answer == "read, all zero":
        assert table.X.nnz == 0 or table.X.max() == 0
        assert table.shape == whole.shape
    elif answer == "read, symbols made unique":
        assert table.var_names.is_unique
        assert table.var["gene_ids"].tolist() == whole.var["gene_ids"].tolist()
    elif answer == "read, named by id":
        assert table.var_names[:3].tolist() == [*whole.var["gene_ids"].iloc[:2], whole.var_names[2]]
    elif answer == "read, median radius":
        assert sdata["cell_circles"]["radius"].nunique() == 1
    else:
        assert answer == WARNED


def options_of(fault: Fault, bundle: Broken, out: Path) -> dict[str, Any]:
    given = dict(fault.options)
    if "he_image" in given:
        given["he_image"] = bundle.path / given["he_image"]
    return given | ({"out": out} if "out" in given or not isinstance(fault.answer, str) else {})


def refused(bundle: Broken, options: dict[str, Any]) -> Exception:
    with pytest.raises(SpatialsigError) as error:
        sp.io.read_xenium(bundle.path, **options)
    return error.value


def refused_by_command(bundle: Broken, options: dict[str, Any], monkeypatch, capsys) -> BaseException | None:
    """The error behind what ``spatialsig import`` ends with: one line, its text, and code 1."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    monkeypatch.setattr(sys, "argv", ["spatialsig", "import", "--quiet", *words, "--", str(bundle.path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    error, said = end.value.__context__, capsys.readouterr().err
    assert f"error: {error}" in said
    assert "Traceback" not in said
    return error


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_fault(name, layout, broken, references, tmp_path, record_property, monkeypatch, capsys) -> None:
    fault = ALL[name].of(layout)
    bundle = broken(layout)
    fault.breaks(bundle)
    out = tmp_path / "out" / "s.zarr"
    options = options_of(fault, bundle, out)
    by_command = name in ALIKE and layout == layout_by_default(name) and set(options) <= {"he_image", "out"}
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
        error = refused_by_command(bundle, options, monkeypatch, capsys) if by_command else refused(bundle, options)
        assert isinstance(error, fault.answer)
        assert isinstance(error, SpatialsigError)
        said = [str(error)]
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        record_property("answer", fault.answer.__name__)
        record_property("door", "command" if by_command else "function")
    for word in fault.words:
        assert any(bundle.spelled(word) in text for text in said), (word, said)
