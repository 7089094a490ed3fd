"""What is no count and no position: one fault after another, against every function that reads counts or positions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, SpatialsigWarning
from spatialsig.slide.slides import Slide

XY = ("x", "y")
NO_CELLS = r"is float32 of shape \(0, \d+\); wanted raw counts|is empty: there are no cells|no patch has 5 cells"


@pytest.fixture(scope="module")
def study(_toy: sd.SpatialData) -> sd.SpatialData:
    """A slide on which every function has been called once, without the record of what was made from what."""
    sdata = sd.deepcopy(_toy)
    sp.pp.split(sdata, by="block", n_folds=2, block_um=100, buffer_um=0)
    sp.pp.make_patches(sdata, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(sdata)
    sp.tl.score_cells(sdata, "seed")
    sp.tl.aggregate_patches(sdata, min_cells=5, use_rep=None)
    del sdata.attrs["spatialsig"]["lineage"]
    return sdata


@pytest.fixture(scope="module")
def autoencoder(study: sd.SpatialData) -> sp.models.Autoencoder:
    return sp.tl.train_autoencoder(study, max_epochs=1, n_latent=2, hidden=(4,))


def copy_of(study: sd.SpatialData) -> sd.SpatialData:
    """The same slide, whose tables and attributes may be changed."""
    elements = {name: element for _, name, element in study.gen_elements()}
    tables = {name: table.copy() for name, table in study.tables.items()}
    return sd.SpatialData.init_from_elements(elements | tables, attrs=copy.deepcopy(study.attrs))


def unpatched(sdata: sd.SpatialData) -> sd.SpatialData:
    """The same tables on a slide without patches, which may be aligned anew."""
    return sd.SpatialData.init_from_elements(
        {key: sdata[key] for key in ("he_image", "cell_circles", "table")}, attrs=sdata.attrs
    )


COUNTS: dict[str, Callable[[sd.SpatialData, Any], Any]] = {
    "filter_cells": lambda s, _: sp.pp.filter_cells(s, min_counts=1, min_genes=1),
    "normalize": lambda s, _: sp.pp.normalize(s),
    **{
        f"hvg {flavor}": lambda s, _, flavor=flavor: sp.pp.highly_variable_genes(s, n_top_genes=5, flavor=flavor)
        for flavor in ("seed", "seurat", "cell_ranger")
    },
    "train_autoencoder": lambda s, _: sp.tl.train_autoencoder(s, max_epochs=1, n_latent=2, hidden=(4,)),
    "embed_cells": lambda s, model: sp.tl.embed_cells(s, model),
    **{
        f"score {method}": lambda s, _, method=method: sp.tl.score_cells(s, "seed", method=method)
        for method in ("zscore", "score_genes", "ucell")
    },
    **{
        f"aggregate {stat}": lambda s, _, stat=stat: sp.tl.aggregate_patches(s, stat=stat, min_cells=5, use_rep=None)
        for stat in ("mean", "pseudobulk")
    },
    "noise_ceiling": lambda s, _: sp.tl.noise_ceiling(s, n_repeats=1),
}
POSITIONS: dict[str, Callable[[sd.SpatialData], Any]] = {
    "split block": lambda s: sp.pp.split(s, by="block", n_folds=2, block_um=100, buffer_um=0),
    "assign_cells": lambda s: sp.pp.assign_cells(s),
    "make_patches around": lambda s: sp.pp.make_patches(s, patch_px=28, um_per_px=2.0, around="table"),
    "make_patches min_cells": lambda s: sp.pp.make_patches(s, patch_px=28, um_per_px=2.0, min_cells=1),
    "qc_alignment": lambda s: sp.pp.qc_alignment(s, n_regions=1),
    "align_he": lambda s: sp.pp.align_he(
        unpatched(s), matrix=get_transformation(s["he_image"]).to_affine_matrix(XY, XY)
    ),
    "pl.patches": lambda s: sp.pl.patches(s, cells_key="table"),
    "pl.alignment": lambda s: sp.pl.alignment(s, n_windows=1),
    "highly_variable_genes": lambda s: sp.pp.highly_variable_genes(s, n_top_genes=5),
    "score_cells": lambda s: sp.tl.score_cells(s, "seed"),
    "train_autoencoder": lambda s: sp.tl.train_autoencoder(s, max_epochs=1, n_latent=2, hidden=(4,)),
}


def one_value(value: float) -> Callable[[sd.SpatialData], None]:
    def spoil(sdata: sd.SpatialData) -> None:
        counts = sdata["table"].X.copy()
        counts.data = counts.data.astype(np.float64)
        counts.data[17] = value
        sdata["table"].X = counts

    return spoil


def without_cells(sdata: sd.SpatialData) -> None:
    table = sdata["table"][:0].copy()
    del table.uns["spatialdata_attrs"]  # a table that annotates no region
    del sdata["table"]
    sdata["table"] = table


def lazily(sdata: sd.SpatialData) -> None:
    sdata["table"].X = da.from_array(sdata["table"].X.toarray())


def of_two_slides(sdata: sd.SpatialData) -> None:
    del sdata.attrs["spatialsig"]["sample"]
    sdata["table"].obs["sample"] = pd.Categorical(
        ["A", "B"] * (sdata["table"].n_obs // 2) + ["A"] * (sdata["table"].n_obs % 2)
    )


BAD_COUNTS: dict[str, tuple[Callable[[sd.SpatialData], None], str]] = {
    "infinite": (one_value(np.inf), r"slide 'toy': tables\['table'\].X must hold raw counts .* to inf. Put the counts"),
    "NaN": (one_value(np.nan), "must hold raw counts"),
    "negative": (one_value(-1), "must hold raw counts .* from -1 to"),
    "fractional": (one_value(0.5), "must hold raw counts"),
    "near 2**63": (one_value(2.0**63), r"whole numbers from 0 to 16,777,216\); found values from .* to 9.22337e\+18"),
    "no cells": (without_cells, NO_CELLS),
    "text": (
        lambda s: setattr(s["table"], "X", s["table"].X.toarray().astype(object)),
        r"is object of shape .* wanted raw",
    ),
    "dask": (lazily, r"tables\['table'\].X is not in memory: load it first"),
    "two slides": (
        of_two_slides,
        r"tables\['table'\] holds several slides: 'sample' is A, B. .*spatialdata.concatenate",
    ),
}


@pytest.mark.parametrize("function", COUNTS)
@pytest.mark.parametrize("fault", BAD_COUNTS)
def test_what_is_no_count_is_refused_by_every_reader(
    study: sd.SpatialData, autoencoder: sp.models.Autoencoder, fault: str, function: str
) -> None:
    sdata = copy_of(study)
    spoil, message = BAD_COUNTS[fault]
    spoil(sdata)
    before = set(sdata["table"].obsm), set(sdata["table"].var), set(sdata["table"].layers), sdata["signatures"]
    with pytest.raises(InputError, match=message):
        COUNTS[function](sdata, autoencoder)
    assert before == (
        set(sdata["table"].obsm), set(sdata["table"].var), set(sdata["table"].layers), sdata["signatures"],
    )  # fmt: skip


def at(share: float, value: float = np.nan) -> Callable[[sd.SpatialData], None]:
    def spoil(sdata: sd.SpatialData) -> None:
        xy = sdata["table"].obsm["spatial"].copy()
        xy[: int(share * len(xy)), 0] = value
        sdata["table"].obsm["spatial"] = xy

    return spoil


def put(change: Callable[[np.ndarray], Any]) -> Callable[[sd.SpatialData], None]:
    return lambda sdata: sdata["table"].obsm.update(spatial=change(sdata["table"].obsm["spatial"]))


BAD_POSITIONS: dict[str, tuple[Callable[[sd.SpatialData], None], str]] = {
    "many NaN": (at(0.1), r"tables\['table'\].obsm\['spatial'\]: \d+ of \d+ positions are not finite; at most 1%"),
    "many infinite": (at(0.1, np.inf), "positions are not finite; at most 1%"),
    "three columns": (
        put(lambda xy: np.c_[xy, xy[:, 0]]),
        r"of shape \(\d+, 3\); wanted \(n_obs, 2\) numbers x, y. Keep",
    ),
    "one column": (put(lambda xy: xy[:, :1]), r"of shape \(\d+, 1\); wanted \(n_obs, 2\)"),
    "text": (put(lambda xy: xy.astype(str)), r"is <U\d+ of shape .*; wanted \(n_obs, 2\) numbers"),
    "none": (lambda s: s["table"].obsm.pop("spatial"), r"`obsm='spatial'` is not in the obsm of slide 'toy'"),
    "dask": (put(da.from_array), r"obsm\['spatial'\] is not in memory: load it first"),
    "no cells": (without_cells, NO_CELLS),
    "two slides": (of_two_slides, "holds several slides: 'sample' is A, B"),
}


@pytest.mark.parametrize("function", POSITIONS)
@pytest.mark.parametrize("fault", BAD_POSITIONS)
def test_what_is_no_position_is_refused_by_every_reader(study: sd.SpatialData, fault: str, function: str) -> None:
    if (fault, function) == ("none", "align_he"):
        return  # which looks at positions where there are some
    sdata = copy_of(study)
    spoil, message = BAD_POSITIONS[fault]
    spoil(sdata)
    before = set(sdata["table"].obsm), sdata["patches"], sdata.attrs["spatialsig"]["split"].copy()
    with pytest.raises((InputError, sp.errors.KeyMissingError), match=message):
        POSITIONS[function](sdata)
    assert set(sdata["table"].obsm) == before[0]
    assert sdata["patches"] is before[1]
    assert sdata.attrs["spatialsig"]["split"] == before[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("function", POSITIONS)
def test_a_few_cells_without_position_are_left_out_and_counted(
    study: sd.SpatialData, function: str, value: float
) -> None:
    sdata = copy_of(study)
    at(0.005, value)(sdata)
    n = int(0.005 * sdata["table"].n_obs)
    with pytest.warns(
        SpatialsigWarning,
        match=rf"{n} of {sdata['table'].n_obs} positions are not finite( or beyond 1e\+09)?; these cells are",
    ):
        POSITIONS[function](sdata)
    assert (sdata["table"].obs["fold"][:n] == -1).all() or not function.startswith("split")
    assert not sdata["table"].obsm["patch_membership"][:n].sum() or function != "assign_cells"


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "small", None])
@pytest.mark.parametrize(
    "function", ["split block", "assign_cells", "make_patches min_cells", "qc_alignment", "pl.alignment"]
)
def test_a_length_of_global_that_is_none_is_named(study: sd.SpatialData, function: str, value: Any) -> None:
    sdata = copy_of(study)
    sdata.attrs["spatialsig"]["um_per_global_px"] = value
    if value is None:  # known from the shapes
        POSITIONS[function](sdata)
        return
    with pytest.raises(
        AlignmentError, match=r"gives .* um per pixel of `global`; wanted a number above 0. Set sdata.attrs"
    ):
        POSITIONS[function](sdata)


@pytest.mark.parametrize("function", ["hvg seed", "train_autoencoder", "score zscore"])
def test_two_genes_of_one_name_are_named(
    study: sd.SpatialData, autoencoder: sp.models.Autoencoder, function: str
) -> None:
    sdata = copy_of(study)
    names = sdata["table"].var_names.to_numpy(object).copy()
    names[1] = names[0]
    sdata["table"].var_names = names
    with pytest.raises(InputError, match=rf"1 name\(s\) of several genes: {names[0]}. Call `var_names"):
        COUNTS[function](sdata, autoencoder)


def test_objects_put_together_say_so(toy: sd.SpatialData) -> None:
    slides = {}
    for name in ("A", "B"):
        slides[name] = sd.deepcopy(toy)
        del slides[name]["table"].obsm["true_scores"]  # a frame, which `concatenate` cannot rename
        slides[name]["table"].obs["sample"] = pd.Categorical([name] * slides[name]["table"].n_obs)
    both = sd.concatenate(slides, concatenate_tables=True)
    for function in ("split block", "score_cells"):
        with pytest.raises(InputError, match=r"holds several slides: 'sample' is A, B. .*or a `sp.Cohort` of stores"):
            POSITIONS[function](both)
    assert Slide(toy).name == "toy"
    assert sparse.issparse(toy["table"].X)
