from pathlib import Path

import pytest
import torch

from spatialsig.nn import precision


def test_precision_is_restored_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="inside"), precision.fast_matmul():
        raise RuntimeError("inside")
    assert torch.get_float32_matmul_precision() == before


def test_products_inside_are_float32_accurate() -> None:
    a = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    with precision.fast_matmul():
        error = (a @ a - a.double() @ a.double()).norm() / (a.double() @ a.double()).norm()
    assert float(error) < 1e-5


@pytest.mark.parametrize(("flags", "native"), [("avx2 avx512f", False), ("avx512_bf16 avx2", True), ("amx_bf16", True)])
def test_bfloat16_only_where_the_processor_has_it(flags: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} sse\n")
    assert precision._cpu_has_bfloat16(tmp_path / "cpuinfo") is native
    assert not precision._cpu_has_bfloat16(tmp_path / "absent")
