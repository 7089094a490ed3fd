"""What a record was measured on."""

from __future__ import annotations

import os
import re
from pathlib import Path

FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX"}


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Processor, fast arithmetic and cores, such as ``"2 cores of an AMD EPYC (AVX2, AVX-512, bf16)"``."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = set(text.split())
    found = ", ".join(label for flag, label in FEATURES.items() if flag in flags)
    return f"{os.cpu_count()} cores of an {name.group(1) if name else 'unknown processor'} ({found})"
