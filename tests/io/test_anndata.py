from __future__ import annotations

import anndata as ad
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from scipy import sparse
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning

UM = 0.7


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(2)
    spots = ad.AnnData(
        sparse.csc_matrix(rng.poisson(2, (30, 5)).astype(np.int64)),
        obs=pd.DataFrame({"zone": pd.Categorical(["a", "b"] * 15)}, index=[f"{i}x{i}" for i in range(30)]),
        var=pd.DataFrame(index=["CD3D", "CD3E", "CD3E", "MKI67", "DCN"]),
    )
    spots.obsm["spatial"] = rng.uniform(0, [400, 300], (30, 2))
    spots.obsm["X_pca"] = rng.normal(size=(30, 3))
    spots.uns["spatial"] = {"lib": {"images": {"hires": np.zeros((2, 2, 3))}}}
    return spots


@pytest.mark.parametrize("where", ["array", "path", "store"])
def test_positions_land_on_their_pixels(adata, pixels, tmp_path, where) -> None:
    imagecodecs.imwrite(tmp_path / "section_C2.png", pixels)
    image = pixels if where == "array" else tmp_path / "section_C2.png"
    out = tmp_path / "s.zarr" if where == "store" else None
    sdata = sp.io.from_anndata(adata, image, um_per_px=UM, patient="C", spot_um=100, out=out)
    table = sdata["table"]
    np.testing.assert_array_equal(table.X.toarray(), adata.X.toarray())
    assert table.X.format == "csr"
    assert table.X.dtype == np.float32
    np.testing.assert_allclose(table.obsm["spatial"], adata.obsm["spatial"] * UM)
    np.testing.assert_allclose(table.obsm["X_pca"], adata.obsm["X_pca"])
    circles = sd.transform(sdata["cell_circles"], to_coordinate_system="global")
    np.testing.assert_allclose(np.c_[circles.geometry.x, circles.geometry.y], adata.obsm["spatial"])
    np.testing.assert_allclose(circles["radius"], 50 / UM)
    to_global = get_transformation(sdata["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_array_equal(to_global, np.eye(3))
    np.testing.assert_array_equal(sdata["he_image"]["scale0"]["image"].values, np.moveaxis(pixels, 2, 0))
    assert sdata.attrs["spatialsig"]["um_per_global_px"] == UM
    assert set(table.obs["sample"]) == {"slide" if where == "array" else "section_C2"}
    assert set(table.obs["patient"]) == {"C"}
    assert table.obs["cell_id"].tolist() == adata.obs_names.tolist()
    assert table.obs["zone"].tolist() == adata.obs["zone"].tolist()
    assert table.var_names.tolist() == ["CD3D", "CD3E", "CD3E-1", "MKI67", "DCN"]
    assert table.var["gene_ids"].tolist() == ["CD3D", "CD3E", "CD3E", "MKI67", "DCN"]
    assert sd.models.get_table_keys(table) == ("cell_circles", "region", "cell_id")
    assert table.uns["spatialsig"]["from_anndata"]["cells_outside_image"] == 0


def test_micrometres_are_taken_as_they_are(adata, pixels) -> None:
    px = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    adata.obsm["um"] = adata.obsm["spatial"] * UM
    um = sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key="um", spatial_unit="um")
    np.testing.assert_allclose(um["table"].obsm["spatial"], px["table"].obsm["spatial"])
    np.testing.assert_allclose(um["cell_circles"]["radius"], 5.0)


def test_positions_in_columns_of_obs(adata, pixels) -> None:
    expected = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    adata.obs["cx"], adata.obs["cy"] = adata.obsm.pop("spatial").T
    sdata = sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("cx", "cy"))
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], expected["table"].obsm["spatial"])
    with pytest.raises(
        KeyMissingError, match=r"`spatial_key='x'` is not in adata.obs; available: \['cx', 'cy', 'zone'\]"
    ):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("x", "cy"))
    with pytest.raises(InputError, match=r"adata.obs\[\['zone', 'cy'\]\] is object of shape \(30, 2\); wanted"):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("zone", "cy"))


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("unit", ["um", "px"])
def test_a_matrix_carries_positions_to_the_image(adata, pixels, unit, mirror) -> None:
    px = adata.obsm["spatial"]
    angle, scale, shift = 0.4, 1 / UM, np.array([-700.0, 5000.0])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, mirror])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    adata.obsm["spatial"] = (px - shift) @ np.linalg.inv(linear).T
    options = {} if unit == "um" else {"um_per_px": 0.3}
    sdata = sp.io.from_anndata(adata, pixels, spatial_unit=unit, to_image=matrix, **options)
    um = UM if unit == "um" else 0.3
    assert sp.io.mpp(sdata) == pytest.approx(um)
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], px * um)


def test_the_file_says_the_pixel_size_when_nobody_else_does(adata, pixels, tmp_path) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.35, "PhysicalSizeY": 0.35}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True, metadata=metadata)
    assert sp.io.mpp(sp.io.from_anndata(adata, tmp_path / "a.ome.tif")) == pytest.approx(0.35)
    with pytest.warns(SpatialsigWarning, match=r"`um_per_px=0.7` is used, but image .* says 0.35 um per px"):
        sp.io.from_anndata(adata, tmp_path / "a.ome.tif", um_per_px=UM)
    with pytest.raises(InputError, match=r"image 'array' does not say how large its pixels are; pass `um_per_px=`"):
        sp.io.from_anndata(adata, pixels)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"has shape \(2, 2\); wanted a \(3, 3\) affine"),
        (np.diag([1, 0, 1]), "is singular"),
        (np.ones((3, 3)), r"has the last row \[1.0, 1.0, 1.0\]"),
        (np.diag([np.nan, 1, 1]), "numbers that are not finite"),
    ],
)
def test_matrices_that_are_no_map_are_refused(adata, pixels, matrix, message) -> None:
    with pytest.raises(InputError, match=rf"`to_image` .*{message}"):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, to_image=matrix)


def test_the_input_stays_as_it_is(adata, pixels) -> None:
    before = adata.copy()
    sp.io.from_anndata(adata, pixels, um_per_px=UM)
    assert adata.obs.equals(before.obs)
    assert list(adata.obsm) == list(before.obsm)
    assert (adata.X != before.X).nnz == 0


def test_what_lies_outside_is_counted(adata, pixels) -> None:
    adata.obsm["spatial"][:5, 0] += 1000
    sdata = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    assert sdata["table"].uns["spatialsig"]["from_anndata"]["cells_outside_image"] == 5
    adata.obsm["spatial"][5:8, 1] -= 1000
    with pytest.raises(
        InputError, match=r"8 of 30 positions lie outside the image of 300 x 400 px .*spatial_unit='px'"
    ):
        sp.io.from_anndata(adata, pixels, um_per_px=UM)


def test_positions_that_are_lost_are_dropped_up_to_one_percent(adata, pixels) -> None:
    adata.var_names_make_unique()
    many = ad.concat([adata] * 4, index_unique="-")
    many.obsm["spatial"][7] = np.nan
    sdata = sp.io.from_anndata(many, pixels, um_per_px=UM)
    assert sdata["table"].n_obs == 119
    assert many.obs_names[7] not in sdata["table"].obs_names
    assert sdata["table"].uns["spatialsig"]["from_anndata"]["cells_dropped_without_position"] == 1
    many.obsm["spatial"][8] = np.inf
    with pytest.raises(InputError, match=r"2 of 120 positions in adata.obsm\['spatial'\] are not finite; at most 1%"):
        sp.io.from_anndata(many, pixels, um_per_px=UM)


def normalised(adata: ad.AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray())


FAULTS = {
    "normalised": (normalised, r"adata.X holds \d+ values that are no counts, as .*put raw counts into adata.X"),
    "negative": (lambda a: setattr(a, "X", -a.X), "values that are no counts, as -"),
    "NaN": (lambda a: setattr(a, "X", np.full(a.shape, np.nan)), "holds 150 values that are no counts, as nan"),
    "no X": (lambda a: setattr(a, "X", None), "30 observations and no X"),
    "one name twice": (lambda a: setattr(a, "obs_names", ["x"] * 30), "obs_names are not unique, as 'x'"),
    "three columns": (
        lambda a: a.obsm.update(spatial=np.zeros((30, 3))),
        r"obsm\['spatial'\] is float64 of shape \(30, 3\); wanted \(n_obs, 2\)",
    ),
    "text": (lambda a: a.obsm.update(spatial=np.full((30, 2), "1")), r"is <U1 of shape \(30, 2\); wanted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_and_nothing_is_written(adata, pixels, tmp_path, fault) -> None:
    spoil, message = FAULTS[fault]
    spoil(adata)
    with pytest.raises(InputError, match=message):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, out=tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"um_per_px": 0}, InputError, "`um_per_px` must be a finite number above 0"),
        ({"spot_um": -1}, InputError, "`spot_um` must be"),
        ({"spatial_key": "xy"}, KeyMissingError, r"`spatial_key='xy'` is not in adata.obsm; available: .*'spatial'"),
        ({"spatial_unit": "mm"}, InputError, r"`spatial_unit='mm'` is not known; choose one of \['px', 'um'\]"),
    ],
)
def test_arguments_are_checked(adata, pixels, change, error, message) -> None:
    with pytest.raises(error, match=message):
        sp.io.from_anndata(adata, pixels, **({"um_per_px": UM} | change))


def test_images_that_are_no_rgb_are_refused(adata, pixels) -> None:
    with pytest.raises(InputError, match=r"image 'array' is float64 with axes YXS"):
        sp.io.from_anndata(adata, pixels / 255, um_per_px=UM)
    with pytest.raises(InputError, match=r"image 'array' is uint8 with axes YX of shape"):
        sp.io.from_anndata(adata, pixels[..., 0], um_per_px=UM)
