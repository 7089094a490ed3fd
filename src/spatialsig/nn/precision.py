"""The fastest arithmetic of this machine that is still accurate, set for the length of a block."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_ACCURATE = 1e-5  # relative error of a float32 product; bfloat16 would give 1e-3


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Multiply float32 matrices on the CPU by the faster library where it keeps float32 accuracy; restored on exit."""
    before = torch.get_float32_matmul_precision()
    if _medium_is_accurate():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _medium_is_accurate() -> bool:
    """Whether ``"medium"`` means another float32 library here, not bfloat16 (as it does on some CPUs and on GPUs)."""
    if torch.cuda.is_available():
        return False
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(512, 256, generator=draw), torch.randn(256, 512, generator=draw)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        error = (a @ b - exact).norm() / exact.norm()
    finally:
        torch.set_float32_matmul_precision(before)
    return float(error) < _ACCURATE


def training_precision() -> str:
    """Lightning's name of the precision to train in: bfloat16 where the hardware computes it, else float32."""
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


@cache
def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text().split())
    return bool(words & {"avx512_bf16", "amx_bf16"})
