"""A level of the right size that shows something else is found in a few windows, one that is made in another way is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation, set_transformation
from xarray import Dataset, DataTree

import spatialsig as sp
from spatialsig.data.level_pixels import Windows, difference
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def full() -> Pixels:
    """An H&E ``(y, x, 3)`` whose edges are no multiples of 2 and 4."""
    planes = np.asarray(sp.datasets.toy(he_um_per_px=0.5, size_um=400)["he_image"]["scale0"]["image"].data)
    return np.ascontiguousarray(np.moveaxis(planes, 0, 2)[:781, :743])


def means(full: Pixels, step: int, *, start: int = 0) -> Pixels:
    part = full[start:, start:]
    height, width = (edge // step * step for edge in part.shape[:2])
    blocks = part[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def windows(pixels: Pixels) -> Windows:
    return Windows((pixels.shape[0], pixels.shape[1]), lambda rows, columns: pixels[rows, columns])


WRONG: dict[str, Callable[[Pixels], Pixels]] = {
    "mirrored left to right": lambda half: half[:, ::-1],
    "mirrored top to bottom": lambda half: half[::-1],
    "turned by 180 degrees": lambda half: half[::-1, ::-1],
    "inverted": lambda half: 255 - half,
    "black": np.ones_like,  # nearly: spatialdata writes no chunks of zeros
    "white": lambda half: np.full_like(half, 255),
    "shifted by a tenth": lambda half: np.roll(half, half.shape[0] // 10, axis=0),
    "a part of it, enlarged": lambda half: np.repeat(
        np.repeat(half[: -(-half.shape[0] // 2), : -(-half.shape[1] // 2)], 2, 0), 2, 1
    )[: half.shape[0], : half.shape[1]],
    "another image": lambda half: np.random.default_rng(0).integers(0, 256, half.shape, dtype=np.uint8),
}
RIGHT: dict[str, Callable[[Pixels], Pixels]] = {
    "means of 2 x 2": lambda full: means(full, 2),
    "means that begin with the second pixel": lambda full: means(full, 2, start=1),
    "means of 4 x 4": lambda full: means(full, 4),
    "every second pixel": lambda full: full[: full.shape[0] // 2 * 2 : 2, : full.shape[1] // 2 * 2 : 2],
    "every fourth pixel": lambda full: full[: full.shape[0] // 4 * 4 : 4, : full.shape[1] // 4 * 4 : 4],
    "rounded up": lambda full: full[::2, ::2],
    "a strong JPEG": lambda full: imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(means(full, 2), level=30)),
    "a third darker": lambda full: (means(full, 2) * 0.93).astype(np.uint8),
    "factor 2.5": lambda full: full[(np.arange(312) * 2.5).astype(int)][:, (np.arange(297) * 2.5).astype(int)],
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_level_that_shows_something_else_is_found(full: Pixels, fault: str) -> None:
    found = difference(windows(full), windows(WRONG[fault](means(full, 2))))
    assert found is not None, fault


@pytest.mark.parametrize("way", RIGHT)
def test_a_level_that_was_reduced_in_any_way_is_no_fault(full: Pixels, way: str) -> None:
    assert difference(windows(full), windows(RIGHT[way](full))) is None


@pytest.mark.parametrize("shade", [0, 128, 240])
def test_an_image_without_anything_on_it_says_nothing(shade: int) -> None:
    noise = np.random.default_rng(0).normal(shade, 2, (600, 600, 3)).clip(0, 255).astype(np.uint8)
    assert difference(windows(noise), windows(means(noise, 2)[::-1])) is None


def with_level(toy: sd.SpatialData, change: Callable[[Pixels], Pixels]) -> sd.SpatialData:
    """Two levels in memory, the second changed."""
    planes = np.asarray(toy["he_image"]["scale0"]["image"].data)
    level = np.moveaxis(change(means(np.moveaxis(planes, 0, 2), 2)), 2, 0)
    place = get_transformation(toy["he_image"], get_all=True)
    tree = {}
    for number, pixels in enumerate((planes, np.ascontiguousarray(level))):
        scale = Scale([planes.shape[1] / pixels.shape[1]] * 2, axes=("x", "y"))
        image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
        set_transformation(image, {key: Sequence([scale, one]) for key, one in place.items()}, set_all=True)
        tree[f"scale{number}"] = Dataset({"image": image})
    del toy.images["he_image"]
    toy.images["he_image"] = DataTree.from_dict(tree)
    return toy


READERS = {
    "make_patches": lambda data: sp.pp.make_patches(data, patch_px=28, um_per_px=2.0),
    "find_tissue": sp.pp.find_tissue,
    "qc_alignment": sp.pp.qc_alignment,
}


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a store"])
@pytest.mark.parametrize("fault", ["mirrored left to right", "black"])
@pytest.mark.parametrize("reader", READERS)
def test_functions_refuse_an_object_with_such_a_level(toy, tmp_path, reader, fault, stored) -> None:
    data = with_level(toy, WRONG[fault])
    if reader == "qc_alignment":  # reads the finest level of a slide of 1 um per px
        data.attrs["spatialsig"]["um_per_global_px"] /= 2
    if stored:
        data.write(tmp_path / "s.zarr")  # as other software leaves it: ours does not write it
        data = tmp_path / "s.zarr"
    with pytest.raises(
        InputError, match=r"slide 'toy': image 'he_image': its level 1 of 29\d x 29\d px .* does not show"
    ):
        READERS[reader](data)


@pytest.mark.parametrize("reader", READERS)
def test_functions_take_an_object_with_a_right_one(toy, reader) -> None:
    READERS[reader](with_level(toy, lambda half: half))
