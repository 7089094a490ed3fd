"""Random patches of 512 px from a large H&E: our reader beside the ways people have today.

CPU time per patch, all ways interleaved in one process, medians over the rounds; every patch lies on the chunk grid.
``default`` is what ``sdata.write`` makes of an image in planes of 4,096 px; ``512`` the same with chunks of 3 x 512 x 512.
``camera`` is made tissue whose noise nothing compresses well (zstd gains 1.3); ``scan`` is tissue of a real slide, which
was a JPEG once (1.6), where the data lie beside the repository.

Limits: our reader cannot be faster than the codec (``zstd decode alone``), nor, in the speed layout, than the kernel's
copy out of the page cache and the checksum (``copy alone``, ``crc32c alone``); ``attainable`` are the ratios with nothing
else. Predicted for chunks at zstd level -1: 54.7 / (.27 + .2) = 115 x on the scan, and no change on camera noise, where
level 1 stays: 58 x is its limit. For the speed layout: 54.7 / (.09 + .04) = 420 x with chunks in the processor's cache.

    python benchmarks/patch_reads.py [--quick] [--json PATH] [--directory DIR] [--data FOLDER]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1")

import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c
import imagecodecs
import numpy as np
import spatialdata as sd
import zarr
from machine import record_options
from PIL import Image
from spatialdata.dataloader import ImageTilesDataset
from tissue_image import our_store, peer_store, scanned_tile, squares, tissue

from spatialsig._settings import settings
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource, read_patches
from spatialsig.data.resources import batch_memory
from spatialsig.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
PX, BATCH = 512, 16
GOALS = {
    "ours, zstd 512 | ImageTilesDataset, default": 90.0,
    "ours, zstd 512 | ImageTilesDataset, 512": 30.0,
    "ours, speed 512 | ImageTilesDataset, default": 500.0,
    "ours, zstd 512 | zstd decode alone": 0.75,
    "ours, speed 512 | copy and crc32c alone": 0.75,
    "ours, default store by blocks, first epoch | ImageTilesDataset, default": 40.0,
    "ours, default store, cached epoch | ImageTilesDataset, default": 300.0,
}


def cpu_ms(ways: dict[str, tuple[Callable[[np.ndarray], object], int]], n: int, rounds: int) -> dict[str, float]:
    """Median CPU time per patch, ms; each way reads its number of patches in turn, other ones each round."""
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first round opens files
        for name, (way, count) in ways.items():
            rows = rng.permutation(n)[:count]
            start = time.process_time()
            way(rows)
            spent[name].append((time.process_time() - start) / count * 1e3)
    return {name: float(np.median(times[1:])) for name, times in spent.items()}


def tiles(path: Path) -> Callable[[np.ndarray], object]:
    """Spatialdata's data set of image tiles."""
    dataset = ImageTilesDataset(sd.read_zarr(path), {"patches": "he"}, {"patches": "global"}, tile_dim_in_units=PX)

    def read(rows: np.ndarray) -> None:
        for row in rows:
            tile = dataset[int(row)]["he"]
            assert np.asarray(tile.data).shape == (3, PX, PX)

    return read


def windows(array: object, origins: np.ndarray) -> Callable[[np.ndarray], object]:
    """Slices of an array-like."""
    return lambda rows: [np.asarray(array[:, y : y + PX, x : x + PX]) for y, x in origins[rows].tolist()]


def xarray_of(path: Path, origins: np.ndarray) -> Callable[[np.ndarray], object]:
    """``isel`` on the lazy image."""
    image = sd.read_zarr(path)["he"]

    def read(rows: np.ndarray) -> None:
        for y, x in origins[rows].tolist():
            image.isel(y=slice(y, y + PX), x=slice(x, x + PX)).compute()

    return read


def png(directory: Path, array: object, origins: np.ndarray, n: int) -> Callable[[np.ndarray], object]:
    """One file per patch, read with PIL."""
    directory.mkdir(exist_ok=True)
    for row, (y, x) in enumerate(origins[:n].tolist()):
        pixels = np.asarray(array[:, y : y + PX, x : x + PX]).transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(directory / f"{row}.png", compress_level=1)
    return lambda rows: [np.asarray(Image.open(directory / f"{row % n}.png")) for row in rows]


def decode_alone(path: Path, n: int) -> Callable[[np.ndarray], object]:
    """The codec on chunks that are in memory already, into memory that is there already."""
    across = zarr.open_array(path, mode="r").shape[2] // PX
    chunks = [(path / "c" / "0" / str(k // across) / str(k % across)).read_bytes() for k in range(min(n, 256))]
    out = np.empty(3 * PX * PX, np.uint8)
    return lambda rows: [imagecodecs.zstd_decode(chunks[row % len(chunks)], out=out) for row in rows]


def ours(path: Path, origins: np.ndarray) -> Callable[[np.ndarray], object]:
    """Batches of our reader."""
    source = our_source(path, origins)
    return lambda rows: [read_patches(source, rows[k : k + BATCH]) for k in range(0, len(rows), BATCH)]


def our_source(path: Path, origins: np.ndarray) -> PatchSource:
    """Patches of one level."""
    return PatchSource(
        path.parent.name, (ImageLevel(path, zarr.open_array(path, mode="r").shape[1:]),), origins, PX, PX
    )


def epochs(path: Path, origins: np.ndarray, *, cached: bool) -> tuple[float, float, bool]:
    """CPU ms per patch of a first and a second shuffled epoch through the loader, and whether it went by blocks."""
    source = our_source(path, origins)
    cache_mb = len(source) * 3 * PX * PX / 2**20 + 1 if cached else None
    targets = [np.zeros((len(source), 1), np.float32)]
    batches = PatchBatches([source], targets=targets, batch_size=BATCH, cache_mb=cache_mb)
    spent = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        start = time.process_time()
        for _ in batches:
            pass
        spent.append((time.process_time() - start) / len(source) * 1e3)
    return spent[0], spent[1], batches.block is not None


def take_alone(path: Path, n: int, *, checked: bool) -> Callable[[np.ndarray], object]:
    """Bytes of the speed layout copied out of the page cache into memory that is there already; and their checksum."""
    across = zarr.open_array(path, mode="r").shape[2] // PX
    out = batch_memory((BATCH, 3 * PX * PX))

    def read(rows: np.ndarray) -> None:
        for k, row in enumerate(rows.tolist()):
            descriptor = os.open(path / "c" / "0" / str(row // across) / str(row % across), os.O_RDONLY)
            os.readv(descriptor, [out[k % BATCH].data])
            os.close(descriptor)
            if checked:
                google_crc32c.value(out[k % BATCH])

    return lambda rows: read(rows % n)


def measure(directory: Path, px: int, rounds: int, slow: int, tile: np.ndarray | None) -> dict[str, object]:
    """CPU ms per patch of every way; ``slow`` patches per round of the ways that take tens of ms."""
    directory.mkdir(parents=True, exist_ok=True)
    origins, shapes = squares(px, PX)
    default, same = directory / "default.zarr", directory / "chunks512.zarr"
    chunks = {
        "default": peer_store(default, tissue(px, chunk_px=4096, pixels=tile), shapes),
        "512": peer_store(same, tissue(px, pixels=tile).rechunk((3, PX, PX)), shapes),
    }
    image = tissue(px, pixels=tile)
    layouts = {f"{name} {edge}": Layout(name, edge) for name in ("default", "speed") for edge in (PX, 256)}
    stores = {
        name.replace("default", "zstd"): our_store(directory / f"{name.replace(' ', '')}.zarr", image, layout)
        for name, layout in layouts.items()
    }
    array = zarr.open_array(stores["zstd 512"], mode="r")
    level = Path("images") / "he" / "s0"
    fast = 4 * BATCH
    ways = {
        "ImageTilesDataset, default": (tiles(default), slow),
        "ImageTilesDataset, 512": (tiles(same), slow),
        "xarray isel, default": (xarray_of(default, origins), slow),
        "xarray isel, 512": (xarray_of(same, origins), slow),
        "zarr-python, default": (windows(zarr.open_array(default / level, mode="r"), origins), slow),
        "zarr-python, 512": (windows(zarr.open_array(same / level, mode="r"), origins), slow),
        "PNG and PIL": (png(directory / "png", array, origins, 2 * BATCH), slow),
        "zstd decode alone": (decode_alone(stores["zstd 512"], len(origins)), fast),
        "copy alone": (take_alone(stores["speed 512"], len(origins), checked=False), fast),
        "copy and crc32c alone": (take_alone(stores["speed 512"], len(origins), checked=True), fast),
        **{f"ours, {name}": (ours(path, origins), fast) for name, path in stores.items()},
        "ours, 512": (ours(same / level, origins), fast),
    }
    found = cpu_ms(ways, len(origins), rounds)
    first, second, by_block = epochs(default / level, origins, cached=True)
    found["ours, default store, cached epoch"] = second
    found["ours, default store by blocks, first epoch"] = epochs(default / level, origins, cached=False)[0]
    stored = size(stores["zstd 512"])
    return {
        "px": px,
        "patches": len(origins),
        "chunks": chunks,
        "zstd_ratio": round(3 * px * px / stored, 3),
        "bytes_per_store_of_same_chunks": round(
            stored / size(same / level), 3
        ),  # planes of 4,096 px see the tile repeat
        "by_block": by_block,
        "first_epoch_filling_the_cache": round(first, 3),
        "cpu_ms": {name: round(value, 4) for name, value in found.items()},
        "ratios": {
            pair: {"ratio": round(found[b] / found[a], 2), "goal": goal}
            for pair, goal in GOALS.items()
            for a, b in [pair.split(" | ")]
        },
        "attainable": {
            name: round(found["ImageTilesDataset, default"] / found[name], 1)
            for name in ("zstd decode alone", "copy and crc32c alone")
        },
    }


def size(path: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main() -> None:
    """Print and record."""
    parser = record_options(__doc__, "patch_reads", quick="4,096 px instead of 20,480")
    parser.add_argument("--directory", type=Path, help="keep the stores here")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="real slides")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    settings.progress = False
    scan = args.data / "wsi" / "CMU-1-Small-Region.svs"
    kinds = {"camera": None} | ({"scan": scanned_tile(scan)} if scan.exists() else {})
    sizes = (4096, 3, 8) if args.quick else (20480, 7, 16)
    result: dict[str, dict[str, object]] = {}
    for kind, tile in kinds.items():
        with tempfile.TemporaryDirectory() as scratch:
            result[kind] = measure((args.directory or Path(scratch)) / kind, *sizes, tile)
        show(kind, result[kind])
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


def show(kind: str, found: dict[str, object]) -> None:
    """Print what was measured on one kind of tissue."""
    print(
        f"\n{kind}: zstd gains {found['zstd_ratio']}, {found['bytes_per_store_of_same_chunks']} x the bytes of zstd 3"
    )
    for name, value in found["cpu_ms"].items():
        print(f"{name:46s} {value:9.3f} ms")
    for pair, ratio in found["ratios"].items():
        print(f"{pair:78s} {ratio['ratio']:8.2f} x  (goal {ratio['goal']:g})")
    print(f"attainable with nothing but that: {found['attainable']}")


if __name__ == "__main__":
    main()
