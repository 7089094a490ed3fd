"""The toy slide has the elements, names and transformations of a slide read from disk."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import sparse
from spatialdata import get_pyramid_levels, read_zarr
from spatialdata.models import TableModel, get_table_keys
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError


@pytest.fixture(scope="module")
def toy():
    return sp.datasets.toy(sample="A", patient="Q")


def test_elements(toy):
    assert sorted(name for _, name, _ in toy.gen_elements()) == ["cell_circles", "he_image", "table"]
    assert toy.attrs["spatialsig"] == {
        "sample": "A", "patient": "Q", "um_per_global_px": 0.2125, "source": {"patient": "Q"},
    }  # fmt: skip


def test_image(toy):
    levels = [level.shape for level in get_pyramid_levels(toy["he_image"])]
    assert len(levels) == 3
    full = get_pyramid_levels(toy["he_image"], n=0)
    assert full.dims == ("c", "y", "x")
    assert full.dtype == np.uint8
    matrix = get_transformation(toy["he_image"]).matrix
    assert abs(matrix[0, 1]) > abs(matrix[0, 0])  # turned by about 90 degrees
    assert 0.2125 * np.sqrt(abs(np.linalg.det(matrix))) == pytest.approx(1.0)


def test_table(toy):
    table = toy["table"]
    TableModel().validate(table)
    assert get_table_keys(table) == ("cell_circles", "region", "cell_id")
    assert sparse.issparse(table.X)
    assert table.X.dtype == np.float32
    assert table.obsm["spatial"].dtype == np.float64
    assert set(table.obs["sample"]) == {"A"}
    assert set(table.obs["patient"]) == {"Q"}
    assert (table.obs[["sample", "patient", "region"]].dtypes == "category").all()
    assert not table.var_names.str.contains("Control|Codeword").any()
    assert table.obsm["true_scores"].shape[0] == table.n_obs


def test_circles_are_the_cells(toy):
    circles = toy["cell_circles"]
    assert list(circles.index) == list(toy["table"].obs["cell_id"])
    np.testing.assert_array_equal(np.c_[circles.geometry.x, circles.geometry.y], toy["table"].obsm["spatial"])
    scale = get_transformation(circles).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(np.diag(scale), [1 / 0.2125, 1 / 0.2125, 1])


def test_nuclei_lie_where_the_affine_puts_them(toy):
    table = toy["table"]
    matrix = get_transformation(toy["he_image"]).matrix
    he_px = (np.c_[table.obsm["spatial"] / 0.2125, np.ones(table.n_obs)] @ np.linalg.inv(matrix).T)[:, :2]
    np.testing.assert_allclose(he_px, table.obsm["he_px"], atol=1e-9)
    red = np.asarray(get_pyramid_levels(toy["he_image"], n=0))[0].astype(float)
    column, row = np.floor(he_px).astype(int).T
    assert red[row, column].mean() < red.mean() - 40


def test_it_survives_the_disk(toy, tmp_path):
    toy.write(tmp_path / "toy.zarr")
    again = read_zarr(tmp_path / "toy.zarr")
    assert again.attrs["spatialsig"] == toy.attrs["spatialsig"]
    np.testing.assert_array_equal(again["table"].X.toarray(), toy["table"].X.toarray())


def test_same_seed_same_slide(toy):
    same, other = sp.datasets.toy(), sp.datasets.toy(seed=1)
    np.testing.assert_array_equal(same["table"].X.toarray(), toy["table"].X.toarray())
    pixels = [np.asarray(get_pyramid_levels(slide["he_image"], n=0)) for slide in (same, toy, other)]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert pixels[2].shape != pixels[0].shape or (pixels[2] != pixels[0]).any()


def test_it_is_quick(toy):
    start = time.process_time()
    sp.datasets.toy()
    assert time.process_time() - start < 2.0  # 0.4 s on an idle core


def test_bad_size_is_refused():
    with pytest.raises(InputError, match="`size_um=0` of `sp.datasets.toy` must be greater than 0"):
        sp.datasets.toy(size_um=0)


def test_the_room_imports_nothing_heavy():
    code = "import sys, spatialsig.datasets as d; dir(d); print(sorted({'numba', 'torch', 'spatialdata'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute nothing"):
        sp.datasets.nothing  # noqa: B018


@pytest.mark.parametrize("size_um", [1, 40])
def test_a_slide_without_room_for_cells_is_refused(size_um: float) -> None:
    with pytest.raises(InputError, match="a slide of this `size_um` has . cells at .*; wanted at least 2"):
        sp.datasets.toy(size_um=size_um)
