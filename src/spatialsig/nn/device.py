"""Where and how a network is computed: its device, memory kept between batches, exact but fast products, batches that fit.

Floor 1, above the ground floor. Used by 22 modules of 8 rooms.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spatialsig._checks import check_choice, did_you_mean
from spatialsig._settings import is_device_name, settings
from spatialsig.errors import InputError
from spatialsig.nn.evaluating import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import nn

TRIM_S = 5.0
KEPT_MB = 512  # blocks above go back to the system at once, as by default; a step of the small networks has none
_USUAL_MB = (
    32  # DEFAULT_MMAP_THRESHOLD_MAX of mallopt(3): where the limit of 128 KiB ends up by itself as blocks are freed
)
_CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")  # variables that glibc reads
_CHOSEN_BY_DASK = "MALLOC_TRIM_THRESHOLD_=65536"  # set by a nanny for its workers, and left in the process it runs in
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_holders, _lock = 0, threading.Lock()
_ACCURATE = 1e-5  # relative error of a float32 product; bfloat16 would give 1e-3
CPU_PIXELS = 2**19  # more is slower where the allocator gives large blocks back to the system, and never faster
FEWEST, ON_GPU = 4, 64
ROWS = 4096  # of features
AUTO = "auto"
_NAMES = (AUTO, "cpu", "cuda", "mps")
BFLOAT16, FLOAT32 = "bf16", "32"  # precisions of a prediction
_of_call: ContextVar[torch.device | None] = ContextVar("device of the call", default=None)


@contextmanager
def on_device(*nets: nn.Module, device: str | None = None) -> Iterator[torch.device]:
    """Device on which networks lie for the length of a call that predicts, in evaluation mode; at its end they are as they were.

    Parameters
    ----------
    nets
        Networks to move.
    device
        Name of the device; None takes that of the call around this one, else ``sp.settings.device``.

    Raises
    ------
    InputError
        If this machine has no such device, or weights are NaN, infinite or not float32.
    """
    chosen = choose_device(device, *nets)
    before = [next((part.device for part in net.parameters()), chosen) for net in nets]
    outer = _of_call.set(chosen)
    try:
        _move(nets, [chosen] * len(nets))
        with own_threads(), evaluating(*nets):
            yield chosen
    finally:
        _of_call.reset(outer)
        _move(nets, before)


def _move(nets: tuple[nn.Module, ...], places: list[torch.device]) -> None:
    with torch.inference_mode(mode=False):  # weights moved in that mode could never be trained again
        for net, place in zip(nets, places, strict=True):
            net.to(place)


def choose_device(device: str | None, *nets: nn.Module) -> torch.device:
    """Device for ``nets`` by the rule of :func:`on_device`; raises :class:`InputError` where there is no such device."""
    if device is None:
        outer = _of_call.get()
        if outer is not None:
            return outer
    name = settings.device if device is None else device
    if name == AUTO:
        placed = (part.device for net in nets for part in net.parameters())
        default = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return next((place for place in placed if place.type != "cpu"), default)
    setting = "device" if device is not None else "sp.settings.device"
    if not is_device_name(name):
        msg = f"`{setting}={name!r}` is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.{did_you_mean(name, _NAMES)}"
        raise InputError(msg)
    chosen = torch.device(name)
    if not _is_there(chosen):
        msg = (
            f"`{setting}={name!r}`: torch {torch.__version__} sees no such device here; available: {_devices()}. "
            "Choose one of these or 'auto'; for a GPU, install the torch build for its driver."
        )
        raise InputError(msg)
    return chosen


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def _devices() -> str:
    gpus = [f"'cuda:{index}'" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return ", ".join(["'cpu'", *gpus, *(["'mps'"] if torch.backends.mps.is_available() else [])])


def computed_in(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which a network computes in ``"32"`` (float32) or ``"bf16"`` (products in bfloat16)."""
    check_choice(precision, (FLOAT32, BFLOAT16), name="precision")
    return nullcontext() if precision == FLOAT32 else torch.autocast(device.type, dtype=torch.bfloat16)


class Trim:
    """Give freed memory back to the system every few seconds.

    glibc keeps the aligned blocks that tensors of a training step leave behind and takes new ones all the same:
    15 GiB after 8 million cells through an autoencoder, 1.3 GiB with this, which costs 1 to 2 % of the time.
    """

    def __init__(self) -> None:
        self._malloc_trim = _of_libc("malloc_trim")
        self._last = time.monotonic()

    def now_and_then(self) -> None:
        """Do it if the last time is long enough ago."""
        if self._malloc_trim is not None and time.monotonic() - self._last > TRIM_S:
            self._malloc_trim(0)
            self._last = time.monotonic()


@contextmanager
def own_threads() -> Iterator[None]:
    """Let networks on the CPU use at most ``sp.settings.threads`` threads for the length of a block."""
    before = torch.get_num_threads()
    if before <= settings.threads:
        yield
        return
    torch.set_num_threads(settings.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep what one batch of a network frees for the next one, for the length of the outermost such block.

    By default it hands large blocks back at once and takes new ones, each page of which the system clears and maps again:
    up to half of the time of a network on a CPU.

    The limits are those of the process: ``mallopt`` can set ``M_MMAP_THRESHOLD`` and ``M_TRIM_THRESHOLD`` and nobody can
    ask for them. Afterwards they are therefore set to 32 and 64 MiB, up to which glibc raises them by itself as large
    blocks are freed, and the memory kept is given back. What glibc cannot do is raise them by itself again.

    Nothing is done where ``sp.settings.keep_memory`` is False, where the user told glibc its limits by the environment
    (``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``), and with other C libraries.
    """
    if not settings.keep_memory or _limits_chosen():
        yield
        return
    _hold(1)
    try:
        yield
    finally:
        _hold(-1)


def _limits_chosen() -> bool:
    """Whether glibc was told limits by a variable when the process started, later ones it does not see."""
    started = [entry for entry in _environment_at_start() if entry != _CHOSEN_BY_DASK]
    return any(entry.startswith(f"{name}=") for entry in started for name in _CHOSEN_BY_USER)


@cache
def _environment_at_start() -> list[str]:
    try:
        return os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:  # not Linux
        return [f"{name}={value}" for name, value in os.environ.items()]


def _hold(change: int) -> None:
    global _holders
    limit, trim = _of_libc("mallopt"), _of_libc("malloc_trim")
    with _lock:
        _holders += change
        if limit is None or trim is None or _holders != max(change, 0):
            return  # no glibc, or not the outermost block
        mb = KEPT_MB if change > 0 else _USUAL_MB
        limit(_MMAP_THRESHOLD, mb << 20)
        limit(_TRIM_THRESHOLD, 2 * mb << 20)
        if change < 0:
            trim(0)


def _of_libc(name: str) -> Any:
    """Function of the C library; None where it has no such."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


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


def training_precision(device: torch.device) -> str:
    """Lightning's name of the precision to train in: bfloat16 where the device computes it, else float32."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


@cache
def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text().split())
    return bool(words & {"avx512_bf16", "amx_bf16"})


def microbatch_size(shape: tuple[int, ...], device: torch.device) -> int:
    """Number of inputs for one forward pass.

    Parameters
    ----------
    shape
        Of all inputs: images ``(n, c, h, w)``, or features ``(n, d)``.
    device
        Where they are computed.
    """
    if len(shape) != 4:
        return ROWS
    return ON_GPU if device.type != "cpu" else max(FEWEST, CPU_PIXELS // (shape[-2] * shape[-1]))
