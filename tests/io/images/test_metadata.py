from __future__ import annotations

from itertools import permutations, product

import pytest
import tifffile

import spatialsig as sp
from spatialsig.data.channels import BY_NAME, rgb_order
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.images.metadata import PixelSize, choose_um_per_px, ome_pixel_size, pick_slide
from spatialsig.io.images.ome import ome_images
from spatialsig.io.images.open_rgb import open_rgb

from .test_ngff import write_ngff

SLIDE = ("S1", 4000, 6000)


@pytest.mark.parametrize("beside", ["Label", "macro image", "thumbnail", "Overview", "barcode", "slide preview"])
def test_what_lies_beside_the_slide_is_never_taken_however_large(beside) -> None:
    assert pick_slide([(beside, 9000, 9000), SLIDE], name="a.tif") == 1


def test_the_largest_is_taken_over_its_own_pyramid_and_over_what_is_much_smaller() -> None:
    assert pick_slide([("", 1000, 1000), ("", 1001, 1501), ("", 2001, 3001), SLIDE], name="a.tif") == 3
    assert pick_slide([SLIDE, ("", 2000, 2999)], name="a.tif") == 0


def test_two_that_could_be_the_slide_are_refused() -> None:
    with pytest.raises(InputError, match=r"'a.tif' holds 2 images of 4000 x 6000, 3000 x 6000 px .* not clear which"):
        pick_slide([("", 3000, 6000), SLIDE], name="a.tif")
    with pytest.raises(InputError, match=r"holds only \['label', 'macro'\]; wanted the scan of a slide"):
        pick_slide([("label", 5, 5), ("macro", 9, 9)], name="a.tif")


def test_channels_taken_in_the_order_are_red_green_blue() -> None:
    for colours in permutations([0, 1, 2]):
        order = rgb_order(colours)
        assert order is not None
        assert [colours[position] for position in order] == [0, 1, 2]


def test_an_unnamed_channel_among_three_colours_is_passed_over() -> None:
    assert rgb_order([2, None, 0, 1]) == [2, 3, 0]


def test_what_is_not_each_colour_once_has_no_order() -> None:
    for colours in product([0, 1, 2, None], repeat=3):
        assert (rgb_order(colours) is None) == (set(colours) != {0, 1, 2})


def test_names_and_initials_mean_the_same() -> None:
    assert [BY_NAME[name] for name in ("red", "green", "blue")] == [BY_NAME[letter] for letter in "rgb"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("metadata", "um"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}, 0.25),
        ({"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}, 0.25),
        ({"PhysicalSizeX": 5e-4, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 5e-4, "PhysicalSizeYUnit": "mm"}, 0.5),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}, None),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel"}, None),
        ({"PhysicalSizeX": 2500, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 2500, "PhysicalSizeYUnit": "Å"}, 0.25),
        ({"PhysicalSizeX": 1e-5, "PhysicalSizeXUnit": "in", "PhysicalSizeY": 1e-5, "PhysicalSizeYUnit": "in"}, 0.254),
        ({}, None),
    ],
)
def test_pixel_size_of_an_ome_tiff(tmp_path, pixels, metadata, um) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", ome=True, metadata={"axes": "YXS", **metadata})
    found = open_rgb(path).um_per_px
    assert found == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize(
    ("resolution", "unit", "um"),
    [(20_000, "CENTIMETER", 0.5), (50_800, "INCH", 0.5), (72, "INCH", None), (20_000, "NONE", None)],
)
def test_pixel_size_of_a_plain_tiff(tmp_path, pixels, resolution, unit, um) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", resolution=(resolution, resolution), resolutionunit=unit)
    assert open_rgb(path).um_per_px == (None if um is None else pytest.approx(um))


def test_pixel_size_of_an_aperio_description(tmp_path, pixels) -> None:
    tifffile.imwrite(
        tmp_path / "a.svs", pixels, photometric="rgb", description="Aperio|AppMag = 20|MPP = 0.4990|x", metadata=None
    )
    assert open_rgb(tmp_path / "a.svs").um_per_px == 0.499


def test_pixel_size_of_an_imagej_tiff(tmp_path, pixels) -> None:
    options = {"resolution": (4.0, 4.0), "metadata": {"unit": "um", "axes": "YXS"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, **options)
    assert open_rgb(tmp_path / "a.tif").um_per_px == pytest.approx(0.25)


OME = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25"/></Image>
<Image><Pixels PhysicalSizeX="200" PhysicalSizeXUnit="nm" PhysicalSizeY="0.003" PhysicalSizeYUnit="mm"/></Image></OME>"""


def test_every_image_of_an_ome_xml_has_its_own_size_and_unit() -> None:
    assert ome_pixel_size(OME, 0, name="a.tif") == (0.5, 0.25)
    assert ome_pixel_size(OME, 1, name="a.tif") == pytest.approx((0.2, 3.0))
    assert ome_pixel_size(OME, 7, name="a.tif") is None  # of an image that it does not describe nothing is known
    assert ome_pixel_size(OME[:-9], 0, name="a.tif") is None


@pytest.mark.parametrize(
    ("stated", "um"),
    [("0,5", 0.5), ("", None), ("0", None), ("-1", None), ("NaN", None), ("half", None)],
)
def test_what_is_no_size_is_no_damaged_file(tmp_path, pixels, stated, um) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", ome=True, metadata={"axes": "YXS", "PhysicalSizeX": 7.7, "PhysicalSizeY": 7.7}
    )
    path.write_bytes(path.read_bytes().replace(b'"7.7"', f'"{stated}"'.encode().ljust(5)))
    assert open_rgb(path).um_per_px == um
    assert sp.io.read_he(path, um_per_px=0.5).attrs["spatialsig"]["um_per_global_px"] == 0.5


def test_a_size_that_no_scanner_has_is_said_and_not_taken(tmp_path, pixels) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        ome=True,
        metadata={"axes": "YXS", "PhysicalSizeX": 0.02738, "PhysicalSizeY": 0.02738},
    )
    with pytest.warns(
        SpatialsigWarning, match=rf"image {str(path)!r} states a pixel size of '0\.02738' µm, which is not taken"
    ):
        assert open_rgb(path).um_per_px is None
    description = "Aperio|AppMag = 20|MPP = 0,4990|x"
    tifffile.imwrite(tmp_path / "a.svs", pixels, photometric="rgb", description=description, metadata=None)
    assert open_rgb(tmp_path / "a.svs").um_per_px == 0.499


@pytest.mark.parametrize(
    "form", ["MPPX = {}|MPPY = {}", "MPP X={}|MPP Y={}", "mpp_x = {}|mpp_y = {}", "MPP-Y = {1}|MPP-X = {0}"]
)
def test_a_scanner_may_write_each_edge(tmp_path, pixels, form: str) -> None:
    def svs(*sizes: str):
        text = f"Vendor|AppMag = 20|{form.format(*sizes)}|x"
        tifffile.imwrite(tmp_path / "a.svs", pixels, photometric="rgb", description=text, metadata=None)
        return tmp_path / "a.svs"

    assert open_rgb(svs("0.4990", "0,499")).um_per_px == 0.499
    with pytest.raises(
        InputError, match=r"a\.svs' says that its pixels are 0\.25 x 0\.5 um \(x, y\); wanted square ones"
    ):
        sp.io.read_he(svs("0.25", "0.5"))
    with pytest.warns(
        SpatialsigWarning, match=r"says that its px are 0\.25 x 0\.5 um, but as it is placed they are 0\.5 um"
    ):
        slide = sp.io.read_he(svs("0.25", "0.5"), um_per_px=0.5)
    assert slide.attrs["spatialsig"]["um_per_global_px"] == 0.5


def test_one_edge_says_nothing_of_the_other(tmp_path, pixels) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, pixels, photometric="rgb", description="Vendor|MPPX = 0.25|x", metadata=None)
    with pytest.raises(
        InputError, match="states MPPX = 0.25 alone, and no size of the other edge, and so does not say"
    ):
        sp.io.read_he(path)


@pytest.mark.parametrize("writer", ["ome", "svs", "zarr"])
def test_a_warning_of_a_size_names_the_file(tmp_path, pixels, writer: str) -> None:
    path = tmp_path / {"ome": "a.ome.tif", "svs": "a.svs", "zarr": "a.zarr"}[writer]
    if writer == "zarr":
        write_ngff(path, pixels, "0.5", um=0.02738)
    else:
        sizes = {"axes": "YXS", "PhysicalSizeX": 0.02738, "PhysicalSizeY": 0.02738}
        how = (
            {"ome": True, "metadata": sizes} if writer == "ome" else {"description": "MPP = 0.02738", "metadata": None}
        )
        tifffile.imwrite(path, pixels, photometric="rgb", **how)
    with pytest.warns(SpatialsigWarning, match=rf"image {str(path)!r} states a pixel size of '0\.02738'"):
        assert open_rgb(path).um_per_px is None


def test_the_size_that_is_passed_wins() -> None:
    assert choose_um_per_px(None, um_per_px=0.5, in_file=None) == 0.5
    assert choose_um_per_px(None, um_per_px=0.5, in_file=PixelSize(0.51, 0.51)) == 0.5
    assert choose_um_per_px(None, um_per_px=None, in_file=PixelSize(0.51, 0.51)) == 0.51
    with pytest.raises(InputError, match=r"its pixels are 0.5 x 0.6 um \(x, y\); wanted square ones"):
        choose_um_per_px(None, um_per_px=None, in_file=PixelSize(0.5, 0.6))


def test_ome_xml_that_is_none_describes_no_images() -> None:
    assert ome_images("<OME><Image") == []
    assert ome_pixel_size("<OME>\x01</OME>", 0, name="a.tif") is None
