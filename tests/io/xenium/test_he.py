"""Where the H&E of a bundle may lie, and when the reader refuses to guess."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, SpatialsigWarning

from ..conftest import write_bundle  # noqa: TID252 - the bundle of the room above

IMAGE, MATRIX = "slide_he_image.ome.tif", "slide_he_imagealignment.csv"


def source(path, **options) -> dict:
    return sp.io.read_xenium(path, **options).attrs["spatialsig"]["source"]


def moved(bundle, folder, stem: str):
    """Move image and alignment of a bundle into ``folder`` under the name that downloads have."""
    for old, new in ((IMAGE, f"{stem}_he_image.ome.tif"), (MATRIX, f"{stem}_he_imagealignment.csv")):
        shutil.move(bundle.path / old, folder / new)
    return folder / f"{stem}_he_image.ome.tif"


def test_in_the_bundle(bundle) -> None:
    found = source(bundle.path)
    assert found["he_image"] == str(bundle.he_image.resolve())
    assert (found["he_image_found"], found["he_alignment_found"]) == ("in the bundle", "in the bundle")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ome.tiff", ".TIF", ".btf"])
def test_other_endings_that_the_other_reader_would_pass_over(bundle, suffix) -> None:
    image = bundle.he_image.rename(bundle.path / f"slide_he_image{suffix}")
    assert source(bundle.path)["he_image"] == str(image)


@pytest.mark.parametrize(
    ("folder", "stem"), [("outs", "anything"), ("BC_outs", "BC"), ("BC", "BC"), ("BC_xe_outs", "bc")]
)
def test_beside_the_only_bundle(tmp_path, folder, stem) -> None:
    bundle = write_bundle(tmp_path / folder)
    image = moved(bundle, tmp_path, stem)
    found = source(bundle.path)
    assert found["he_image"] == str(image)
    assert (found["he_image_found"], found["he_alignment_found"]) == ("beside the bundle", "beside the image")
    assert sp.io.read_xenium(bundle.path)["he_image"]["scale0"]["image"].shape == (3, 700, 900)


def test_alignment_in_the_bundle_of_an_image_beside_it(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "outs")
    shutil.move(bundle.he_image, tmp_path / "other_he_image.ome.tif")
    assert source(bundle.path)["he_alignment_found"] == "in the bundle"


def test_many_bundles_in_one_folder_take_only_their_own_name(tmp_path) -> None:
    one, two = (write_bundle(tmp_path / f"{name}_outs", seed=i) for i, name in enumerate(["S1", "S1_rep2"]))
    image = moved(one, tmp_path, "S1")
    two.he_image.unlink()
    two.he_alignment.unlink()
    assert source(one.path)["he_image"] == str(image)
    assert source(two.path)["he_image"] is None  # S1_he_image is of the other
    image.rename(tmp_path / "scan_he_image.ome.tif")
    with pytest.warns(SpatialsigWarning, match=r"shares its folder with 1 other.*\['scan_he_image.ome.tif'\]; pass"):
        assert source(two.path)["he_image"] is None


def test_two_beside_the_bundle_are_refused(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "outs")
    image = moved(bundle, tmp_path, "a")
    shutil.copy(image, tmp_path / "b_he_image.tif")
    with pytest.raises(
        InputError, match=r"has beside it 2 H&E images: \['a_he_image.ome.tif', 'b_he_image.tif'\]; choose"
    ):
        source(bundle.path)
    assert source(bundle.path, he_image=image)["he_image_found"] == "given"


def test_two_alignments_are_refused_by_name(bundle) -> None:
    text = bundle.he_alignment.read_text()
    bundle.he_alignment.unlink()
    for name in "ab":
        (bundle.path / f"{name}_imagealignment.csv").write_text(text)
    with pytest.raises(
        AlignmentError, match=r"has 2 alignments: .*a_imagealignment.csv', .*b_imagealignment.csv'.*pass"
    ):
        source(bundle.path)


def test_two_of_the_right_name_must_be_the_same(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "outs")
    image = moved(bundle, tmp_path, "a")
    shutil.copy(tmp_path / "a_he_imagealignment.csv", bundle.path)
    assert source(bundle.path)["he_alignment_found"] == "beside the image"
    np.savetxt(bundle.path / "a_he_imagealignment.csv", np.eye(3), delimiter=",")
    with pytest.raises(AlignmentError, match="has 2 alignments"):
        source(bundle.path)
    assert source(bundle.path, he_alignment=image.with_name("a_he_imagealignment.csv"))["he_alignment_found"] == "given"


def test_alignments_of_another_image_are_left_alone(tmp_path, bundle) -> None:
    bundle.he_alignment.rename(bundle.path / "other_he_imagealignment.csv")
    shutil.copy(bundle.he_image, tmp_path / "third_he_image.tif")
    own = bundle.he_image.rename(tmp_path / "scan.tif")
    shutil.copy(bundle.path / "other_he_imagealignment.csv", tmp_path / "third_he_imagealignment.csv")
    found = source(bundle.path, he_image=own)
    assert found["he_alignment"] == str((bundle.path / "other_he_imagealignment.csv").resolve())


def test_what_macs_leave_beside_images_is_no_image(bundle) -> None:
    (bundle.path / f"._{IMAGE}").write_bytes(b"x")
    (bundle.path / "the_image.tif").write_bytes(b"x")
    assert source(bundle.path)["he_image"] == str(bundle.he_image)


def test_names_with_dots(bundle) -> None:
    bundle.he_image.rename(bundle.path / "a.b_he_image.ome.tif")
    csv = bundle.he_alignment.rename(bundle.path / "a.b_he_imagealignment.csv")
    assert source(bundle.path)["he_alignment"] == str(csv)


def test_identity_only_when_asked_for_by_that_word(bundle) -> None:
    bundle.he_alignment.unlink()
    with pytest.raises(
        AlignmentError,
        match="has no alignment; wanted 'slide_he_imagealignment.csv' or 'slide_he_alignment.csv' beside",
    ):
        source(bundle.path)
    bundle.edit_cells(lambda c: c.assign(x_centroid=c["x_centroid"] % 150, y_centroid=c["y_centroid"] % 140))
    sdata = sp.io.read_xenium(bundle.path, he_alignment="identity")
    assert sdata.attrs["spatialsig"]["source"]["he_alignment"] == "identity"
    matrix = get_transformation(sdata["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_array_equal(matrix, np.eye(3))


def test_keypoints_are_an_alignment(bundle, tmp_path) -> None:
    he_px = np.array([[10.0, 10], [880, 30], [450, 690], [60, 600]])
    fixed = he_px @ bundle.matrix[:2, :2].T + bundle.matrix[:2, 2]
    rows = [",".join(map(repr, map(float, (*f, *a)))) for f, a in zip(fixed, he_px, strict=True)]
    file = tmp_path / "keypoints.csv"
    file.write_text("\n".join(["fixedX,fixedY,alignmentX,alignmentY", *rows]))
    sdata = sp.io.read_xenium(bundle.path, he_alignment=file)
    matrix = get_transformation(sdata["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, bundle.matrix, atol=1e-6)


def test_the_export_of_xenium_explorer_is_an_alignment_wherever_one_is_taken(bundle, tmp_path) -> None:
    text = bundle.he_alignment.read_text()
    bundle.he_alignment.unlink()
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "matrix.csv").write_text(text)
    exported = [tmp_path / "export", shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "export")]
    for given in exported:
        sdata = sp.io.read_xenium(bundle.path, he_alignment=given)
        assert sdata.attrs["spatialsig"]["source"]["he_alignment_kind"] == "matrix"
        sp.pp.align_he(sdata, file=given)
        rows = pd.DataFrame(
            {"sample": ["S1"], "patient": ["P1"], "bundle": [bundle.path], "he_alignment": [str(given)]}
        )
        cohort = sp.Cohort.from_bundles(rows, tmp_path / f"stores{len(str(given))}")
        for read in (sdata, cohort["S1"]):
            matrix = get_transformation(read["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
            np.testing.assert_allclose(matrix, bundle.matrix)


@pytest.mark.parametrize("image", ["a_he_image.ome.tif", "he_image.tif"])
@pytest.mark.parametrize("name", ["{}alignment.csv", "{}imagealignment.csv"])
def test_the_alignment_is_found_under_the_name_of_either_platform(bundle, image, name) -> None:
    stem = image.split("image")[0]
    bundle.he_image.rename(bundle.path / image)
    csv = bundle.he_alignment.rename(bundle.path / name.format(stem))
    (bundle.path / "b_he_alignment.csv").write_text("0,0,0")  # of no image that is there
    assert source(bundle.path)["he_alignment"] == str(csv)
    (bundle.path / f"{stem}alignment.csv").write_text("1,0,0\n0,1,0\n0,0,1")
    if name.startswith("{}image"):
        with pytest.raises(AlignmentError, match="has 2 alignments"):
            source(bundle.path)


@pytest.mark.parametrize("given", [[["a", "b"], ["c", "d"]], [[1, 2], [3]], np.ones((2, 3))])
def test_what_is_no_matrix_is_refused(bundle, given) -> None:
    with pytest.raises(AlignmentError, match=r"no matrix|has shape \(2, 3\)"):
        source(bundle.path, he_alignment=given)
