import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError


def test_keeps_exactly_the_cells_that_pass(toy: sd.SpatialData) -> None:
    dense = toy["table"].X.toarray()
    expected = (dense.sum(axis=1) >= 120) & ((dense > 0).sum(axis=1) >= 60)
    names = toy["table"].obs_names[expected]
    sp.pp.filter_cells(toy, min_counts=120, min_genes=60)
    assert toy["table"].obs_names.equals(names)
    report = toy["table"].uns["spatialsig"]["filter_cells"]
    assert (report["n_cells_before"], report["n_cells_after"]) == (len(dense), expected.sum())


def test_drops_controls_by_exact_feature_type(toy: sd.SpatialData) -> None:
    kinds = np.array(["Gene Expression"] * toy["table"].n_vars, dtype=object)
    kinds[:3] = ["Negative Control Probe", "Gene Expression Control", "Protein Expression"]
    toy["table"].var["feature_types"] = kinds
    genes = toy["table"].var_names[3:]
    sp.pp.filter_cells(toy)
    assert toy["table"].var_names.equals(genes)
    assert toy["table"].uns["spatialsig"]["filter_cells"]["n_controls_dropped"] == 3


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"min_counts": 10**6}, InputError, r"slide 'toy': none of \d+ cells has 1000000 counts"),
        (
            {"table_key": "cells"},
            KeyMissingError,
            r"`table_key='cells'` is not in the tables of slide 'toy'; available",
        ),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, error: type[Exception], message: str) -> None:
    before = toy["table"].shape
    with pytest.raises(error, match=message):
        sp.pp.filter_cells(toy, **kwargs)
    assert toy["table"].shape == before


def test_normalised_values_are_refused(toy: sd.SpatialData) -> None:
    toy["table"].X = toy["table"].X * 0.5
    with pytest.raises(InputError, match="must hold raw counts"):
        sp.pp.filter_cells(toy)
