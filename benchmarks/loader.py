"""Epochs over four slides: our batches in one process and from workers, beside PNG files and a torch ``DataLoader``.

Every way runs in a process of its own; memory is the peak of what it and its workers take together (proportional set
size: pages that they share are counted once).

    python benchmarks/loader.py [--quick] [--json PATH] [--directory DIR]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1")

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PX, BATCH, N_SLIDES = 512, 16, 4
LIMIT_MB = 1024.0  # goal: an epoch over four slides of 20,000 px takes less memory than this
HANG_S = 60.0  # a way that gives no batch for so long hangs
WAYS = {
    "ours, threads": ("ours", 0, ""),
    "ours, 1 forked worker": ("ours", 1, "fork"),
    "ours, 2 forked workers": ("ours", 2, "fork"),
    "ours, 1 spawned worker": ("ours", 1, "spawn"),
    "ours, 2 spawned workers": ("ours", 2, "spawn"),
    "ours, default store, threads": ("default", 0, ""),
    "ours, default store, 2 forked workers": ("default", 2, "fork"),
    "PNG, DataLoader": ("png", 0, ""),
    "PNG, DataLoader, 2 forked workers": ("png", 2, "fork"),
}


class Peak(threading.Thread):
    """Highest proportional set size of this process and its children, MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mb, self._end = 0.0, threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.2):
            self.mb = max(self.mb, taken_mb())

    def stop(self) -> float:
        self._end.set()
        self.join()
        return self.mb


def taken_mb() -> float:
    """Proportional set size of this process and all below it, MiB."""
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has just ended
    return total / 1024


def loader_of(kind: str, workers: int, method: str, directory: Path, px: int):
    """What gives the batches, and the number of patches."""
    from tissue_image import squares
    from torch.utils.data import DataLoader

    origins, _ = squares(px, PX)
    options = {"num_workers": workers, **({"multiprocessing_context": method, "timeout": HANG_S} if method else {})}
    if kind == "png":
        from torch.utils.data import Dataset

        class Files(Dataset):
            def __len__(self) -> int:
                return N_SLIDES * len(origins)

            def __getitem__(self, row: int) -> np.ndarray:
                from PIL import Image

                files = sorted((directory / "png").glob("*.png")) if not hasattr(self, "files") else self.files
                self.files = files
                return np.asarray(Image.open(files[row % len(files)])).transpose(2, 0, 1)

        return DataLoader(Files(), batch_size=BATCH, shuffle=True, **options), N_SLIDES * len(origins)
    from spatialsig.data.loader import PatchBatches
    from spatialsig.data.passes import PatchDataset
    from spatialsig.data.patches import ImageLevel, PatchSource

    name = "slide" if kind == "ours" else "default"
    paths = [directory / f"{name}{f'-{k}' if k else ''}.zarr" / "images" / "he" / "s0" for k in range(N_SLIDES)]
    sources = [PatchSource(str(k), (ImageLevel(p, (px, px)),), origins, PX, PX) for k, p in enumerate(paths)]
    targets = [np.zeros((len(origins), 1), np.float32)] * N_SLIDES
    batches = PatchBatches(sources, targets=targets, batch_size=BATCH)
    given = DataLoader(PatchDataset(batches), batch_size=None, **options) if workers else batches
    return given, batches.n_patches


def one_way(kind: str, workers: int, method: str, directory: Path, px: int, seconds: float) -> dict[str, float]:
    """Read one epoch, or for so many seconds; the first batch is not counted."""
    warnings.simplefilter("ignore")
    loader, n_patches = loader_of(kind, workers, method, directory, px)
    before, peak = taken_mb(), Peak()
    peak.start()
    start = time.perf_counter()
    iterator = iter(loader)
    next(iterator)
    first = time.perf_counter()
    n = 0
    for n, _ in enumerate(iterator, start=1):  # noqa: B007 - counted
        if time.perf_counter() - first > seconds:
            break
    spent = time.perf_counter() - first
    return {
        "batches_per_s": n / spent,
        "patches_per_s": n * BATCH / spent,
        "first_batch_s": first - start,
        "peak_mb": peak.stop(),
        "imports_mb": before,
        "share_of_epoch": min((n + 1) * BATCH / n_patches, 1.0),
    }


def make_stores(directory: Path, px: int) -> None:
    """Four slides in our layout, four as ``sdata.write`` makes them, and PNG files."""
    from PIL import Image
    from tissue_image import copies, our_store, peer_store, squares, tissue, tissue_tile

    from spatialsig.store.layout import Layout

    _, shapes = squares(px, PX)
    our_store(directory / "slide.zarr", tissue(px), Layout("default", PX))
    peer_store(directory / "default.zarr", tissue(px, chunk_px=4096), shapes)
    for name in ("slide", "default"):
        copies(directory / f"{name}.zarr", N_SLIDES)
    (directory / "png").mkdir(exist_ok=True)
    tile = tissue_tile().transpose(1, 2, 0)
    for k in range(16):
        y, x = PX * (k // 4), PX * (k % 4)
        file = directory / "png" / f"{k}.png"
        Image.fromarray(np.ascontiguousarray(tile[y : y + PX, x : x + PX])).save(file, compress_level=1)


def in_own_process(name: str, directory: Path, px: int, seconds: float) -> dict[str, float | str]:
    """Run one way in a fresh process; a hang is a result as well."""
    command = [sys.executable, "-W", "ignore", __file__, "--way", name, "--px", str(px), "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            [*command, "--directory", str(directory)],
            capture_output=True,
            text=True,
            timeout=10 * seconds + 3 * HANG_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "hangs"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    result: dict[str, float | str] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,096 px instead of 20,480, and 2 s for each way")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "loader.json")
    parser.add_argument("--directory", type=Path, help="keep the stores here")
    parser.add_argument("--way", choices=list(WAYS), help="run this one only and print it as JSON")
    parser.add_argument("--px", type=int)
    parser.add_argument("--seconds", type=float)
    args = parser.parse_args()
    px = args.px or (4096 if args.quick else 20480)
    seconds = args.seconds or (2.0 if args.quick else 60.0)
    if args.way:
        print(json.dumps(one_way(*WAYS[args.way], args.directory, px, seconds)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        directory = args.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        make_stores(directory, px)
        results = {name: in_own_process(name, directory, px, seconds) for name in WAYS}
    for name, result in results.items():
        if "error" in result:
            print(f"{name:40s} {result['error']}")
            continue
        print(
            f"{name:40s} {result['patches_per_s']:8.0f} patches/s  first batch {result['first_batch_s']:5.1f} s  "
            f"peak {result['peak_mb']:6.0f} MiB (goal {LIMIT_MB:.0f}; imports alone {result['imports_mb']:.0f})"
        )
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"px": px, "slides": N_SLIDES, "ways": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
