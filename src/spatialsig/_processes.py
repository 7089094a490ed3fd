"""Processes of this machine: whether one lives, and is the one that had its number before.

Ground floor. Used by store/lock, store/swap.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def process_lives(pid: int) -> bool | None:
    """Whether a process of this machine lives; None where nobody tells: another user's, or on Windows.

    There, signal 0 would not ask a process but end it.
    """
    if sys.platform == "win32":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None
    return True


def boot_id() -> str:
    """What tells one start of this machine from another; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started_at(pid: int) -> str:
    """When a process started, in ticks since the boot; empty where the system does not say, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
