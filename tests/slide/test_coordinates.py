"""Points go from micrometres to pixels and back by the matrices of the elements, and the toy knows where they belong."""

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import Affine, Scale, set_transformation

from spatialsig.errors import AlignmentError, KeyMissingError
from spatialsig.slide.coordinates import (
    full_resolution,
    image_of,
    image_to_um,
    image_um_per_px,
    matrix_to_global,
    placed,
    um_per_global,
    um_to_image,
)
from spatialsig.slide.slides import Slide

TURNED = np.array([[3.0, 1.0, 5.0], [1.0, -3.0, -9.0], [0.0, 0.0, 1.0]])  # and mirrored


def aslant(toy: sd.SpatialData) -> Slide:
    affine = Affine(TURNED, input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(toy["he_image"], affine, "global")
    return Slide(toy)


def test_cells_lie_on_the_nuclei_that_were_painted(toy: sd.SpatialData) -> None:
    """The synthetic slide keeps where it painted each nucleus, without the transformations that are read here."""
    cells = toy["table"]
    pixels = um_to_image(Slide(toy), "he_image", cells.obsm["spatial"])
    np.testing.assert_allclose(pixels, cells.obsm["he_px"], atol=0.5)


def test_pixels_go_to_micrometres_by_the_affine_and_the_scale_of_global(toy: sd.SpatialData) -> None:
    slide = aslant(toy)
    slide.attrs["um_per_global_px"] = 0.5
    x, y = 7.0, 11.0
    expected = [0.5 * (3 * x + y + 5), 0.5 * (x - 3 * y - 9)]
    np.testing.assert_allclose((image_to_um(slide, "he_image") @ [x, y, 1])[:2], expected)
    np.testing.assert_allclose(um_to_image(slide, "he_image", np.array([expected])), [[x, y]])


def test_edge_of_a_pixel_is_the_root_of_its_area(toy: sd.SpatialData) -> None:
    assert image_um_per_px(Slide(toy), "he_image") == pytest.approx(1.0, rel=0.01)
    slide = aslant(toy)
    slide.attrs["um_per_global_px"] = 0.5
    assert image_um_per_px(slide, "he_image") == pytest.approx(0.5 * np.sqrt(10))


def test_length_of_a_unit_of_global_is_recorded_or_read_off_the_shapes(toy: sd.SpatialData) -> None:
    slide = Slide(toy)
    slide.attrs["um_per_global_px"] = 0.125
    assert um_per_global(slide) == 0.125
    del slide.attrs["um_per_global_px"]
    assert um_per_global(slide) == pytest.approx(0.2125)  # of the circles
    set_transformation(toy["cell_circles"], Scale([5.0, 5.0], axes=("x", "y")), "global")
    assert um_per_global(slide) == pytest.approx(0.2)


def test_unknown_length_is_refused(toy: sd.SpatialData) -> None:
    slide = Slide(toy)
    del slide.attrs["um_per_global_px"]
    del toy.shapes["cell_circles"]
    with pytest.raises(
        AlignmentError, match=r"slide 'toy': micrometres per pixel of `global` are unknown .*e.g. 0.2125"
    ):
        um_per_global(slide)


def test_elements_without_a_way_to_global(toy: sd.SpatialData) -> None:
    image = toy["he_image"]
    assert matrix_to_global(image).shape == (3, 3)
    sd.transformations.remove_transformation(image, "global")
    set_transformation(image, Scale([2.0, 2.0], axes=("x", "y")), "elsewhere")
    assert matrix_to_global(image) is None
    with pytest.raises(AlignmentError, match="slide 'toy': image 'he_image' has no transformation to 'global'"):
        placed(Slide(toy), image, "image 'he_image'")


def test_image_by_name(toy: sd.SpatialData) -> None:
    image = image_of(Slide(toy), "he_image")
    assert image is toy["he_image"]
    assert full_resolution(image).shape == image["scale0"]["image"].shape
    single = full_resolution(image)
    assert full_resolution(single) is single
    with pytest.raises(KeyMissingError, match=r"`image_key='he'` is not in the images of slide 'toy'; .*'he_image'"):
        image_of(Slide(toy), "he")
