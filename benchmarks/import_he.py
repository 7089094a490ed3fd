"""Import an H&E into a store: ours beside spatialdata-io, each in a process of its own.

The image is a JPEG-compressed tiled OME-TIFF made on the fly: tiles of a rendered synthetic H&E, turned, mirrored and
tinted at random, so that JPEG and zstd find what they find in tissue. The peer is what `spatialdata_io.xenium` does with
an H&E (`xenium_aligned_image`, then `sdata.write`). Both run by turns; medians of the repeats are reported.

    python benchmarks/import_he.py [--quick] [--height 30000 --width 40000] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from machine import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
TILE_PX = 512
QUALITY = 90
NOISE = 11.0  # gray levels; JPEG then shrinks 9 times, as it does with scans
UM_PER_PX = 0.25
N_VARIANTS = 96
GOAL_SHARE_OF_PEER = 0.5
GOAL_PEAK_GIB = 2.0
PEER_PX = 10_000
QUICK_PX = 4_000


def tile_variants(rng: np.random.Generator) -> list[bytes]:
    """JPEG tiles of tissue in many guises."""
    import imagecodecs

    import spatialsig as sp

    sp.settings.progress = False
    slide = sp.datasets.toy(seed=3, size_um=512, he_um_per_px=UM_PER_PX)
    tissue = slide["he_image"]["scale0"]["image"].transpose("y", "x", "c").to_numpy()
    tiles = []
    for _ in range(N_VARIANTS):
        y, x = (int(rng.integers(0, edge - TILE_PX)) for edge in tissue.shape[:2])
        tile = np.rot90(tissue[y : y + TILE_PX, x : x + TILE_PX], int(rng.integers(4)))
        tile = np.clip(tile * rng.uniform(0.93, 1.04, 3) + rng.normal(0, NOISE, tile.shape), 0, 255).astype(np.uint8)
        options = {"level": QUALITY, "colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": "420"}
        tiles.append(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), **options))
    return tiles


def write_image(path: Path, height: int, width: int) -> None:
    """Tiled OME-TIFF of any size; never in memory as a whole."""
    import tifffile

    rng = np.random.default_rng(0)
    tiles = tile_variants(rng)
    n_tiles = -(-height // TILE_PX) * -(-width // TILE_PX)

    def chosen() -> Iterator[bytes]:
        for k in rng.integers(0, len(tiles), n_tiles):
            yield tiles[k]

    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        tif.write(
            chosen(),
            shape=(height, width, 3),
            dtype=np.uint8,
            tile=(TILE_PX, TILE_PX),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            metadata={"axes": "YXS", "PhysicalSizeX": UM_PER_PX, "PhysicalSizeY": UM_PER_PX},
        )


def import_ours(image: Path, out: Path) -> None:
    """Stream into our layout."""
    import spatialsig as sp

    sp.io.read_he(image, out=out)


def import_peer(image: Path, out: Path) -> None:
    """Read and write as spatialdata-io does."""
    import spatialdata as sd
    from spatialdata_io import xenium_aligned_image

    options = {"chunks": (1, 4096, 4096), "scale_factors": [2, 2, 2, 2]}
    element = xenium_aligned_image(image, None, image_models_kwargs=options, rgba=True)
    sd.SpatialData.init_from_elements({"he_image": element}).write(out)


def child(who: str, image: Path, out: Path) -> None:
    """Import once and print what it took; modules are loaded before the clock starts."""
    import spatialdata_io  # noqa: F401

    import spatialsig as sp
    from spatialsig.io import _he  # noqa: F401
    from spatialsig.io.images import tiff  # noqa: F401

    sp.settings.progress = False
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cpu, wall = time.process_time(), time.perf_counter()
    {"ours": import_ours, "peer": import_peer}[who](image, out)
    result = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "gib_before": before,
        "store_gib": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 2**30,
    }
    print(json.dumps(result))


def measure(who: str, image: Path, folder: Path) -> dict[str, float]:
    """Run one import in a fresh process."""
    out = folder / f"{who}.zarr"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--child", who, str(image), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(out)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of every figure."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def compare(folder: Path, px: int, repeats: int) -> dict[str, object]:
    """Both ways by turns on one image."""
    image = folder / f"he_{px}.ome.tif"
    write_image(image, px, px)
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for who, found in runs.items():
            found.append(measure(who, image, folder))
    result: dict[str, object] = {"height": px, "width": px, "file_gib": round(image.stat().st_size / 2**30, 3)}
    result |= {who: medians(found) for who, found in runs.items()}
    share = medians(runs["ours"])["seconds"] / medians(runs["peer"])["seconds"]
    image.unlink()
    return result | {"share_of_peer": round(share, 3), "goal": GOAL_SHARE_OF_PEER, "met": share <= GOAL_SHARE_OF_PEER}


def large(folder: Path, height: int, width: int) -> dict[str, object]:
    """Ours alone on a whole slide."""
    image = folder / "he_large.ome.tif"
    write_image(image, height, width)
    found = medians([measure("ours", image, folder)])
    rate = height * width / 1e6 / found["seconds"]
    result = {"height": height, "width": width, "file_gib": round(image.stat().st_size / 2**30, 3), "ours": found}
    image.unlink()
    met = found["peak_gib"] < GOAL_PEAK_GIB
    return result | {"mpx_per_s": round(rate, 1), "goal_peak_gib": GOAL_PEAK_GIB, "met": met}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PX} x {QUICK_PX} px, once, no whole slide")
    parser.add_argument("--height", type=int, default=30_000)
    parser.add_argument("--width", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "import_he.json")
    parser.add_argument("--dir", type=Path, default=None, help="where to write images and stores")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "IMAGE", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), Path(args.child[2]))
        return
    result: dict[str, object] = {"machine": machine()}
    result["codec"] = f"JPEG q{QUALITY} 4:2:0, tiles of {TILE_PX} px"
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        px, repeats = (QUICK_PX, 1) if args.quick else (PEER_PX, args.repeats)
        result["beside_peer"] = compare(folder, px, repeats)
        print(json.dumps(result["beside_peer"], indent=2))
        if not args.quick:
            result["whole_slide"] = large(folder, args.height, args.width)
            print(json.dumps(result["whole_slide"], indent=2))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
