"""Settings of one process, changed by assignment: ``sp.settings.progress = False``; what does not fit is refused.

Ground floor. Called as sp.settings; used by 27 modules of 11 rooms.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Predicate

CACHES = {"patch_cache_mb": 0.25, "cells_mb": 0.5, "table_cache_mb": 0.25}  # share of `memory_gb` that each may take


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it is bound to, and no more than its container has time on."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        most, _, period = quota.read_text().partition(" ")  # µs in each period; "max" without a limit
        return max(1, min(cores, round(int(most) / int(period))))
    except (OSError, ValueError):
        return cores


def is_device_name(name: str) -> bool:
    """Whether networks may be computed on a device of this name; whether this machine has it is asked when it is used."""
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name) is not None


@dataclass
class Settings:
    """What every call reads when nothing else is said.

    Parameters
    ----------
    progress
        Show progress bars. What is said beside them (which slides a function passes over) is logged, and silenced by
        ``logging.getLogger("spatialsig").setLevel("WARNING")``.
    threads
        CPU threads for reading and decoding, and the most for a network on the CPU.
    n_jobs
        Slides of a cohort that are worked on at once, each in a process of its own, which shares ``threads`` with the others.
        An active ``distributed.Client`` is used instead, where there is one.
    memory_gb
        Memory that all caches may take together, in GiB, which the processes of ``n_jobs`` share: sets ``patch_cache_mb`` to a quarter of
        it, ``cells_mb`` to a half and ``table_cache_mb`` to a quarter. Beside it a process needs about 1 GiB for Python, its libraries
        and the blocks that are read at once. None leaves the three as they are, 2 GiB in all.
    patch_cache_mb
        Memory that decoded H&E patches may take while a model trains, in MiB.
    cells_mb
        Memory that the counts of cells may take while an autoencoder trains, in MiB; a larger cohort is streamed from
        its stores.
    table_cache_mb
        Memory that tables of stores may take between one step and the next, in MiB.
    keep_memory
        Let the C library keep the memory that a batch of a network frees for the next batch, which makes networks on a
        CPU 1.15 to 1.5 times as fast. While one trains or predicts, this raises two limits of the allocator (glibc's
        ``M_MMAP_THRESHOLD`` and ``M_TRIM_THRESHOLD``) for the whole process, other libraries in it included, which then
        may hold up to about half a GiB more; afterwards the limits are those that glibc ends up with by itself. False
        leaves the allocator alone; so do environment variables that set these limits, and other systems.
    device
        Where networks are trained and predict when a call does not say it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or
        ``"auto"``, the first CUDA GPU where there is one (of a network that already lies on a GPU, that one), else the CPU.
    lock_wait_s
        Seconds to wait for another process that is writing to the same store.
    """

    progress: bool = True
    threads: Annotated[int, Ge(1), Le(4096)] = field(default_factory=available_cores)
    n_jobs: Annotated[int, Ge(1), Le(4096)] = 1
    memory_gb: Annotated[float, Gt(0), Le(10**6)] | None = None
    patch_cache_mb: Annotated[float, Ge(0), Le(10**9)] = 512
    cells_mb: Annotated[float, Ge(0), Le(10**9)] = 1024
    table_cache_mb: Annotated[float, Ge(0), Le(10**9)] = 512
    keep_memory: bool = True
    device: Annotated[str, Predicate(is_device_name)] = "auto"
    lock_wait_s: Annotated[float, Ge(0), Le(10**6)] = 10.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or name not in self.__dataclass_fields__:  # else it is being made
            from spatialsig._arguments import fitting  # what it needs takes longer than all else of a bare import
            from spatialsig._checks import check_options

            check_options([name], self.__dataclass_fields__, function="sp.settings")
            value = fitting(Settings, {name: value}, of="sp.settings")[name]
        super().__setattr__(name, value)
        if name == "memory_gb" and value is not None:
            for cache, share in CACHES.items():
                super().__setattr__(cache, share * value * 1024)


settings = Settings()
