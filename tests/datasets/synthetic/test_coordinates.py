from __future__ import annotations

import numpy as np
import pytest

from spatialsig.datasets.synthetic.coordinates import make_frames
from spatialsig.geometry.affine import apply


def frames(rotation_deg: float, *, mirrored: bool = False, error_um: float = 0.0):
    return make_frames(
        np.random.default_rng(1), size_um=400.0, pixel_size_um=0.2, he_um_per_px=0.5, rotation_deg=rotation_deg,
        mirrored=mirrored, registration_error_um=error_um,
    )  # fmt: skip


@pytest.mark.parametrize("rotation_deg", [0.0, 88.0, -93.0, 181.5, 45.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_whole_tissue_lies_on_both_images(rotation_deg, mirrored) -> None:
    slide = frames(rotation_deg, mirrored=mirrored)
    corners = slide.margin_um + 400.0 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for xy, (height, width) in (
        (apply(slide.um_to_he, corners), slide.he_shape),
        (corners / slide.pixel_size_um, slide.morphology_shape),
    ):
        assert (xy > 0).all()
        assert (xy < [width, height]).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_affine_turns_scales_and_mirrors_as_asked(mirrored) -> None:
    linear = frames(30.0, mirrored=mirrored).he_to_um[:2, :2]
    assert np.linalg.det(linear) == pytest.approx(-0.25 if mirrored else 0.25)
    assert linear @ [0, 1] == pytest.approx([-0.5 * np.sin(np.pi / 6), 0.5 * np.cos(np.pi / 6)])


def test_the_alignment_file_is_the_truth_in_pixels_but_for_the_registration_error() -> None:
    exact, shifted = frames(30.0), frames(30.0, error_um=7.0)
    he_px = np.random.default_rng(0).uniform(0, 500, (20, 2))
    np.testing.assert_allclose(0.2 * apply(exact.alignment, he_px), apply(exact.he_to_um, he_px))
    moved = 0.2 * apply(shifted.alignment, he_px) - apply(shifted.he_to_um, he_px)
    np.testing.assert_allclose(np.hypot(*moved.T), 7.0)
