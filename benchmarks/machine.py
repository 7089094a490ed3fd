"""What the benchmarks share: options, what a record was measured on and how it is kept, CPU time of ways to one result."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX"}


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Processor, fast arithmetic and cores, such as ``"2 cores of an AMD EPYC (AVX2, AVX-512, bf16)"``."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = set(text.split())
    found = ", ".join(label for flag, label in FEATURES.items() if flag in flags)
    return f"{os.cpu_count()} cores of an {name.group(1) if name else 'unknown processor'} ({found})"


def cpu_seconds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU time of each way; the ways take turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            spent[name].append(time.process_time() - start)
    return {name: float(np.median(times)) for name, times in spent.items()}


def record_options(description: str | None, name: str, *, quick: str) -> argparse.ArgumentParser:
    """Parser of the short form, and of the path of the record ``results/<name>.json``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, default=Path(__file__).resolve().parent / "results" / f"{name}.json")
    return parser


def keep_record(path: Path, result: dict[str, object], *, shown: Sequence[str]) -> None:
    """Print the entries ``shown`` of a result, which answer the question, and write all of it as JSON."""
    print({key: result[key] for key in shown})
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
