"""Time and memory of what works on patches, on images of 2,000 to 60,000 px with 100 to 100,000 patches.

    python benchmarks/patch_scaling.py [--quick]

Every function runs in a process of its own, once on the smallest image (which imports and compiles), then on the larger one: CPU time,
and the rise of the peak of the resident memory above what the process held before. The time of a patch is that of the patches by
which an image has more than the one before it. Patches of 112 px at 1 µm per px, every 95 µm, on an image at .5 µm per px.
"""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import spatialdata as sd
from machine import keep_record, machine, record_options
from memory import peak_bytes, resident_bytes
from spatialdata.transformations import Scale
from tissue_image import tissue

import spatialsig as sp
from spatialsig.nn.signature import SignatureConfig
from spatialsig.store.commit import create_store
from spatialsig.store.layout import Layout
from spatialsig.store.stream import StreamedImage

UM_PER_PX = 0.5
PATCHES = {"patch_px": 112, "um_per_px": 1.0, "stride_um": 95.0, "min_tissue": 0.0}
GOALS = {"times_of_a_patch": 1.2, "extra_mib": 1024.0}
FUNCTIONS = ("find_tissue", "make_patches", "qc_patches", "normalize_stain", "predict")


def make_store(path: Path, px: int) -> None:
    """An H&E of that edge, which is tissue all over."""
    pixels = tissue(px).transpose(1, 2, 0)
    place = {"global": Scale([UM_PER_PX, UM_PER_PX], axes=("x", "y"))}
    attrs = {"spatialsig": {"sample": path.stem, "patient": path.stem, "um_per_global_px": 1.0}}
    create_store(path, sd.SpatialData(attrs=attrs), images={"he_image": StreamedImage(pixels, place, layout=Layout())})


def call(name: str, path: Path, model: Path) -> object:
    """Run a function on a store."""
    return {
        "find_tissue": lambda: sp.pp.find_tissue(path),
        "make_patches": lambda: sp.pp.make_patches(path, **PATCHES),  # type: ignore[arg-type]
        "qc_patches": lambda: sp.pp.qc_patches(path),
        "normalize_stain": lambda: sp.pp.normalize_stain(path),
        "predict": lambda: sp.tl.predict(path, sp.models.SignatureViT.load(model)),
    }[name]()


def child(name: str, small: str, large: str, model: str) -> None:
    """Run one function on the small image, then measured on the large one."""
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    call(name, Path(small), Path(model))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident_bytes(), time.process_time()
    call(name, Path(large), Path(model))
    print(json.dumps({"cpu_s": time.process_time() - start, "extra_mib": max(peak_bytes() - before, 0) / 2**20}))


def measure(small: Path, large: Path, model: Path) -> dict[str, dict[str, float]]:
    """Every function, in their order."""
    found = {}
    for name in FUNCTIONS:
        said = subprocess.run(
            [sys.executable, __file__, "--child", name, str(small), str(large), str(model)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if said.returncode:
            raise SystemExit(said.stderr[-2000:])
        found[name] = json.loads(said.stdout.splitlines()[-1])
        print(
            f"{large.stem:>8} {name:<16} {found[name]['cpu_s']:8.2f} s {found[name]['extra_mib']:8.0f} MiB", flush=True
        )
    return found


def per_unit(found: dict[int, dict[str, dict[str, float]]], units: dict[int, int]) -> dict[str, list[float]]:
    """Microseconds of each unit by which an image has more than the one before it, for every function."""
    sizes = sorted(found)
    return {
        name: [
            1e6 * (found[b][name]["cpu_s"] - found[a][name]["cpu_s"]) / (units[b] - units[a])
            for a, b in itertools.pairwise(sizes)
        ]
        for name in FUNCTIONS
    }


def main() -> None:
    """Measure, print and record."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    args = record_options(__doc__, "patch_scaling", quick="images of 1,000 and 2,000 px").parse_args()
    sizes = (1_000, 2_000) if args.quick else (2_000, 5_000, 15_000, 30_000, 60_000)
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    found: dict[int, dict[str, dict[str, float]]] = {}
    n_patches: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        names = ["a", "b", "c"]
        config = SignatureConfig(n_targets=len(names), n_latent=0, fusion="none", image_px=int(PATCHES["patch_px"]))
        sp.models.SignatureViT(
            config, names, target_mean=np.zeros(len(names)), target_std=np.ones(len(names)),
            patch_px=int(PATCHES["patch_px"]), um_per_px=PATCHES["um_per_px"],
        ).save(root / "model")  # fmt: skip
        make_store(root / "small.zarr", 1_000)
        for px in sizes:
            make_store(root / f"{px}.zarr", px)
            found[px] = measure(root / "small.zarr", root / f"{px}.zarr", root / "model")
            n_patches[px] = len(sp.io.read(root / f"{px}.zarr")["patches"])
            subprocess.run(["rm", "-rf", str(root / f"{px}.zarr")], check=True)
    of_patches = per_unit(found, n_patches)
    large = {name: values[1:] or values for name, values in of_patches.items()}  # the first is what starting costs
    result: dict[str, object] = {
        "machine": machine(), "goals": GOALS, "n_patches": n_patches, "images": found, "us_per_patch": of_patches,
        "times_of_a_patch": {name: float(max(values) / max(min(values), 1e-9)) for name, values in large.items()},
        "extra_mib": {name: [found[px][name]["extra_mib"] for px in sizes] for name in FUNCTIONS},
        "most_extra_mib": float(np.max([found[px][name]["extra_mib"] for px in sizes for name in FUNCTIONS])),
    }  # fmt: skip
    keep_record(args.json, result, shown=["n_patches", "us_per_patch", "times_of_a_patch", "extra_mib"])


if __name__ == "__main__":
    main()
