from __future__ import annotations

import io
import pickle
import struct
import sys

import imagecodecs
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.images.open_rgb import open_rgb

from .conftest import H, W, smooth, whole, write_jpeg

PLANAR = {"planarconfig": "separate"}
FORMS = {
    "tiles": {"tile": (128, 256)},
    "tiles, deflate with predictor": {"tile": (256, 256), "compression": "zlib", "predictor": True},
    "tiles, LZW": {"tile": (256, 256), "compression": "lzw"},
    "tiles, zstd": {"tile": (256, 256), "compression": "zstd"},
    "tiles, JPEG 2000": {"tile": (256, 256), "compression": "jpeg2000"},
    "one uncompressed strip": {},
    "uncompressed strips": {"rowsperstrip": 7},
    "compressed strips": {"rowsperstrip": 7, "compression": "zlib"},
    "big endian": {"byteorder": ">", "tile": (256, 256)},
    "BigTIFF": {"bigtiff": True, "tile": (256, 256)},
    "BigTIFF, big endian": {"bigtiff": True, "byteorder": ">", "rowsperstrip": 9},
    "planar tiles": PLANAR | {"tile": (256, 256)},
    "planar strips": PLANAR | {"rowsperstrip": 7, "compression": "zlib"},
    "planar, one strip": PLANAR,
    "planar, big endian": PLANAR | {"byteorder": ">", "bigtiff": True},
}


def write_form(path, pixels, form) -> None:
    options = FORMS[form]
    array = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)) if "planarconfig" in options else pixels
    tifffile.imwrite(path, array, photometric="rgb", metadata=None, **options)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tiff_gives_its_pixels(tmp_path, pixels, form) -> None:
    write_form(tmp_path / "a.tif", pixels, form)
    np.testing.assert_array_equal(whole(tmp_path / "a.tif"), pixels)


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory):
    """An open file of some forms of TIFF, and their pixels."""
    folder = tmp_path_factory.mktemp("forms")
    pixels = np.random.default_rng(3).integers(0, 256, (H, W, 3), dtype=np.uint8)
    files = []
    for i, form in enumerate(("tiles", "one uncompressed strip", "compressed strips", "planar tiles", "big endian")):
        write_form(folder / f"{i}.tif", pixels, form)
        files.append(open_rgb(folder / f"{i}.tif"))
    yield files, pixels
    for file in files:
        file.close()


@given(st.integers(0, 4), st.integers(0, H), st.integers(0, W), st.integers(0, 2 * H), st.integers(0, 2 * W))
def test_any_window_is_the_slice_of_the_image(one_of_each, which, y0, x0, height, width) -> None:
    files, pixels = one_of_each
    window = (slice(y0, y0 + height), slice(x0, x0 + width))
    np.testing.assert_array_equal(files[which].pixels[window], pixels[window])


@pytest.mark.parametrize("colours", ["rgb", "ycbcr"])
def test_jpeg_tiles_have_the_colours_that_went_in(tmp_path, colours) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        write_jpeg(tif, smooth(512, 768), colours=colours)
    found = whole(tmp_path / "a.tif")
    assert np.abs(found.astype(int) - smooth(512, 768)).max() <= 8
    np.testing.assert_array_equal(found, tifffile.imread(tmp_path / "a.tif"))


def test_tiles_that_the_scanner_left_out_are_white(tmp_path, pixels) -> None:
    tiles = [pixels[:256, :256].tobytes(), b"", b"", b"", pixels[256:512, 256:512].tobytes(), b"", b"", b"", b""]
    tifffile.imwrite(
        tmp_path / "a.tif", iter(tiles), shape=(H, W, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb"
    )
    expected = np.full((H, W, 3), 255, np.uint8)
    expected[:256, :256] = pixels[:256, :256]
    expected[256:512, 256:512] = pixels[256:512, 256:512]
    np.testing.assert_array_equal(whole(tmp_path / "a.tif"), expected)


def test_a_palette_becomes_its_colours(tmp_path) -> None:
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (3, 256), dtype=np.uint16)
    numbers = rng.integers(0, 256, (H, W), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", numbers, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(whole(tmp_path / "a.tif"), colours.T[numbers])
    Image.fromarray(smooth()).quantize(32).save(tmp_path / "b.png")
    expected = np.asarray(Image.open(tmp_path / "b.png").convert("RGB"))
    np.testing.assert_array_equal(whole(tmp_path / "b.png"), expected)


@pytest.mark.parametrize("factor", [1, 257])
def test_16_bits_that_hold_8_become_8(tmp_path, pixels, factor) -> None:
    deep = pixels.astype(np.uint16) * factor
    for order in "<>":
        for options in ({"tile": (256, 256)}, {}, {"rowsperstrip": 9, "compression": "zlib"}):
            tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", byteorder=order, **options)
            np.testing.assert_array_equal(whole(tmp_path / "a.tif"), pixels)
    imagecodecs.imwrite(tmp_path / "a.png", pixels.astype(np.uint16) * factor)
    np.testing.assert_array_equal(whole(tmp_path / "a.png"), pixels)


def test_a_lazy_object_is_copied_and_sent_to_another_process(tmp_path, pixels) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(256, 256))
    imagecodecs.imwrite(tmp_path / "a.png", pixels)
    for suffix in ("tif", "png"):
        sdata = sp.io.read_he(tmp_path / f"a.{suffix}", um_per_px=0.5)
        copy = sd.deepcopy(sdata)["he_image"]["scale0"]["image"]
        sent = pickle.loads(pickle.dumps(sdata["he_image"]["scale1"]["image"].data))
        np.testing.assert_array_equal(copy.transpose("y", "x", "c").values, pixels)
        np.testing.assert_array_equal(sent.compute(), sdata["he_image"]["scale1"]["image"].values)


def test_real_16_bits_are_refused_wherever_they_are(tmp_path, pixels) -> None:
    deep = pixels.astype(np.uint16) * 257
    deep[300, 200, 1] = 30_001  # in no window that is looked at first
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", tile=(256, 256))
    file = open_rgb(tmp_path / "a.tif")
    file.pixels[:100, :100]
    with pytest.raises(
        InputError, match=r"a.tif' is uint16 with values to 65535, which are no 8-bit ones, at y 256-512"
    ):
        file.pixels[256:512, :]
    file.close()


def test_an_opaque_alpha_is_left_out_and_a_transparent_one_refused(tmp_path, pixels) -> None:
    for alpha, name in ((255, "a"), (254, "b")):
        rgba = np.dstack([pixels, np.full((H, W), alpha, np.uint8)])
        tifffile.imwrite(tmp_path / f"{name}.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
        imagecodecs.imwrite(tmp_path / f"{name}.png", rgba)
    for suffix in ("tif", "png"):
        np.testing.assert_array_equal(whole(tmp_path / f"a.{suffix}"), pixels)
        with pytest.raises(InputError, match=rf"b.{suffix}' is transparent at y 0-530, x 0-710 px; wanted opaque RGB"):
            whole(tmp_path / f"b.{suffix}")


def ome_channels(path, pixels, channels) -> None:
    tifffile.imwrite(
        path,
        np.ascontiguousarray(np.moveaxis(pixels, 2, 0)),
        ome=True,
        photometric="minisblack",
        tile=(256, 256),
        metadata={"axes": "CYX", "Channel": channels},
    )


def test_channels_in_pages_are_ordered_by_their_names(tmp_path, pixels) -> None:
    ome_channels(tmp_path / "a.ome.tif", pixels[..., ::-1], {"Name": ["Blue", "Green", "Red"]})
    np.testing.assert_array_equal(whole(tmp_path / "a.ome.tif"), pixels)
    ome_channels(tmp_path / "b.ome.tif", pixels, {"Name": ["", "", ""]})
    np.testing.assert_array_equal(whole(tmp_path / "b.ome.tif"), pixels)
    ome_channels(tmp_path / "c.ome.tif", pixels, {"Name": ["DAPI", "CD3", "CD20"]})
    with pytest.raises(InputError, match=r"channels \['dapi', 'cd3', 'cd20'\]; wanted red, green and blue"):
        open_rgb(tmp_path / "c.ome.tif")


def cmyk_jpeg(path) -> None:
    Image.fromarray(smooth()).convert("CMYK").save(path, "jpeg")


def tiff(array, **options):
    def write(path) -> None:
        tifffile.imwrite(path, array, metadata=None, **options)

    return write


def two_slides(path) -> None:
    with tifffile.TiffWriter(path) as tif:
        tif.write(smooth(500, 700), photometric="rgb", metadata=None)
        tif.write(smooth(600, 500), photometric="rgb", metadata=None)


REFUSED = {
    "gray.tif": (tiff(smooth()[..., 0]), r"axes YX .*wanted 8-bit RGB .*a gray image has no stain colours"),
    "gray.png": (lambda p: Image.fromarray(smooth()[..., 0]).save(p), "a gray image has no stain colours"),
    "gray.jpg": (lambda p: Image.fromarray(smooth()[..., 0]).save(p), "a gray image has no stain colours"),
    "float.tif": (tiff(smooth() / np.float32(255), photometric="rgb"), "is float32 .*multiply by 255"),
    "int.tif": (tiff(smooth().astype(np.int16), photometric="rgb"), "is int16 with axes YXS"),
    "cmyk.tif": (tiff(np.dstack([smooth(), smooth()[..., 0]]), photometric="separated"), "is CMYK, whose colours"),
    "cmyk.jpg": (cmyk_jpeg, "is a CMYK JPEG"),
    "lab.tif": (tiff(smooth(), photometric="cielab"), "is CIELAB"),
    "white.tif": (tiff(smooth()[..., 0], photometric="miniswhite"), "is gray"),
    "five.tif": (tiff(np.zeros((64, 64, 5), np.uint8), photometric="minisblack", planarconfig="contig"), "5 channels"),
    "stack.tif": (tiff(np.stack([smooth()] * 3), photometric="rgb"), r"is a stack of 3 images .*save one plane"),
    "two.tif": (two_slides, r"holds 2 images of 500 x 700, 600 x 500 px .*not clear which one"),
    "empty.tif": (lambda p: p.write_bytes(b""), "is empty"),
    "empty.png": (lambda p: p.write_bytes(b""), "is empty"),
    "text.tif": (lambda p: p.write_text("hello, I am no TIFF"), "is not a whole TIFF"),
    "text.jpg": (lambda p: p.write_text("hello"), "neither PNG nor JPEG"),
    "header.tif": (lambda p: p.write_bytes(b"II*\0\x08\0\0\0"), "is not a whole TIFF|holds no image"),
    "head.jpg": (lambda p: p.write_bytes(imagecodecs.jpeg8_encode(smooth())[:100]), "no whole JPEG header"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_become_rgb_is_refused_before_anything_is_written(tmp_path, name) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=rf"(?s){name}'.*({message})"):
        sp.io.read_he(tmp_path / name, um_per_px=0.5, out=tmp_path / "s.zarr")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def damaged(tmp_path, suffix: str, **options):
    path = tmp_path / f"a.{suffix}"
    if suffix == "jpg":
        path.write_bytes(imagecodecs.jpeg8_encode(smooth(), level=90))
    elif suffix == "png":
        imagecodecs.imwrite(path, smooth())
    else:
        tifffile.imwrite(path, smooth(), photometric="rgb", tile=(256, 256), metadata=None, **options)
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("jpg", None), ("png", None), ("tif", "jpeg"), ("tif", "zlib")])
def test_a_file_cut_off_is_an_error_and_the_old_store_stays(tmp_path, suffix, codec) -> None:
    path = damaged(tmp_path, suffix, compression=codec)
    sp.io.read_he(path, um_per_px=0.5, out=tmp_path / "s.zarr")
    before = {p: p.read_bytes() for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()}
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=rf"a.{suffix}' (cannot be decoded|is truncated|is not a whole TIFF)"):
        sp.io.read_he(path, um_per_px=0.5, out=tmp_path / "s.zarr", overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "s.zarr"]


@pytest.mark.parametrize("damage", ["garbage", "zeros", "cut short"])
def test_a_damaged_jpeg_tile_is_an_error(tmp_path, damage) -> None:
    path = damaged(tmp_path, "tif", compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[3], tif.pages.first.databytecounts[3]
    data = bytearray(path.read_bytes())
    start = {"garbage": offset, "zeros": offset, "cut short": offset + count // 2}[damage]
    data[start : offset + count] = (b"\x5a" if damage == "garbage" else b"\0") * (offset + count - start)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a.tif' cannot be decoded at y .* px: .*\. Copy or export the file again"):
        sp.io.read_he(path, um_per_px=0.5, out=tmp_path / "s.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_the_slide_is_never_its_label(tmp_path, pixels) -> None:
    with tifffile.TiffWriter(tmp_path / "a.svs") as tif:
        about = "Aperio Image Library v11.2.1\r\n"
        size = f"{W}x{H} [0,0 {W}x{H}] (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990"
        tif.write(pixels, photometric="rgb", tile=(256, 256), description=about + size, metadata=None)
        tif.write(smooth(100, 130), photometric="rgb", description=about + "thumbnail", metadata=None)
        tif.write(
            smooth(900, 800), photometric="rgb", description=about + "label 800x900", subfiletype=1, metadata=None
        )
        tif.write(smooth(900, 2000), photometric="rgb", description=about + "macro", subfiletype=9, metadata=None)
    np.testing.assert_array_equal(whole(tmp_path / "a.svs"), pixels)
    assert open_rgb(tmp_path / "a.svs").um_per_px == 0.499
    with tifffile.TiffWriter(tmp_path / "b.tif") as tif:
        tif.write(smooth(100, 130), photometric="rgb", metadata=None)
        tif.write(pixels, photometric="rgb", tile=(256, 256), metadata=None)
    np.testing.assert_array_equal(whole(tmp_path / "b.tif"), pixels)


def test_a_pyramid_in_pages_is_one_slide(tmp_path, pixels) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(pixels, photometric="rgb", tile=(128, 128), metadata=None)
        tif.write(pixels[::2, ::2], photometric="rgb", tile=(128, 128), metadata=None)
        tif.write(pixels[::4, ::4], photometric="rgb", tile=(128, 128), metadata=None)
    np.testing.assert_array_equal(whole(tmp_path / "a.tif"), pixels)


def test_what_is_decoded_at_once_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("spatialsig.io.images.tiff.MANY_PX", 10_000)
    monkeypatch.setattr("spatialsig.io.images.plain.MANY_PX", 10_000)
    for suffix in ("jpg", "png"):
        damaged(tmp_path, suffix)
        with pytest.warns(
            SpatialsigWarning, match=r"cannot be read piece by piece: .* GiB of memory. Save it as a tiled"
        ):
            open_rgb(tmp_path / f"a.{suffix}")
    tifffile.imwrite(tmp_path / "b.tif", smooth(), photometric="rgb", rowsperstrip=H, compression="zlib")
    with pytest.warns(SpatialsigWarning, match=r"b.tif' cannot be read piece by piece"):
        open_rgb(tmp_path / "b.tif").close()
    tifffile.imwrite(tmp_path / "c.tif", smooth(), photometric="rgb", rowsperstrip=8, compression="zlib")
    open_rgb(tmp_path / "c.tif").close()  # warnings are errors in these tests


def write_ndpi(path, pixels) -> None:
    """One JPEG strip with restart markers whose places are in a tag, as Hamamatsu scanners write it."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=95, subsampling=0, restart_marker_blocks=16)
    data = stream.getvalue()
    scan = data.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    starts = [first] + [i + 2 for i in range(first, len(data) - 2) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    height, width = pixels.shape[:2]
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, (8, 8, 8)),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (271, 2, 10, b"Hamamatsu\0"),
        (273, 4, 1, "pixels"),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (282, 5, 1, (22_000, 1)),
        (283, 5, 1, (22_000, 1)),
        (296, 3, 1, 3),
        (65420, 4, 1, 1),
        (65421, 11, 1, 40.0),
        (65426, 4, len(starts), tuple(starts)),
    ]
    head = 12
    extra_at = head + 2 + 12 * len(tags) + 8 + 4 * len(tags)
    extra = b""
    entries = []
    for code, kind, count, value in tags:
        form = {2: "", 3: "H", 4: "I", 5: "I", 11: "f"}[kind]
        if value == "pixels":
            entries.append((code, kind, count, None))
            continue
        values = value if isinstance(value, tuple) else (value,)
        packed = value if isinstance(value, bytes) else struct.pack(f"<{len(values)}{form}", *values)
        if len(packed) > 4:
            entries.append((code, kind, count, struct.pack("<I", extra_at + len(extra))))
            extra += packed + b"\0" * (len(packed) % 2)
        else:
            entries.append((code, kind, count, packed.ljust(4, b"\0")))
    pixels_at = struct.pack("<I", extra_at + len(extra))
    table = b"".join(struct.pack("<HHI", c, k, n) + (v or pixels_at) for c, k, n, v in entries)
    # 64-bit offsets in classic TIFF: those of directories are longer, upper halves of values stand behind the tags
    ifd = struct.pack("<H", len(tags)) + table + b"\0" * (8 + 4 * len(tags))
    path.write_bytes(b"II*\0" + struct.pack("<Q", head) + ifd + extra + data)


def test_ndpi_is_read_between_its_restart_markers(tmp_path, monkeypatch) -> None:
    pixels = smooth(512, 640)
    write_ndpi(tmp_path / "a.ndpi", pixels)
    file = open_rgb(tmp_path / "a.ndpi")
    assert file.pixels.chunks == (8, 128)
    assert file.um_per_px == pytest.approx(10_000 / 22_000)
    assert np.abs(file.pixels[:, :].astype(int) - pixels).max() <= 8
    np.testing.assert_array_equal(file.pixels[100:300, 50:400], file.pixels[:, :][100:300, 50:400])
    file.close()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Small files to damage."""
    folder = tmp_path_factory.mktemp("originals")
    rgb = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    small = smooth(150, 170)
    tifffile.imwrite(folder / "jpeg.tif", small, compression="jpeg", **rgb)
    tifffile.imwrite(
        folder / "zlib.ome.tif", small, ome=True, compression="zlib", **(rgb | {"metadata": {"axes": "YXS"}})
    )
    tifffile.imwrite(folder / "strips.tif", small, photometric="rgb", rowsperstrip=8, metadata=None)
    write_ndpi(folder / "a.ndpi", smooth(128, 256))
    Image.fromarray(small).save(folder / "a.jpg")
    Image.fromarray(small).save(folder / "a.png")
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


@pytest.mark.filterwarnings("ignore::spatialsig.errors.SpatialsigWarning")
@given(st.data())
def test_a_spoilt_file_is_pixels_or_a_typed_error(originals, tmp_path_factory, data) -> None:
    name, content = data.draw(st.sampled_from(originals))
    spoilt = bytearray(content)
    # headers and tables of offsets are where a byte does most
    places = st.one_of(st.integers(0, min(len(content), 500) - 1), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(places)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / f"spoilt_{name}"
    path.write_bytes(spoilt[:cut])
    try:
        file = open_rgb(path)
        height, width = file.pixels.shape[:2]
        found = file.pixels[: min(height, 400), : min(width, 400)]
        file.close()
    except InputError:
        return
    assert found.dtype == np.uint8
    assert found.shape[2] == 3


def test_openslide_and_tifffile_agree(tmp_path) -> None:
    pytest.importorskip("openslide")
    full = smooth(1024, 1280)
    for name, tolerance in (("ycbcr", 2), ("plain", 0)):
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as tif:
            for kind, pixels in ((0, full), (1, full[::2, ::2])):
                if name == "plain":
                    tif.write(pixels, tile=(256, 256), photometric="rgb", subfiletype=kind, metadata=None)
                else:
                    write_jpeg(tif, pixels, colours=name, subfiletype=kind)
        ours, theirs = whole(path), whole(path, backend="openslide")
        assert np.abs(ours.astype(int) - theirs).max() <= tolerance
    file = open_rgb(path, backend="openslide")
    assert [level.shape for level in file.levels] == [(1024, 1280, 3), (512, 640, 3)]
    np.testing.assert_array_equal(file.levels[1][10:300, 20:400], full[::2, ::2][10:300, 20:400])


def test_a_format_of_openslide_without_openslide_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a.mrxs' cannot be opened by openslide .*folder of the same name"):
        sp.io.read_he(tmp_path / "a.mrxs")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"a.mrxs' needs openslide.*pip install 'spatialsig\[wsi\]'"):
        sp.io.read_he(tmp_path / "a.mrxs")


@pytest.mark.parametrize("claim", [W + 1000, 10**5, 4 * 10**9])
@pytest.mark.parametrize("form", ["tiles", "compressed strips", "uncompressed strips", "planar tiles"])
def test_a_size_that_the_listed_pieces_do_not_fill_is_refused_at_once(tmp_path, pixels, form, claim) -> None:
    write_form(tmp_path / "a.tif", pixels, form)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength") if "tiles" in form else ("ImageLength",):
            file.pages[0].tags[tag].overwrite(claim)
    with pytest.raises(
        InputError, match=r"'.*a\.tif' (is damaged: .* pieces, and it lists|is truncated|is not a whole TIFF)"
    ):
        open_rgb(tmp_path / "a.tif")
