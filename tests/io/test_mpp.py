from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Scale

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, KeyMissingError


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


@pytest.mark.slow  # makes a bundle and loads the other reader
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
