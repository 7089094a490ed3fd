"""The size of px that a file states, against that of the place its image gets: wherever the two meet."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import spatialsig as sp
from spatialsig.errors import SpatialsigWarning

from .conftest import PIXEL_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

PLACED = 0.9 * PIXEL_SIZE  # what the alignment of the bundle implies


def _read_xenium(bundle, um: float) -> None:
    sdata = sp.io.read_xenium(bundle.path)
    np.testing.assert_allclose(sdata.attrs["spatialsig"]["file_um_per_px"]["he_image"], um)


def _into_a_store(bundle, _um: float) -> None:
    sp.io.read_xenium(bundle.path, out=bundle.path.parent / "s.zarr")


def _align_he(bundle, _um: float) -> None:
    out = bundle.path.parent / "s.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        sp.io.read_xenium(bundle.path, out=out)
    sp.pp.align_he(out, matrix=bundle.matrix)


def _read_he(bundle, _um: float) -> None:
    sp.io.read_he(bundle.he_image, um_per_px=PLACED)


def _spots(bundle) -> ad.AnnData:
    return ad.AnnData(np.ones((2, 1), np.float32), obsm={"spatial": np.array([[30.0, 40], [70, 20]])})


def _from_anndata(bundle, _um: float) -> None:
    sp.io.from_anndata(_spots(bundle), bundle.he_image, um_per_px=PLACED)


def _from_anndata_by_matrix(bundle, _um: float) -> None:
    to_image = np.diag([1 / PLACED, 1 / PLACED, 1])
    sp.io.from_anndata(_spots(bundle), bundle.he_image, spatial_unit="um", to_image=to_image)


PLACES = (_read_xenium, _into_a_store, _align_he, _read_he, _from_anndata, _from_anndata_by_matrix)


def _state(bundle, um: float) -> None:
    sizes = {"PhysicalSizeX": um, "PhysicalSizeY": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    bundle.write_he(bundle.pixels, metadata={"axes": "YXS", **sizes})


@pytest.mark.parametrize("place", PLACES)
def test_a_contradiction_is_said_with_both_numbers(bundle, place: Callable[..., None]) -> None:
    _state(bundle, PLACED / 2)
    with pytest.warns(
        SpatialsigWarning, match=r"says that its px are 0.0956[23] um, .* they are 0.1913 um, 2 times that"
    ):
        place(bundle, PLACED / 2)


@pytest.mark.parametrize("place", PLACES)
def test_sizes_that_agree_to_two_percent_are_no_news(bundle, place: Callable[..., None]) -> None:
    _state(bundle, PLACED * 1.015)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        place(bundle, PLACED * 1.015)
