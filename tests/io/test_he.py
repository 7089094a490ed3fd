from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, Scale, get_transformation

import spatialsig as sp
from spatialsig.errors import (
    AlignmentError,
    FileMissingError,
    InputError,
    KeyMissingError,
    SpatialsigWarning,
    StoreError,
)
from spatialsig.io.images.open_rgb import open_rgb
from spatialsig.io.images.tiff_level import TiffLevel
from spatialsig.store.stream import halve

SVS = Path(__file__).resolve().parents[3] / "shared" / "data" / "wsi" / "CMU-1-Small-Region.svs"


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1100, 1300, 3), dtype=np.uint8)


def values(sdata: sd.SpatialData, scale: int = 0) -> np.ndarray:
    return sdata["he_image"][f"scale{scale}"]["image"].transpose("y", "x", "c").values


@pytest.mark.parametrize("suffix", ["ome.tif", "tif", "png"])
def test_lossless_formats_keep_every_pixel(tmp_path, pixels, suffix) -> None:
    path = tmp_path / f"slide_7.{suffix}"
    imagecodecs.imwrite(path, pixels) if suffix == "png" else tifffile.imwrite(path, pixels, photometric="rgb")
    for out in (None, tmp_path / "s.zarr"):
        sdata = sp.io.read_he(path, um_per_px=0.5, out=out)
        np.testing.assert_array_equal(values(sdata), pixels)
        half = np.moveaxis(halve(np.moveaxis(pixels, 2, 0)), 0, 2)
        np.testing.assert_array_equal(values(sdata, 1), half)
        assert get_transformation(sdata["he_image"]) == Identity()
        attrs = sdata.attrs["spatialsig"]
        assert (attrs["sample"], attrs["patient"], attrs["um_per_global_px"]) == ("slide_7", "slide_7", 0.5)


def test_jpeg_is_read(tmp_path, pixels) -> None:
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg_encode(pixels, level=90))
    expected = imagecodecs.jpeg_decode((tmp_path / "a.jpg").read_bytes())
    np.testing.assert_array_equal(values(sp.io.read_he(tmp_path / "a.jpg", um_per_px=0.5)), expected)


def test_the_pyramid_of_the_file_is_used(tmp_path, pixels) -> None:
    own = np.ascontiguousarray(pixels[::2, ::2])  # no means, as ours would be
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        options = {"photometric": "rgb", "tile": (256, 256)}
        tif.write(pixels, subifds=1, metadata={"axes": "YXS"}, **options)
        tif.write(own, subfiletype=1, **options)
    lazy = sp.io.read_he(tmp_path / "a.ome.tif", um_per_px=0.5)
    np.testing.assert_array_equal(values(lazy, 1), own)
    streamed = sp.io.read_he(tmp_path / "a.ome.tif", um_per_px=0.5, out=tmp_path / "s.zarr")
    np.testing.assert_array_equal(values(streamed, 1), own)


def test_only_the_tiles_asked_for_are_decoded(tmp_path, pixels, monkeypatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.tile(pixels, (4, 4, 1)), photometric="rgb", tile=(256, 256))
    sdata = sp.io.read_he(tmp_path / "a.tif", um_per_px=0.5)
    decoded = []
    original = TiffLevel._segment

    def counting(self, page, plane, row, column):
        decoded.append((row, column))
        return original(self, page, plane, row, column)

    monkeypatch.setattr(TiffLevel, "_segment", counting)
    sdata["he_image"]["scale0"]["image"][:, :100, :100].values  # noqa: B018
    assert 0 < len(decoded) <= 64 < 21 * 18


def test_a_missing_pixel_size_asks_for_one(tmp_path, pixels) -> None:
    imagecodecs.imwrite(tmp_path / "a.png", pixels)
    with pytest.raises(InputError, match=r"a.png' does not say how large its pixels are; pass `um_per_px=`"):
        sp.io.read_he(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"`um_per_px=-1` .* must be greater than 0"):
        sp.io.read_he(tmp_path / "a.png", um_per_px=-1)


def test_a_pixel_size_that_contradicts_the_file_is_noticed(tmp_path, pixels) -> None:
    options = {"metadata": {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True, **options)
    assert sp.io.read_he(tmp_path / "a.ome.tif").attrs["spatialsig"]["um_per_global_px"] == 0.25
    with pytest.warns(SpatialsigWarning, match=r"says that its px are 0.25 um, but .* 0.5 um, 2 times"):
        sdata = sp.io.read_he(tmp_path / "a.ome.tif", um_per_px=0.5)
    assert sdata.attrs["spatialsig"]["um_per_global_px"] == 0.5


def test_pixels_that_are_not_square_are_refused_unless_told_otherwise(tmp_path, pixels) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True, metadata=metadata)
    with pytest.raises(InputError, match=r"its pixels are 0.25 x 0.5 um \(x, y\); wanted square ones"):
        sp.io.read_he(tmp_path / "a.ome.tif")
    with pytest.warns(SpatialsigWarning, match=r"says that its px are 0.25 x 0.5 um, but .* 0.25 um"):
        sp.io.read_he(tmp_path / "a.ome.tif", um_per_px=0.25)


def test_files_that_are_no_image_are_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match=r"H&E image: missing .*a.tif"):
        sp.io.read_he(tmp_path / "a.tif", um_per_px=1)
    (tmp_path / "a.bmp").write_bytes(b"BM")
    with pytest.raises(InputError, match=r"a.bmp' has an unknown format; wanted one of \['.tif'"):
        sp.io.read_he(tmp_path / "a.bmp", um_per_px=1)
    for name in ("a.png", "a.jpg", "a.svs"):
        (tmp_path / name).write_bytes(b"not an image")
        with pytest.raises(InputError, match=rf"{name}' (cannot be decoded|is not a whole TIFF)"):
            sp.io.read_he(tmp_path / name, um_per_px=1)
    imagecodecs.imwrite(tmp_path / "gray.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"gray.png' is uint8 with axes YX of shape \(9, 9\); wanted 8-bit RGB"):
        sp.io.read_he(tmp_path / "gray.png", um_per_px=1)


def test_a_taken_path_is_found_before_reading(tmp_path, pixels) -> None:
    imagecodecs.imwrite(tmp_path / "a.png", pixels[:50, :50])
    sp.io.read_he(tmp_path / "a.png", um_per_px=1, out=tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"already exists"):
        sp.io.read_he(tmp_path / "missing.png", um_per_px=1, out=tmp_path / "s.zarr")


@pytest.mark.real
def test_real_svs(tmp_path) -> None:
    if not SVS.exists():
        pytest.skip(f"real data {SVS.name} is not beside the checkout")
    sdata = sp.io.read_he(SVS, out=tmp_path / "s.zarr")
    assert sdata.attrs["spatialsig"]["um_per_global_px"] == pytest.approx(0.499)
    assert sdata.attrs["spatialsig"]["sample"] == "CMU-1-Small-Region"
    expected = tifffile.imread(SVS, series=0)
    assert expected.shape == (2967, 2220, 3)
    np.testing.assert_array_equal(values(sdata), expected)
    assert len(sdata["he_image"].children) == 3


@pytest.mark.real
def test_openslide_reads_the_same_pixels_of_a_real_svs() -> None:
    pytest.importorskip("openslide")
    if not SVS.exists():
        pytest.skip(f"real data {SVS.name} is not beside the checkout")
    ours, theirs = open_rgb(SVS), open_rgb(SVS, backend="openslide")
    assert ours.pixel_size == theirs.pixel_size == (0.499, 0.499)
    window = (slice(100, 1700), slice(300, 2220))
    assert np.abs(ours.pixels[window].astype(int) - theirs.pixels[window]).max() <= 2


@pytest.mark.real
def test_a_real_section_comes_in_lazily(tmp_path) -> None:
    jpeg = SVS.parents[1] / "her2st" / "images" / "B4.jpg"
    if not jpeg.exists():
        pytest.skip("real data her2st is not beside the checkout")
    sdata = sp.io.read_he(jpeg, um_per_px=0.68, patient="B")
    assert sp.io.mpp(sdata) == 0.68
    full = sdata["he_image"]["scale0"]["image"]
    height, width = full.shape[1:]
    assert min(height, width) > 5000
    middle = full[:, height // 2 : height // 2 + 64, width // 2 : width // 2 + 64].values
    assert 60 < middle.mean() < 250


def image(transformation=None) -> sd.SpatialData:
    element = Image2DModel.parse(
        np.zeros((3, 64, 64), np.uint8),
        dims=("c", "y", "x"),
        transformations={
            "global" if transformation is not None else "elsewhere": transformation or Scale([2.0], ("x",))
        },
    )
    return sd.SpatialData.init_from_elements({"he_image": element})


def test_a_turned_mirrored_image_has_the_size_of_its_scale(bundle) -> None:
    scale = np.sqrt(abs(np.linalg.det(bundle.matrix[:2, :2])))
    assert sp.io.mpp(sp.io.read_xenium(bundle.path)) == pytest.approx(0.2125 * scale)


def test_the_object_of_the_unmodified_reader_gives_the_same(tmp_path) -> None:
    from spatialdata_io import xenium

    sp.datasets.synthetic_xenium(tmp_path, n_slides=2, size_um=200.0, he_um_per_px=0.31, transcripts=False)
    bundle = tmp_path / "S2"  # mirrored
    off = ["cells_boundaries", "nucleus_boundaries", "cells_labels", "nucleus_labels", "transcripts"]
    off += ["morphology_mip", "morphology_focus"]
    theirs = xenium(bundle, cells_as_circles=True, **dict.fromkeys(off, False))
    (key,) = theirs.images
    assert "spatialsig" not in theirs.attrs
    assert sp.io.mpp(theirs, image_key=key) == pytest.approx(0.31, rel=1e-3)
    assert sp.io.mpp(theirs, image_key=key) == pytest.approx(sp.io.mpp(sp.io.read_xenium(bundle)))


def test_a_path_is_read(tmp_path, bundle) -> None:
    sp.io.read_he(bundle.he_image, um_per_px=0.4, out=tmp_path / "s.zarr")
    assert sp.io.mpp(tmp_path / "s.zarr") == 0.4


def test_what_is_missing_is_said(toy, tmp_path) -> None:
    with pytest.raises(KeyMissingError, match=r"`image_key='he'` is not in the images of slide 'toy'; available"):
        sp.io.mpp(toy, image_key="he")
    with pytest.raises(AlignmentError, match=r"micrometres per pixel of `global` are unknown"):
        sp.io.mpp(image(Affine(np.eye(3), ("x", "y"), ("x", "y"))))
    with pytest.raises(AlignmentError, match=r"image 'he_image' has no transformation to 'global'"):
        sp.io.mpp(image())
    sp.io.write(toy, tmp_path / "a.zarr")
    sp.io.write(toy, tmp_path / "b.zarr")
    cohort = sp.Cohort({"a": tmp_path / "a.zarr", "b": tmp_path / "b.zarr"})
    with pytest.raises(InputError, match=r"`data` holds 2 slides; wanted one"):
        sp.io.mpp(cohort)
