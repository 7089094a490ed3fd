import shutil

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import zarr
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel

from spatialsig.data.patches import ImageLevel, PatchSource, image_levels, read_patches
from spatialsig.errors import InputError, KeyMissingError, StoreError

HEIGHT, WIDTH = 301, 405  # neither a multiple of 4: coarse levels are trimmed


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture(scope="module")
def in_memory(image: np.ndarray) -> sd.SpatialData:
    element = Image2DModel.parse(image, dims=("c", "y", "x"), scale_factors=[2, 2], chunks=(3, 64, 64))
    return sd.SpatialData(images={"he": element})


@pytest.fixture(scope="module")
def stored(in_memory: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> sd.SpatialData:
    path = tmp_path_factory.mktemp("patches") / "slide.zarr"
    in_memory.write(path)
    return sd.read_zarr(path)


def source(levels: tuple[ImageLevel, ...], origins: object, size_l0: float, out_px: int) -> PatchSource:
    return PatchSource("S1", levels, np.array(origins, np.int64), size_l0, out_px)


def ramp(height: int = 120, width: int = 160, factor: int = 1) -> np.ndarray:
    """Image whose value is its position: red 1.5 y, green 1.25 x, blue y + x / 2 (level-0 px, pixel centres at .5)."""
    y, x = np.meshgrid(*((np.arange(n // factor) + 0.5) * factor for n in (height, width)), indexing="ij")
    return np.stack([1.5 * y, 1.25 * x, y + x / 2])


def test_a_window_of_whole_pixels_is_the_numpy_slice(image: np.ndarray) -> None:
    origins = [(0, 0), (HEIGHT - 32, WIDTH - 32), (17, 101)]
    patches = read_patches(source((ImageLevel(image, (HEIGHT, WIDTH)),), origins, 32, 32), [2, 0, 1])
    for patch, (y0, x0) in zip(patches, [origins[2], *origins[:2]], strict=True):
        np.testing.assert_array_equal(patch, image[:, y0 : y0 + 32, x0 : x0 + 32])


def test_the_store_and_memory_give_the_same_at_every_level(in_memory: sd.SpatialData, stored: sd.SpatialData) -> None:
    origins = [(0, 0), (7, 9), (100, 301), (HEIGHT - 97, WIDTH - 97)]
    memory, disk = image_levels(in_memory, "he"), image_levels(stored, "he")
    assert [level.pixels.name for level in disk] == ["s0", "s1", "s2"]
    assert [level.downsample for level in disk] == [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]
    for out_px in (97, 60, 32, 20):
        a, b = (read_patches(source(levels, origins, 97, out_px), range(4)) for levels in (memory, disk))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("out_px", "level"), [(64, 0), (63, 0), (33, 0), (32, 1), (31, 1), (17, 1), (16, 2), (3, 2)])
def test_the_coarsest_level_that_is_fine_enough_is_read(in_memory: sd.SpatialData, out_px: int, level: int) -> None:
    levels = image_levels(in_memory, "he")
    assert source(levels, [(0, 0)], 64, out_px).level is levels[level]


def test_a_patch_at_the_next_level_is_that_levels_slice(in_memory: sd.SpatialData) -> None:
    levels = image_levels(in_memory, "he")
    # the first row and column are left out of a level of odd size
    (patch,) = read_patches(source(levels, [(21, 41)], 64, 32), [0])
    np.testing.assert_array_equal(patch, np.asarray(levels[1].pixels)[:, 10:42, 20:52])


def test_whole_factors_below_a_level_are_block_means(image: np.ndarray) -> None:
    (patch,) = read_patches(source((ImageLevel(image, (HEIGHT, WIDTH)),), [(5, 8)], 96, 32), [0])
    blocks = image[:, 5:101, 8:104].reshape(3, 32, 3, 32, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(patch, blocks, atol=0.501)


@pytest.mark.parametrize(("out_px", "factor"), [(53, 1), (40, 1), (21, 1), (100, 1), (26, 2), (21, 2), (17, 2)])
def test_position_is_exact_at_fractional_windows(out_px: int, factor: int) -> None:
    # at factor 2 odd origins fall on half pixels of the level
    pixels = np.rint(ramp(factor=factor)).astype(np.uint8)
    blank = ImageLevel(np.zeros((3, 120, 160), np.uint8), (120, 160))  # passed over at factor 2
    level = ImageLevel(pixels, pixels.shape[1:], (factor, factor))
    slide = PatchSource("S1", (level,) if factor == 1 else (blank, level), np.array([(3, 5), (31, 40)]), 53, out_px)
    for patch, (y0, x0) in zip(read_patches(slide, [0, 1]), slide.origins, strict=True):
        centre = (np.arange(out_px) + 0.5) * 53 / out_px
        y, x = y0 + centre[:, None], x0 + centre[None, :]
        expected = np.stack(np.broadcast_arrays(1.5 * y, 1.25 * x, y + x / 2))
        assert np.abs(patch - expected).max() <= 1.5  # two roundings to whole values, one of them through weights
        assert np.abs((patch - expected).mean(axis=(1, 2))).max() < 0.25  # and no shift: half a px would be 0.6


def test_a_patch_does_not_depend_on_its_batch(in_memory: sd.SpatialData) -> None:
    slide = source(image_levels(in_memory, "he"), [(0, 0), (1, 3), (4, 4)], 50, 25)
    together = read_patches(slide, [0, 1, 2])
    np.testing.assert_array_equal(together, np.concatenate([read_patches(slide, [k]) for k in range(3)]))


@pytest.mark.parametrize("change", ["crop", "compute", "invert"])
def test_a_changed_image_is_not_read_from_the_store_it_came_from(stored: sd.SpatialData, change: str) -> None:
    full = next(iter(stored["he"]["scale0"].data_vars.values()))
    element = {"crop": full[:, 10:200, 5:300], "compute": full.compute(), "invert": 255 - full}[change]
    changed = sd.SpatialData(images={"he": Image2DModel.parse(element)})
    (level,) = image_levels(changed, "he")
    (patch,) = read_patches(source((level,), [(3, 4)], 20, 20), [0])
    np.testing.assert_array_equal(patch, np.asarray(element)[:, 3:23, 4:24])


def test_a_lazily_changed_image_of_the_same_shape_is_computed(image: np.ndarray, tmp_path) -> None:
    element = Image2DModel.parse(image, dims=("c", "y", "x"))
    sd.SpatialData(images={"he": element}).write(tmp_path / "slide.zarr")
    opened = sd.read_zarr(tmp_path / "slide.zarr")
    assert image_levels(opened, "he")[0].pixels.name == "s0"
    opened["he"] = Image2DModel.parse(255 - opened["he"])
    (patch,) = read_patches(source(image_levels(opened, "he"), [(3, 4)], 20, 20), [0])
    np.testing.assert_array_equal(patch, 255 - image[:, 3:23, 4:24])


def test_a_replaced_array_is_opened_again(tmp_path) -> None:
    def write(value: int) -> None:
        shutil.rmtree(tmp_path / "s0", ignore_errors=True)
        zarr.create_array(tmp_path / "s0", data=np.full((3, 32, 32), value, np.uint8), chunks=(3, 16, 16))

    slide = source((ImageLevel(tmp_path / "s0", (32, 32)),), [(0, 0)], 32, 32)
    for value in (10, 20):
        write(value)
        assert set(np.unique(read_patches(slide, [0]))) == {value}


def test_zarr_2_is_read_too(tmp_path, image: np.ndarray) -> None:
    zarr.create_array(tmp_path / "a", data=image, chunks=(1, 64, 64), zarr_format=2)
    slide = source((ImageLevel(tmp_path / "a", (HEIGHT, WIDTH)),), [(9, 11)], 40, 40)
    np.testing.assert_array_equal(read_patches(slide, [0])[0], image[:, 9:49, 11:51])


def test_dask_arrays_are_computed_window_by_window(image: np.ndarray) -> None:
    seen = []

    def block(values: np.ndarray) -> np.ndarray:
        seen.append(values.shape)
        return values

    lazy = da.from_array(image, chunks=(3, 50, 50)).map_blocks(block, dtype=np.uint8, meta=image[:0, :0, :0])
    slide = source((ImageLevel(lazy, (HEIGHT, WIDTH)),), [(0, 0)], 40, 40)
    np.testing.assert_array_equal(read_patches(slide, [0])[0], image[:, :40, :40])
    assert len(seen) == 1


def test_a_damaged_chunk_is_an_error_naming_the_slide(tmp_path, image: np.ndarray) -> None:
    zarr.create_array(tmp_path / "a", data=image, chunks=(3, 64, 64))
    (tmp_path / "a" / "c" / "0" / "0" / "0").write_bytes(b"not a chunk")
    slide = source((ImageLevel(tmp_path / "a", (HEIGHT, WIDTH)),), [(0, 0)], 32, 32)
    with pytest.raises(StoreError, match="slide 'S1': cannot read .*a"):
        read_patches(slide, [0])


@pytest.mark.parametrize("origin", [(-1, 0), (0, -1), (HEIGHT - 31, 0), (0, WIDTH - 31)])
def test_a_patch_over_the_border_is_refused(image: np.ndarray, origin: tuple[int, int]) -> None:
    message = rf"slide 'S1': 1 patches cross the border of the image of {HEIGHT} x {WIDTH} px .* row 1 at"
    with pytest.raises(InputError, match=message):
        source((ImageLevel(image, (HEIGHT, WIDTH)),), [(0, 0), origin], 32, 32)


def test_errors(image: np.ndarray) -> None:
    level = (ImageLevel(image, (HEIGHT, WIDTH)),)
    with pytest.raises(InputError, match=r"`out_px` must be a finite number above 0; got 0"):
        source(level, [(0, 0)], 32, 0)
    with pytest.raises(InputError, match="has no levels"):
        source((), [(0, 0)], 32, 32)
    with pytest.raises(InputError, match=r"origins \(1, 2\) of float64; wanted integers \(n, 2\)"):
        PatchSource("S1", level, np.zeros((1, 2)), 32, 32)


def test_only_rgb_of_uint8_is_taken(in_memory: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`image_key='HE'` is not in sdata.images; available: \['he'\]"):
        image_levels(in_memory, "HE")
    for array in (np.zeros((1, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint16)):
        other = sd.SpatialData(images={"he": Image2DModel.parse(array, dims=("c", "y", "x"))})
        with pytest.raises(InputError, match=r"wanted uint8 \(c, y, x\) with 3 channels"):
            image_levels(other, "he")


@pytest.mark.parametrize("size", [(515, 707), (512, 701), (513, 704)])
@pytest.mark.parametrize("writer", ["spatialdata", "trimmed at the end"])
def test_a_pyramid_of_any_writer_shows_the_same_place(size: tuple[int, int], writer: str) -> None:
    """spatialdata leaves out the first pixels of odd sizes, other writers the last: patches must not move."""
    rng = np.random.default_rng(0)
    fine = gaussian_filter(rng.random((3, *size)) * 255, (0, 4, 4))
    fine = np.clip((fine - fine.mean()) * 12 + 128, 0, 255).astype(np.uint8)
    if writer == "spatialdata":
        image = Image2DModel.parse(fine, dims=("c", "y", "x"), c_coords=("r", "g", "b"), scale_factors=[2, 2])
        levels = image_levels(sd.SpatialData(images={"he": image}), "he")
    else:
        levels, pixels = [ImageLevel(fine, fine.shape[1:])], fine
        for factor in (2.0, 4.0):
            height, width = (edge // 2 for edge in pixels.shape[1:])
            pixels = pixels[:, : 2 * height, : 2 * width].reshape(3, height, 2, width, 2).mean(axis=(2, 4))
            pixels = pixels.round().astype(np.uint8)
            levels.append(ImageLevel(pixels, pixels.shape[1:], (factor, factor)))
    origins = np.array([[0, 0], [40, 120], [256, 400]])
    source = PatchSource(sample="s", levels=tuple(levels), origins=origins, size_l0=160, out_px=40)
    assert source.level.downsample == (4.0, 4.0)
    found = read_patches(source, np.arange(3)).astype(float)
    for patch, (y, x) in zip(found, origins, strict=True):
        expected = fine[:, y : y + 160, x : x + 160].reshape(3, 40, 4, 40, 4).mean(axis=(2, 4))
        inner = np.s_[:, 1:-1, 1:-1]
        error = np.abs(patch[inner] - expected[inner]).mean()
        shifted = np.abs(patch[:, 1:-1, 2:] - expected[:, 1:-1, 1:-1]).mean()
        assert shifted > 6 * error
