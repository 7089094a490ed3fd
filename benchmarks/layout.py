"""Write one H&E with ours and with sdata.write: seconds, and bytes on disk.

    python benchmarks/layout.py [--quick]

Goals: at least 3 times as fast (10,000 px, 4 levels); at most 1.1 times the bytes in the default layout.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import spatialdata as sd
from machine import record_options
from scipy.ndimage import zoom
from spatialdata.models import Image2DModel

import spatialsig as sp
from spatialsig.store.commit import create_store
from spatialsig.store.layout import as_layout
from spatialsig.store.stream import StreamedImage

if TYPE_CHECKING:
    from collections.abc import Callable


def tissue(edge: int) -> np.ndarray:
    """``(c, y, x)`` uint8: smooth structures of some ten pixels and a little noise of the camera."""
    rng = np.random.default_rng(0)
    tile = zoom(rng.normal(180, 35, (3, 128, 128)).astype(np.float32), (1, 8, 8), order=1)
    tile = np.clip(tile + rng.normal(0, 2, tile.shape), 0, 255).astype(np.uint8)
    times = -(-edge // tile.shape[1])
    return np.ascontiguousarray(np.tile(tile, (1, times, times))[:, :edge, :edge])


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "images").rglob("*") if file.is_file())


def main() -> None:
    parser = record_options(__doc__, "layout", quick="4,000 px instead of 10,000, once")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    edge, repeats = (4000, 1) if args.quick else (10_000, 3)
    pixels = tissue(edge)
    element = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], scale_factors=[2, 2, 2])
    plain = sd.SpatialData(images={"he": element})

    def ours(layout: str) -> Callable[[Path], None]:
        image = StreamedImage(np.moveaxis(pixels, 0, 2), {}, layout=as_layout(layout))
        return lambda path: create_store(path, sd.SpatialData(), images={"he": image})

    writers = {
        "sdata.write": lambda path: plain.write(path),
        "ours, default": ours("default"),
        "ours, speed": ours("speed"),
        "ours, from the element": lambda path: create_store(path, plain),
    }
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(repeats):
            for name, write in writers.items():
                path = Path(directory) / "s.zarr"
                started = time.perf_counter()
                write(path)
                seconds[name].append(time.perf_counter() - started)
                sizes[name] = size(path)
                shutil.rmtree(path)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    found = {
        "edge_px": edge,
        "seconds": medians,
        "times_as_fast": round(medians["sdata.write"] / medians["ours, default"], 2),
        "goal_times_as_fast": 3.0,
        "bytes": sizes,
        "share_of_bytes": round(sizes["ours, default"] / sizes["sdata.write"], 3),
        "goal_share_of_bytes": 1.1,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
