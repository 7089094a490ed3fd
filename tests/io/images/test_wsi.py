from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.io.images.open_rgb import open_rgb

from .conftest import smooth, whole, write_jpeg


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
