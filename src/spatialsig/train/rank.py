"""One of the further processes of a run: ``python -m spatialsig.train.rank JOB``, with the arguments of ``fit`` in ``JOB``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from spatialsig._settings import settings
from spatialsig.train.checkpoint import set_random_state
from spatialsig.train.loop import fit
from spatialsig.train.processes import ready_file


def run(file: Path) -> None:
    """Train with settings and random generators as they were in the process that started this one."""
    with file.open("rb") as stream:
        held = torch.load(stream, weights_only=False)  # written by the process that started this one
    for name, value in held["settings"].items():
        setattr(settings, name, value)
    settings.progress = False
    torch.manual_seed(held["seed"])
    set_random_state(held["random"])
    ready_file(file, int(os.environ["LOCAL_RANK"])).touch()
    fit(**held["job"])


if __name__ == "__main__":
    run(Path(sys.argv[1]))
