"""What other packages say while they are loaded does not reach the user, who can do nothing about it."""

from __future__ import annotations

import subprocess
import sys

STAINS = """
import spatialsig as sp
sdata = sp.datasets.toy(size_um=250.0)
sp.settings.progress = False
sp.pp.make_patches(sdata, patch_px=28, um_per_px=2.0)
sp.pp.normalize_stain(sdata)
"""


def test_a_step_that_loads_squidpy_says_nothing() -> None:
    """In a process of its own: a warning of a module that is loaded comes once."""
    done = subprocess.run([sys.executable, "-c", STAINS], capture_output=True, text=True, check=True, timeout=250)
    said = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert said == []
