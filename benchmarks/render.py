"""How long a synthetic slide takes: painting the H&E, spoiling it, and writing the whole folder with its truth.

Medians of wall and CPU seconds after a small slide that compiles the kernels. The goal is at least 20,000 cells painted
in less than 10 s on two idle cores; on a busy machine read the CPU seconds.

    python benchmarks/render.py [--quick] [--json benchmarks/results/render.json]
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

from machine import record_options

import spatialsig as sp
from spatialsig.datasets.synthetic.image.render import paint_he, render_he
from spatialsig.datasets.synthetic.slide import Recipe, SyntheticSlide, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_UM, QUICK_UM, WARM_UM = 2250.0, 500.0, 250.0
SPOILED = {"n_folds": 2, "n_pen": 2, "defocus_share": 0.1}
# 20,000 cells: CPU seconds of painting before the kernels were rewritten, what was expected of that, and the goal;
# a whole slide of 2 mm took 24 s of wall time on two cores, 14 s were expected
EXPECTED = {"paint_cpu_s_before": 17.5, "paint_cpu_s": 9.5, "paint_wall_s_goal": 10.0, "whole_2mm_wall_s": 14.0}


def timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median wall and CPU seconds of a call."""
    wall, cpu = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return {"wall_s": round(statistics.median(wall), 2), "cpu_s": round(statistics.median(cpu), 2)}


def slide_of(size_um: float, **options: float) -> SyntheticSlide:
    recipe = Recipe(size_um=size_um, **options)
    return make_slide(recipe, seed=0, index=0, sample="S1", patient="P1", patient_index=0)


def write_slide(size_um: float, **options: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sp.datasets.synthetic_xenium(folder, n_slides=1, size_um=size_um, **options)


def paint_plain(slide: SyntheticSlide) -> object:
    return render_he(slide.nuclei, slide.tissue, slide.frames, slide.stain, seed=slide.pixel_seed)


def measure(size_um: float, repeats: int) -> dict[str, Any]:
    plain, spoiled = slide_of(size_um), slide_of(size_um, **SPOILED)
    result: dict[str, Any] = {
        "cells": len(plain.tissue.xy_um),
        "he_megapixels": round(plain.frames.he_shape[0] * plain.frames.he_shape[1] / 1e6, 1),
        "cores": os.cpu_count(),
        "threads": sp.settings.threads,
    }
    result["paint"] = timed(lambda: paint_plain(plain), repeats)
    result["paint_and_spoil"] = timed(lambda: paint_he(spoiled), repeats)
    result["whole_slide"] = timed(lambda: write_slide(size_um), 1)
    result["whole_slide_without_transcripts"] = timed(lambda: write_slide(size_um, transcripts=False), 1)
    per_20k = 20_000 / len(plain.tissue.xy_um)
    scaled = {f"paint_20k_cells_{name}": round(per_20k * value, 2) for name, value in result["paint"].items()}
    return result | scaled | {"expected": EXPECTED}


def main() -> None:
    parser = record_options(__doc__, "render", quick="a slide of half a millimetre, once")
    args = parser.parse_args()
    sp.settings.progress = False
    write_slide(WARM_UM, **SPOILED)
    result = measure(QUICK_UM if args.quick else SIZE_UM, 1 if args.quick else 3)
    text = json.dumps(result, indent=2)
    print(text)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
