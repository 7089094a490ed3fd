"""``run.json`` of a run: versions, machine, parameters, seeds, hashes of inputs and results."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spatialsig._files import write_text
from spatialsig._hashing import file_ends_hash
from spatialsig._settings import settings
from spatialsig._versions import versions
from spatialsig.io._manifest import read_csv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.pipeline.run_config import RunConfig
    from spatialsig.pipeline.run_files import RunFiles

PACKAGES = (
    "spatialsig", "spatialdata", "spatialdata-io", "anndata", "scanpy", "squidpy", "torch", "lightning", "numpy", "scipy",
    "scikit-learn", "numba", "pandas", "zarr", "tensorstore", "tifffile",
)  # fmt: skip
TABLES = ("evaluation", "coverage", "stains", "summary", "comparisons", "findings")


def input_fingerprints(bundles: Path) -> dict[str, dict[str, str]]:
    """Fingerprint of every file of each bundle, its H&E and alignment, by sample; empty without a readable csv."""
    if not bundles.is_file():
        return {}
    rows = read_csv(bundles, needed=("sample", "bundle"))
    found = {}
    for row in rows.to_dict("records"):
        named = [row.get(column) for column in ("bundle", "he_image", "he_alignment")]
        places = [bundles.parent / value for value in named if isinstance(value, str)]
        files = [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
        found[str(row["sample"])] = {file.name: file_ends_hash(file) for file in files if file.is_file()}
    return found


def write_record(
    config: RunConfig, files: RunFiles, *, inputs: Mapping[str, Mapping[str, str]], seconds: Mapping[str, float]
) -> Path:
    """Write ``run.json``: versions, machine, parameters, seeds, hashes of inputs and results, seconds of each step."""
    models = files.model_files()
    record = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(PACKAGES),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": settings.threads,
        },
        "parameters": config.model_dump(mode="json"),
        "seeds": {"run": config.seed} | {name: found["run"].get("seed") for name, found in models.items()},
        "inputs": inputs,
        "models": {name: found["sha256"] for name, found in models.items()},
        "tables": {name: file_ends_hash(files.table(name)) for name in TABLES if files.table(name).is_file()},
        "seconds": seconds,
    }
    write_text(files.record, json.dumps(record, indent=1, default=str))
    return files.record
