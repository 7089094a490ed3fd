"""What it costs that every result records what it was made from: CPU time of writing, and of looking before a step.

    python benchmarks/lineage.py [--quick]

A slide in a store, of as many cells as a Xenium slide has. Steps that write are measured in turns as they are, without the checks
of what they read, and without records and checks (taken out): the last two differ by what a record adds to writing. Looking is the
check of everything that is there, on a slide that was just opened.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from machine import cpu_seconds, keep_record, machine, record_options
from scipy import sparse

import spatialsig as sp
from spatialsig.slide.lineage import Lineage
from spatialsig.slide.slides import open_slides

MAX_SHARE, MAX_MS = 0.02, 50.0  # goals: of the time of writing, and to look at a slide before a step


def large_slide(path: Path, n_cells: int) -> None:
    """A toy slide whose cells are repeated, a little beside each other, up to ``n_cells``."""
    slide = sp.datasets.toy(size_um=500)
    cells = slide["table"]
    times = -(-n_cells // cells.n_obs)
    large = cells[np.tile(np.arange(cells.n_obs), times)].copy()
    large.obs_names = [f"cell-{k}" for k in range(large.n_obs)]
    large.obs["cell_id"] = large.obs_names
    large.X = sparse.csr_matrix(large.X)
    slide["table"] = large
    del slide.shapes["cell_circles"]
    slide["table"].uns.pop("spatialdata_attrs")
    sp.io.write(slide, path)


def steps(path: Path) -> None:
    """Steps that read counts or positions and write for every cell or patch."""
    sp.pp.make_patches(path, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(path)
    sp.tl.score_cells(path, "seed", test_fold=None)
    sp.tl.aggregate_patches(path, min_cells=5, use_rep=None)


def without_checks(path: Path) -> None:
    """The same steps by a package that records what it writes and checks nothing that it reads."""
    with patch.object(Lineage, "check", lambda *_: None):
        steps(path)


def without_records(path: Path) -> None:
    """The same steps by a package that records and checks nothing."""
    with patch.object(
        Lineage, "record", lambda self, part, *_, **__: self.slide.attrs.get("lineage", {}).pop(part, None)
    ):
        without_checks(path)


def look(path: Path) -> None:
    """Check everything that is recorded on a slide that was just opened."""
    (slide,) = open_slides(path)
    list(slide.lineage.rows())


def main() -> None:
    """Measure, print and record."""
    args = record_options(__doc__, "lineage", quick="10,000 cells, 2 repeats").parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    n_cells, repeats = (10_000, 2) if args.quick else (300_000, 15)  # fewer do not tell 2 % from noise
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "slide.zarr"
        large_slide(path, n_cells)
        steps(path)  # compiles
        ways = {"as they are": steps, "without checks": without_checks, "without records": without_records}
        spent = cpu_seconds({name: partial(way, path) for name, way in ways.items()}, repeats)
        steps(path)
        opened = cpu_seconds({"open": lambda: list(open_slides(path)), "open and look": lambda: look(path)}, repeats)
    bare = spent["without records"]
    looking = 1000 * (opened["open and look"] - opened["open"])
    result: dict[str, object] = {
        "machine": machine(),
        "n_cells": n_cells,
        "cpu_s": spent,
        "records_share": spent["without checks"] / bare - 1,
        "records_and_checks_share": spent["as they are"] / bare - 1,
        "look_ms": looking,
        "goals": {"records_share": MAX_SHARE, "look_ms": MAX_MS},
    }
    keep_record(args.json, result, shown=["records_share", "records_and_checks_share", "look_ms"])


if __name__ == "__main__":
    main()
