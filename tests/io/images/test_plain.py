from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.io.images.plain import open_plain

from .conftest import smooth


def jpeg(**options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(smooth(60, 80)).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"icc_profile": b"x" * 500}, {"quality": 30}])
def test_pixels_of_a_jpeg_are_those_of_another_reader(tmp_path, options) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(**options))
    difference = open_plain(path).pixels[:, :].astype(int) - np.asarray(Image.open(path))
    assert np.abs(difference).max() <= 1


def test_the_orientation_of_a_camera_is_left_alone(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif))
    with pytest.warns(SpatialsigWarning, match="turned by 90 degrees clockwise"):
        assert open_plain(tmp_path / "a.jpg").pixels.shape == (60, 80, 3)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image(tmp_path) -> None:
    whole = jpeg(comment=jpeg(quality=10))  # holds a marker of the end in its header
    (tmp_path / "a.jpg").write_bytes(whole)
    assert open_plain(tmp_path / "a.jpg").pixels.shape == (60, 80, 3)
    (tmp_path / "a.jpg").write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"a.jpg' cannot be decoded \(the JPEG data end before the image does\)"):
        open_plain(tmp_path / "a.jpg")


def test_a_damaged_note_in_a_png_does_not_cost_its_pixels(tmp_path) -> None:
    stream = io.BytesIO()
    Image.fromarray(smooth(60, 80)).save(stream, "PNG")
    png = stream.getvalue()
    text = b"tEXt" + b"Comment\0scanned"
    note = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text) ^ 1)
    (tmp_path / "a.png").write_bytes(png[:33] + note + png[33:])
    np.testing.assert_array_equal(open_plain(tmp_path / "a.png").pixels[:, :], smooth(60, 80))
