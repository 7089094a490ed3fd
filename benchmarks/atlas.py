"""The page that zooms: its size, the time and memory of writing it, for a slide of 40,000 x 30,000 px.

    python benchmarks/atlas.py [--quick]

The H&E is tissue all over, which compresses least; 24,000 patches with eight measured and predicted signatures and intervals.
"""

from __future__ import annotations

import gc
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
from spatialsig.slide.slides import Slide
from spatialsig.store.commit import create_store
from spatialsig.store.layout import Layout
from spatialsig.store.stream import StreamedImage

UM_PER_PX = 0.25
N_SIGNATURES = 8
GOALS = {"mb": 30.0}


def make_slide(path: Path, width: int, height: int) -> None:
    """A store with patches of 56 µm, and measured and predicted scores of each."""
    pixels = tissue(width)[:, :height].transpose(1, 2, 0)
    place = {"global": Scale([UM_PER_PX, UM_PER_PX], axes=("x", "y"))}
    attrs = {"spatialsig": {"sample": path.stem, "patient": "P", "um_per_global_px": 1.0}}
    create_store(path, sd.SpatialData(attrs=attrs), images={"he_image": StreamedImage(pixels, place, layout=Layout())})
    sp.pp.make_patches(path, patch_px=112, um_per_px=0.5, min_tissue=0.0)
    slide = sp.io.read(path)
    patches, rng = Slide(slide).patches(), np.random.default_rng(0)
    names = [f"signature {k}" for k in range(N_SIGNATURES)]
    scores = rng.normal(size=(len(patches), N_SIGNATURES)).astype(np.float32)
    for key in ("signatures", "signatures_pred"):
        table = patches.table(scores + rng.normal(size=scores.shape) / 3, names, n_cells=np.full(len(patches), 30))
        if key == "signatures_pred":
            table.layers["lower"], table.layers["upper"] = table.X - 1, table.X + 1
        slide[key] = table
        slide.write_element(key)


def main() -> None:
    """Measure, print and record."""
    args = record_options(__doc__, "atlas", quick="4,000 x 3,000 px").parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    width, height = (4_000, 3_000) if args.quick else (40_000, 30_000)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "slide.zarr"
        make_slide(path, width, height)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before, start = resident_bytes(), time.process_time()
        page = sp.pl.atlas(path, Path(scratch) / "atlas.html")
        result: dict[str, object] = {
            "machine": machine(),
            "goals": GOALS,
            "px": [width, height],
            "n_patches": len(sp.io.read(path)["patches"]),
            "mb": page.stat().st_size / 1e6,
            "cpu_s": time.process_time() - start,
            "extra_mib": max(peak_bytes() - before, 0) / 2**20,
        }
    keep_record(args.json, result, shown=["n_patches", "mb", "cpu_s", "extra_mib"])


if __name__ == "__main__":
    main()
