"""Settings of a training run that change nothing of what is fitted: resuming, devices, arithmetic, logs.

Floor 3, above data, models. Called as sp.TrainerConfig; used by train/checkpoint, train/loop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from spatialsig._arguments import Count, Key, Positive, checked_class
from spatialsig._checks import check_choice
from spatialsig.errors import InputError

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # ours: Lightning's
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
LOGGERS = ("csv", "tensorboard", None)


@checked_class
@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a training run; the same for every network.

    Parameters
    ----------
    resume
        ``"auto"`` resumes from the newest whole checkpoint in ``run_dir`` where there is one, and returns the finished
        model where the run has ended; ``"never"`` deletes what is there and starts; a path (of a checkpoint, or of
        the ``run_dir`` of another run) resumes from there.
    checkpoint_minutes
        Minutes between checkpoints; one is also written at the start of every epoch, and when the job is told to stop
        (SIGTERM, SIGUSR1). Without a ``run_dir`` none is written.
    precision
        ``"32"``, ``"bf16"`` or ``"16"`` (GPU only); None takes bfloat16 where the hardware computes it, else float32.
    accumulate
        Batches whose gradients are added up before each step of the optimiser.
    devices
        Processes on each machine, one per GPU (or per group of CPU cores); ``"auto"`` takes all GPUs.
    num_nodes
        Machines.
    strategy
        ``"auto"``, ``"ddp"`` or ``"ddp_find_unused_parameters_true"`` (where a fusion leaves weights unused).
    logger
        ``"csv"`` writes ``history.csv``, ``"tensorboard"`` event files beside it, None neither.

    Raises
    ------
    InputError
        If a value is unknown, or TensorBoard is asked for and not installed.
    """

    resume: Key | os.PathLike[str] = "auto"
    checkpoint_minutes: Positive = 10.0
    precision: str | None = None
    accumulate: Count = 1
    devices: Count | Literal["auto"] = 1
    num_nodes: Count = 1
    strategy: str = "auto"
    logger: str | None = "csv"

    def __post_init__(self) -> None:
        check_choice(self.precision, (None, *PRECISIONS), name="precision")
        check_choice(self.strategy, STRATEGIES, name="strategy")
        check_choice(self.logger, LOGGERS, name="logger")
        if self.logger == "tensorboard" and not (find_spec("tensorboard") or find_spec("tensorboardX")):
            msg = "`logger='tensorboard'` needs TensorBoard, which is not installed: pip install tensorboard."
            raise InputError(msg)
