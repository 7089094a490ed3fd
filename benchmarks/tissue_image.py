"""An image that compresses like an H&E of tissue, of any size, and stores of it, for the benchmarks of reading."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import geopandas as gpd
import numpy as np
import spatialdata as sd
import tifffile
import zarr
from scipy.ndimage import gaussian_filter
from shapely import box
from spatialdata.models import Image2DModel, ShapesModel
from spatialdata.transformations import Identity

from spatialsig.store.commit import create_store
from spatialsig.store.stream import StreamedImage

if TYPE_CHECKING:
    from spatialsig.store.layout import Layout

TILE_PX = 2048
STAINS = np.array([(0.650, 0.704, 0.286), (0.072, 0.990, 0.105)])
WHITE = 225.0  # mean grey of a square above which it is taken to be glass
NOISE = 4.5  # grey levels: zstd level 1 then gains 1.2, as on scanned tissue (1.12 to 1.26)


def tissue_tile(seed: int = 0, px: int = TILE_PX) -> np.ndarray:
    """Nuclei-like blots and waves of eosin under Beer's law, ``(3, px, px)`` uint8; its borders fit together."""
    rng = np.random.default_rng(seed)
    lumps, waves = (gaussian_filter(rng.normal(size=(px, px)), s, mode="wrap") for s in (3, 8))
    nuclei = 0.9 / (1 + np.exp(-6 * (lumps / lumps.std() - 1)))
    eosin = np.clip(0.25 + 0.12 * waves / waves.std(), 0, None)
    density = np.einsum("syx,sc->cyx", np.stack([nuclei, eosin]), STAINS)
    pixels = 240 * np.exp(-density) + rng.normal(size=(3, px, px)) * NOISE
    return np.clip(pixels, 0, 255).astype(np.uint8)


def scanned_tile(file: Path, px: int = TILE_PX, square_px: int = 512) -> np.ndarray:
    """Squares of a real scan that show tissue, put together to ``(3, px, px)`` uint8; repeated where there are few."""
    image = tifffile.imread(file)
    corners = [
        (y, x)
        for y in range(0, image.shape[0] - square_px + 1, square_px)
        for x in range(0, image.shape[1] - square_px + 1, square_px)
        if image[y : y + square_px, x : x + square_px].mean() < WHITE
    ]
    tile = np.empty((3, px, px), np.uint8)
    for k, (y, x) in enumerate(itertools.product(range(0, px, square_px), repeat=2)):
        top, left = corners[k % len(corners)]
        square = image[top : top + square_px, left : left + square_px]
        tile[:, y : y + square_px, x : x + square_px] = square.transpose(2, 0, 1)
    return tile


def tissue(px: int, seed: int = 0, *, chunk_px: int = TILE_PX, pixels: np.ndarray | None = None) -> da.Array:
    """The tile, or other ``pixels``, repeated, ``(3, px, px)`` lazily, in planes of ``chunk_px``."""
    tile = da.from_array(tissue_tile(seed) if pixels is None else pixels, chunks=(1, TILE_PX, TILE_PX))
    repeats = -(-px // TILE_PX)
    whole = da.concatenate([da.concatenate([tile] * repeats, axis=1)] * repeats, axis=2)
    return whole[:, :px, :px].rechunk((1, chunk_px, chunk_px))


def squares(px: int, size: int, stride: int | None = None) -> tuple[np.ndarray, gpd.GeoDataFrame]:
    """Corners ``(n, 2)`` as y0, x0 of a grid of patches, and the squares."""
    corner = np.arange(0, px - size + 1, stride or size)
    origins = np.stack(np.meshgrid(corner, corner, indexing="ij"), axis=-1).reshape(-1, 2)
    shapes = gpd.GeoDataFrame(geometry=[box(x, y, x + size, y + size) for y, x in origins.tolist()])
    return origins, ShapesModel.parse(shapes, transformations={"global": Identity()})


def peer_store(path: Path, image: da.Array, shapes: gpd.GeoDataFrame) -> tuple[int, ...]:
    """Store written by ``sdata.write`` with the chunks of ``image``, which are returned as found on disk."""
    if not path.exists():
        element = Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
        sd.SpatialData(images={"he": element}, shapes={"patches": shapes}).write(path)
    return tuple(zarr.open_array(path / "images" / "he" / "s0", mode="r").chunks)


def our_store(path: Path, image: da.Array, layout: Layout) -> Path:
    """Store written by this package; path of its finest level."""
    if not path.exists():
        pixels = image.transpose(1, 2, 0)
        create_store(
            path, sd.SpatialData(), images={"he": StreamedImage(pixels, {"global": Identity()}, layout=layout)}
        )
    return path / "images" / "he" / "s0"


def copies(path: Path, n: int) -> list[Path]:
    """The store and ``n - 1`` others that hold the same bytes."""
    paths = [path]
    for k in range(1, n):
        other = path.with_name(f"{path.stem}-{k}.zarr")
        if not other.exists():
            shutil.copytree(path, other, copy_function=lambda source, target: Path(target).hardlink_to(source))
        paths.append(other)
    return paths
