"""Files that say two things: told or refused, never one of the two without a word."""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from xarray import DataArray

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.images.open_rgb import open_rgb

from .conftest import smooth, whole
from .test_ngff import write_ngff

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXELS = smooth(320, 400)
OVERVIEW = PIXELS[:50, :50]


def ome(path: Path, *images: tuple[np.ndarray, str, float], change: Callable[[str], str] = lambda xml: xml) -> Path:
    """OME-TIFF of several images; what its description says is changed afterwards."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, name, um in images:
            size = {"PhysicalSizeX": um, "PhysicalSizeY": um}
            tif.write(pixels, photometric="rgb", metadata={"axes": "YXS", "Name": name, **size})
    with tifffile.TiffFile(path) as tif:
        xml = change(tif.ome_metadata or "")
    tifffile.tiffcomment(path, xml.encode())
    return path


EMPTY = (
    '<Image ID="Image:9" Name="overview"><Pixels ID="Pixels:9" DimensionOrder="XYCZT" Type="uint8" SizeX="50" SizeY="50" '
    'SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="8" PhysicalSizeY="8"><MetadataOnly/></Pixels></Image>'
)
GONE = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="gone.ome.tif">urn:uuid:11111111-1111-1111-1111-111111111111</UUID></TiffData>'
_DATA = re.compile(r"<TiffData [^>]*>.*?</TiffData>|<TiffData [^>]*/>", re.DOTALL)
WITHOUT_PIXELS = {
    "metadata alone": ([(PIXELS, "slide", 0.5)], lambda xml: xml.replace("<Image ", EMPTY + "<Image ", 1)),
    "no pages named": ([(OVERVIEW, "label", 9.0), (PIXELS, "slide", 0.5)], lambda xml: _DATA.sub("", xml, count=1)),
    "pages of a missing file": (
        [(OVERVIEW, "thumb", 9.0), (PIXELS, "slide", 0.5)],
        lambda xml: _DATA.sub(GONE, xml, count=1),
    ),
    "nothing amiss": ([(OVERVIEW, "label", 9.0), (PIXELS, "slide", 0.5)], lambda xml: xml),
    "the slide first": ([(PIXELS, "slide", 0.5), (OVERVIEW, "label", 9.0)], lambda xml: xml),
}


@pytest.mark.parametrize("before", WITHOUT_PIXELS)
def test_the_size_is_that_of_the_image_whatever_others_the_file_describes(tmp_path: Path, before: str) -> None:
    images, change = WITHOUT_PIXELS[before]
    file = open_rgb(ome(tmp_path / "a.ome.tif", *images, change=change))
    assert file.pixels.shape == PIXELS.shape
    assert file.um_per_px == 0.5


def test_a_renamed_file_still_describes_itself(tmp_path: Path) -> None:
    ome(tmp_path / "a.ome.tif", (OVERVIEW, "label", 9.0), (PIXELS, "slide", 0.5)).rename(tmp_path / "b.ome.tif")
    assert open_rgb(tmp_path / "b.ome.tif").um_per_px == 0.5


@pytest.mark.parametrize("factor", [2, 0.5])
def test_the_size_of_pixels_of_another_size_is_not_taken(tmp_path: Path, factor: float) -> None:
    def enlarge(xml: str) -> str:
        return xml.replace('SizeX="400"', f'SizeX="{400 * factor:.0f}"').replace(
            'SizeY="320"', f'SizeY="{320 * factor:.0f}"'
        )

    path = ome(tmp_path / "a.ome.tif", (PIXELS, "slide", 0.5), change=enlarge)
    with pytest.raises(
        InputError, match=rf"has 320 x 400 px .* describe one of {320 * factor:.0f} x {400 * factor:.0f} px"
    ):
        sp.io.read_he(path)
    assert sp.io.mpp(sp.io.read_he(path, um_per_px=0.25)) == 0.25


PURE = [int(np.int32(np.uint32(colour))) for colour in (0x0000FFFF, 0x00FF00FF, 0xFF0000FF)]  # blue, green, red


def planes(path: Path, names: list[str], colours: list[int] | None) -> Path:
    stored = np.ascontiguousarray(np.moveaxis(PIXELS[..., ::-1], 2, 0))
    channel: dict[str, Any] = {"Name": names} | ({"Color": colours} if colours else {})
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": channel}
    tifffile.imwrite(path, stored, ome=True, photometric="minisblack", metadata=metadata)
    return path


def ngff(path: Path, names: list[str], colours: list[int] | None) -> Path:
    omero: list[dict[str, Any]] = [{"label": name} for name in names]
    for channel, colour in zip(omero, ["0000FF", "00FF00", "FF0000"] if colours else [], strict=False):
        channel["color"] = colour
    write_ngff(path.with_suffix(".zarr"), PIXELS[..., ::-1], "0.4", omero=omero)
    return path.with_suffix(".zarr")


@pytest.mark.parametrize("write", [planes, ngff])
@pytest.mark.parametrize("names", [["DAPI", "FITC", "TRITC"], ["Hoechst", "Channel 1", "Channel 2"], ["r", "g", "CD3"]])
@pytest.mark.parametrize("colours", [None, PURE])
def test_fluorescence_is_no_h_and_e_whatever_colours_show_it(tmp_path: Path, write, names, colours) -> None:
    path = write(tmp_path / "a.ome.tif", names, colours)
    with pytest.raises(InputError, match=r"a\.(ome\.tif|ome\.zarr|zarr)' has channels \[.*wanted red, green and blue"):
        open_rgb(path)


@pytest.mark.parametrize("write", [planes, ngff])
@pytest.mark.parametrize(
    "names", [["Channel 0", "Channel 1", "Channel 2"], ["", "", ""], ["b", "g", "r"], ["Blue", "Green", "Red"]]
)
def test_colours_order_channels_whose_names_say_nothing_else(tmp_path: Path, write, names) -> None:
    np.testing.assert_array_equal(whole(write(tmp_path / "a.ome.tif", names, PURE)), PIXELS)


RAW = (
    "packbits",
    "deflate",
    "adobe_deflate",
    "lzw",
    "lzma",
    "zstd",
    "lerc",
    "jpeg2000",
    "webp",
    "png",
    "jpegxl",
    "jpegxr",
)


@pytest.mark.parametrize("compression", RAW)
def test_no_decoder_but_that_of_jpeg_makes_rgb_of_ycbcr(tmp_path: Path, compression: str) -> None:
    options: dict[str, Any] = {"compression": compression, "tile": (64, 64), "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **options)
    assert whole(tmp_path / "a.tif").shape == PIXELS.shape
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="ycbcr", **options)
    with pytest.raises(InputError, match=r"a\.tif' is YCbCr without JPEG compression"):
        open_rgb(tmp_path / "a.tif")


def svs(path: Path, description: str, um_by_resolution: float | None = None) -> Path:
    options: dict[str, Any] = {}
    if um_by_resolution:
        options = {"resolution": (1e4 / um_by_resolution,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, PIXELS, photometric="rgb", description=description, metadata=None, **options)
    return path


def ome_and_tag(path: Path, um: float) -> Path:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    options: dict[str, Any] = {"resolution": (1e4 / um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path.with_suffix(".tif"), PIXELS, photometric="rgb", ome=True, metadata=metadata, **options)
    return path.with_suffix(".tif")


TWICE = {
    "OME and resolution": (
        lambda p: ome_and_tag(p, 0.25),
        r"0\.5 um \(its OME metadata\), but 0\.25 um \(its resolution\)",
    ),
    "MPP and resolution": (lambda p: svs(p, "Aperio|MPP = 0.5", 0.25), r"0\.5 um \(MPP = 0\.5\), but 0\.25 um"),
    "two MPPs": (lambda p: svs(p, "Aperio|MPP = 0.5|MPP = 0.25"), r"but 0\.25 um \(MPP = 0\.25\)"),
    "MPP and magnification": (lambda p: svs(p, "Aperio|AppMag = 40|MPP = 1.0"), r"but about 0\.25 um \(AppMag = 40\)"),
}


@pytest.mark.parametrize("kind", TWICE)
def test_two_sizes_in_one_file_are_told(tmp_path: Path, kind: str) -> None:
    write, message = TWICE[kind]
    with pytest.warns(
        SpatialsigWarning, match=rf"a\.(svs|tif)' says two things of the size of its pixels: .*{message}"
    ):
        file = open_rgb(write(tmp_path / "a.svs"))
    assert file.um_per_px in {0.5, 1.0}


ONCE = {
    "OME and resolution": lambda p: ome_and_tag(p, 0.51),
    "OME and 72 dpi": lambda p: ome_and_tag(p, 352.8),
    "MPP and resolution": lambda p: svs(p, "Aperio|MPP = 0.5", 0.499),
    "MPP and a magnification that some call double": lambda p: svs(p, "Aperio|AppMag = 20|MPP = 0.25"),
    "a unit behind the number": lambda p: svs(p, "Aperio|MPP = 0.5um|x"),
}


@pytest.mark.parametrize("kind", ONCE)
def test_sizes_that_agree_are_no_news(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        assert open_rgb(ONCE[kind](tmp_path / "a.svs")).um_per_px in {0.5, 0.25}


@pytest.mark.parametrize(("dpi", "um"), [(72, "352.8"), (300, "84.67"), (1200, "21.17"), (2400, "10.58")])
def test_the_resolution_of_a_printer_is_no_size_of_pixels(tmp_path: Path, dpi: int, um: str) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, photometric="rgb", metadata=None, resolution=(dpi, dpi), resolutionunit="INCH"
    )
    with pytest.raises(InputError, match=rf"a resolution of {um} um per px, which is that of a printer or a screen"):
        sp.io.read_he(tmp_path / "a.tif")


def test_what_is_stated_but_cannot_be_taken_is_named(tmp_path: Path) -> None:
    one = {"axes": "YXS", "PhysicalSizeX": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, photometric="rgb", ome=True, metadata=one)
    with pytest.raises(
        InputError, match=r"states a pixel size of '0.5' µm x nothing \(x, y\), of which no length can be taken"
    ):
        sp.io.read_he(tmp_path / "a.ome.tif")
    for unit, value in {"thou": 0.02, "pt": 0.00144}.items():
        size = {f"PhysicalSize{axis}{end}": one for axis in "XY" for end, one in (("", value), ("Unit", unit))}
        tifffile.imwrite(tmp_path / "b.ome.tif", PIXELS, photometric="rgb", ome=True, metadata={"axes": "YXS"} | size)
        assert open_rgb(tmp_path / "b.ome.tif").um_per_px == pytest.approx(0.508)


@pytest.mark.parametrize(("x", "y"), [(0.25, 1.0), (0.45, 0.5555)])
def test_edges_that_differ_are_held_against_the_size_that_is_passed(tmp_path: Path, x: float, y: float) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeY": y}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, photometric="rgb", ome=True, metadata=metadata)
    with pytest.warns(
        SpatialsigWarning, match=rf"px are {x:g} x {y:g} um, but as it is placed they are 0\.5 um, and square"
    ):
        sp.io.read_he(tmp_path / "a.ome.tif", um_per_px=0.5)


def _attributes(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    attributes = json.loads((path / ".zattrs").read_text())
    change(attributes["multiscales"])
    (path / ".zattrs").write_text(json.dumps(attributes))


def test_levels_of_an_ome_zarr_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    write_ngff(tmp_path / "a.zarr", PIXELS, "0.4")
    _attributes(tmp_path / "a.zarr", lambda images: images[0]["datasets"].reverse())
    with pytest.raises(InputError, match=r"a\.zarr' has levels of 160 x 200, 320 x 400 px .* finest first"):
        open_rgb(tmp_path / "a.zarr")


def test_the_largest_image_of_an_ome_zarr_is_the_slide(tmp_path: Path) -> None:
    write_ngff(tmp_path / "a.zarr", PIXELS, "0.4")
    _attributes(
        tmp_path / "a.zarr", lambda images: images.insert(0, {**images[0], "datasets": images[0]["datasets"][1:]})
    )
    file = open_rgb(tmp_path / "a.zarr")
    assert (file.pixels.shape, file.um_per_px) == (PIXELS.shape, 0.25)


@pytest.mark.parametrize("factor", [1, 8])
def test_a_scale_that_contradicts_the_size_of_its_level_is_told(tmp_path: Path, factor: float) -> None:
    write_ngff(tmp_path / "a.zarr", PIXELS, "0.4")

    def change(images: list[dict[str, Any]]) -> None:
        images[0]["datasets"][1]["coordinateTransformations"][0]["scale"] = [1, 0.25 * factor, 0.25 * factor]

    _attributes(tmp_path / "a.zarr", change)
    with pytest.warns(
        SpatialsigWarning, match=rf"level '1' has 0\.5 times the px of the first .* says px {factor} times as large"
    ):
        open_rgb(tmp_path / "a.zarr")


def _with_level(path: Path, level: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as tif:
        tif.write(BIG, subifds=1, photometric="rgb", tile=(256, 256), metadata=None)
        tif.write(level, subfiletype=1, photometric="rgb", tile=(256, 256), metadata=None)
    return path


BIG = np.random.default_rng(0).integers(120, 240, (1100, 1300, 3), dtype=np.uint8)
HALF = np.rint(BIG.reshape(550, 2, 650, 2, 3).mean(axis=(1, 3))).astype(np.uint8)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("fault", ["mirrored", "inverted", "black"])
def test_a_level_of_a_file_that_shows_something_else_is_left_out(tmp_path: Path, fault: str, stored: bool) -> None:
    wrong = {"mirrored": HALF[:, ::-1], "inverted": 255 - HALF, "black": HALF * 0}[fault]
    path = _with_level(tmp_path / "a.tif", np.ascontiguousarray(wrong))
    with pytest.warns(
        SpatialsigWarning, match=r"a\.tif': its level of 550 x 650 px .* does not show what .* It is left out"
    ):
        slide = sp.io.read_he(path, um_per_px=0.5, out=tmp_path / "s.zarr" if stored else None)
    found = np.moveaxis(np.asarray(slide["he_image"]["scale1"]["image"].data), 0, 2)
    assert np.abs(found.astype(int) - HALF).max() <= 1


def test_a_level_in_other_colours_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(BIG, subifds=1, photometric="rgb", tile=(256, 256), metadata=None)
        tif.write(HALF, subfiletype=1, photometric="cielab", tile=(256, 256), metadata=None)
    with pytest.raises(InputError, match="is CIELAB"):
        open_rgb(tmp_path / "a.tif")


def _without_tiles(path: Path, empty: slice) -> Path:
    tifffile.imwrite(path, BIG, photometric="rgb", tile=(256, 256), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
        counts[empty] = [0] * len(counts[empty])
        tag.overwrite(counts)
    return path


def test_writing_that_was_broken_off_is_told(tmp_path: Path) -> None:
    with pytest.warns(
        SpatialsigWarning, match=r"a\.tif' looks like .* its first 15 tiles .* and the 15 after them none \(50%\)"
    ):
        open_rgb(_without_tiles(tmp_path / "a.tif", slice(15, None)))


@pytest.mark.parametrize("empty", [slice(12, None), slice(0, 4), slice(7, 9)], ids=["whole rows", "first", "middle"])
def test_tiles_that_a_scanner_left_out_are_no_news(tmp_path: Path, empty: slice) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        open_rgb(_without_tiles(tmp_path / "a.tif", empty))


CELLS = ad.AnnData(np.ones((2, 3), np.float32), obsm={"spatial": np.array([[30.0, 40], [100, 200]])})


@pytest.mark.parametrize("dims", ["yxc", "xyc", "cyx", "cxy", "ycx"])
def test_the_dimensions_of_an_array_go_by_their_names(dims: str) -> None:
    image = DataArray(PIXELS, dims=("y", "x", "c")).transpose(*dims)
    slide = sp.io.from_anndata(CELLS.copy(), image, um_per_px=0.5)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(slide["he_image"]["scale0"]["image"]), 0, 2), PIXELS)


def test_dimensions_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(InputError, match=r"`image` has dimensions \['y', 'b', 'c'\]; wanted y, x and c"):
        sp.io.from_anndata(CELLS.copy(), DataArray(PIXELS, dims=("y", "b", "c")), um_per_px=0.5)
    plain = DataArray(PIXELS)  # of which xarray names no dimension
    assert sp.io.from_anndata(CELLS.copy(), plain, um_per_px=0.5)["he_image"]["scale0"]["image"].shape == (3, 320, 400)
    stained = DataArray(PIXELS, dims=("y", "x", "c"), coords={"c": ["DAPI", "GFP", "RFP"]})
    with pytest.raises(InputError, match=r"image 'array' has channels \['dapi', 'gfp', 'rfp'\]"):
        sp.io.from_anndata(CELLS.copy(), stained, um_per_px=0.5)


@pytest.mark.parametrize("stored", [False, True])
def test_a_line_of_pixels_is_no_image(tmp_path: Path, stored: bool) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(PIXELS[:1]))
    with pytest.raises(InputError, match=r"of shape \(1, 400, 3\); wanted uint8 RGB \(y, x, 3\) of at least 2 x 2 px"):
        sp.io.read_he(tmp_path / "a.png", um_per_px=0.5, out=tmp_path / "s.zarr" if stored else None)


def test_an_ome_zarr_whose_levels_are_grouped_is_still_read(tmp_path: Path) -> None:
    """As bioformats2raw writes it: the image is a group in the root."""
    write_ngff(tmp_path / "b.zarr" / "0", PIXELS, "0.4")
    zarr.open_group(tmp_path / "b.zarr", mode="a", zarr_format=2)
    np.testing.assert_array_equal(whole(tmp_path / "b.zarr"), PIXELS)
