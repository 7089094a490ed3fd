"""Settings of one process, changed by assignment: ``sp.settings.progress = False``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _available_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclass
class Settings:
    """What every call reads when nothing else is said.

    Parameters
    ----------
    progress
        Show progress bars.
    threads
        CPU threads for reading and decoding.
    patch_cache_mb
        Memory that decoded H&E patches may take while a model trains, in MiB.
    """

    progress: bool = True
    threads: int = field(default_factory=_available_cores)
    patch_cache_mb: int = 512


settings = Settings()
