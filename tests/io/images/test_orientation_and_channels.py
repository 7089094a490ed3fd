"""Turned by a tag, or with channels in another order: applied, refused or told by everything that reads an image."""

from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from PIL import Image
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity
from xarray import DataArray

import spatialsig as sp
from spatialsig.data.pyramid import image_levels
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.images.open_rgb import open_rgb

from .conftest import smooth, whole
from .test_ngff import write_ngff

PIXELS = smooth(96, 128)
TURNED = {name: f"a.{name}" for name in ("tif", "svs", "jpg", "png")}


def write_turned(path, orientation: int) -> None:
    if path.suffix in {".jpg", ".png"}:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(PIXELS).save(path, exif=exif)
        return
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, tile=(64, 64), extratags=tags)


@pytest.mark.parametrize("name", TURNED.values())
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turn_that_only_viewers_make_is_told(tmp_path, name, orientation) -> None:
    write_turned(tmp_path / name, orientation)
    with pytest.warns(
        SpatialsigWarning, match=rf"a\.\w+' says that viewers .* \(orientation {orientation}\).*as they are stored"
    ):
        file = open_rgb(tmp_path / name)
    assert file.pixels.shape == PIXELS.shape
    file.close()


@pytest.mark.parametrize("name", TURNED.values())
def test_an_image_that_stands_upright_is_no_news(tmp_path, name) -> None:
    write_turned(tmp_path / name, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        open_rgb(tmp_path / name).close()


def _ome(path, names: str, *, one_page: bool) -> None:
    """Planes of names, each a page; or the samples of one page, which some writers describe as channels too."""
    stored = PIXELS[..., ["rgb".index(name) for name in names]]
    if not one_page:
        planes, metadata = (
            np.ascontiguousarray(np.moveaxis(stored, 2, 0)),
            {"axes": "CYX", "Channel": {"Name": list(names)}},
        )
        tifffile.imwrite(path, planes, ome=True, metadata=metadata, photometric="minisblack")
        return
    tifffile.imwrite(path, stored, ome=True, metadata={"axes": "YXS"}, photometric="rgb")
    with tifffile.TiffFile(path) as tif:
        whole_page = tif.ome_metadata
    listed = "".join(f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1" Name="{name}"/>' for i, name in enumerate(names))
    xml = re.sub(r"<Channel .*</Channel>", listed, whole_page)
    tifffile.imwrite(path, stored, description=xml, metadata=None, photometric="rgb")


def _imagej(path, names: str) -> None:
    stored = np.moveaxis(PIXELS[..., ["rgb".index(name) for name in names]], 2, 0)
    labels = [{"r": "Red", "g": "Green", "b": "Blue"}[name] for name in names]
    tifffile.imwrite(
        path,
        np.ascontiguousarray(stored),
        imagej=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Labels": labels},
    )


def _ngff(path, names: str) -> None:
    order = ["rgba".index(name) for name in names]
    pixels = np.concatenate([PIXELS, np.full_like(PIXELS[..., :1], 255)], axis=2)[..., order]
    write_ngff(path, pixels, "0.4", axes="cyx", omero=[{"label": name} for name in names])


@pytest.mark.parametrize("names", ["bgr", "rgb", "gbr"])
@pytest.mark.parametrize("kind", ["ome", "ome_one_page", "imagej", "ngff", "ngff_alpha", "array"])
def test_channels_are_put_in_order_by_their_names(tmp_path, kind, names) -> None:
    if kind == "array":
        cells = ad.AnnData(np.ones((1, 1), np.float32), obsm={"spatial": np.array([[30.0, 40]])})
        stored = DataArray(
            PIXELS[..., ["rgb".index(n) for n in names]], dims=("y", "x", "c"), coords={"c": list(names)}
        )
        sdata = sp.io.from_anndata(cells, stored, um_per_px=0.5)
        found = np.moveaxis(np.asarray(sdata["he_image"]["scale0"]["image"]), 0, 2)
    else:
        path = tmp_path / ("a.zarr" if kind.startswith("ngff") else "a.ome.tif" if kind.startswith("ome") else "a.tif")
        if kind.startswith("ome"):
            _ome(path, names, one_page=kind == "ome_one_page")
        elif kind == "imagej":
            _imagej(path, names)
        else:
            _ngff(path, names + ("a" if kind == "ngff_alpha" else ""))
        found = whole(path)
    np.testing.assert_array_equal(found, PIXELS)


def test_colours_after_another_channel_are_refused(tmp_path) -> None:
    _ngff(tmp_path / "a.zarr", "argb")
    with pytest.raises(InputError, match=r"red, green and blue are channels \[2, 3, 4\] of 4"):
        open_rgb(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "read",
    [
        lambda s: image_levels(s, "he_image"),
        sp.pp.find_tissue,
        sp.pp.make_patches,
        sp.pp.qc_alignment,
        lambda s: sp.pp.align_he(s, matrix="identity"),
    ],
)
def test_an_element_with_its_colours_in_another_order_is_refused(read) -> None:
    image = Image2DModel.parse(
        np.moveaxis(PIXELS[..., ::-1], 2, 0), dims=("c", "y", "x"), c_coords=["b", "g", "r"],
        transformations={"global": Identity()},
    )  # fmt: skip
    sdata = sd.SpatialData.init_from_elements({"he_image": image}, attrs={"spatialsig": {"um_per_global_px": 0.5}})
    cells = ad.AnnData(np.ones((1, 1), np.float32), obsm={"spatial": np.array([[30.0, 40]])})
    sdata["table"] = sd.models.TableModel.parse(cells)
    with pytest.raises(
        InputError, match=r"image 'he_image' has channels \['b', 'g', 'r'\]; wanted red, green and blue"
    ):
        read(sdata)
