"""Kill trainings at random moments, let each go on, and compare it with one that was never stopped.

    python benchmarks/soak_training.py --n 50

Goal: 50 of 50 equal in every bit (weights, average, optimiser, random generators, order of the batches, history), and
20 of 20 checkpoints at most one step old after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import training_kills as kills
from machine import machine

import spatialsig as sp
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import vit_config
from spatialsig.train.checkpoint_file import checkpoint_files, read_checkpoint, write_checkpoint
from spatialsig.train.loop import TrainerConfig
from spatialsig.train.module import averaged_copy

HERE = Path(__file__).resolve().parent
OFTEN = TrainerConfig(checkpoint_minutes=1e-9)  # after every step
SELDOM = TrainerConfig()  # at the start of every epoch


def killed(name: str, whole: kills.Outcome, directory: Path, seconds: float, draw: random.Random) -> dict[str, Any]:
    """One training, killed up to three times at random moments, wherever it is then."""
    train, log, n_killed = kills.TRAININGS[name], directory / "log", 0
    directory.mkdir(parents=True)
    for _ in range(3):
        trainer = draw.choice((OFTEN, SELDOM))
        status = kills.killed_after(train, directory / "run", trainer, log, seconds=draw.uniform(0, 0.7 * seconds))
        n_killed += os.WIFSIGNALED(status)
    at = [path.stem for path in checkpoint_files(directory / "run" / "checkpoints")[:1]]
    differences = whole.differences(kills.outcome(train, directory / "run", SELDOM, log))
    return {"training": name, "kills": n_killed, "went_on_from": at, "differences": differences}


def warned(whole: kills.Outcome, directory: Path, step: int) -> dict[str, Any]:
    """One training that is told to stop within a step."""
    directory.mkdir(parents=True)
    train, log = kills.train_vit, directory / "log"
    status = kills.struck(train, directory / "run", SELDOM, log, step=step, number=signal.SIGTERM)
    newest = int(checkpoint_files(directory / "run" / "checkpoints")[0].stem.removeprefix("step-"))
    differences = whole.differences(kills.outcome(train, directory / "run", SELDOM, log))
    return {"step": step, "age": step - newest, "code": os.waitstatus_to_exitcode(status), "differences": differences}


def cost(directory: Path, size: str, repeats: int) -> dict[str, Any]:
    """Size of a checkpoint of an image network, and seconds to write and to read it."""
    net = SignatureNet(SignatureConfig(vit_config(size), 30))
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    average = averaged_copy(net).state_dict()
    weights = net.state_dict()
    state = {
        "state_dict": weights | {f"average.{name}": value for name, value in average.items()},
        "optimizer_states": [optimizer.state_dict()],
        "best": {name: value.clone() for name, value in weights.items()},
    }
    write, read, path = [], [], directory / "cost"
    for _ in range(repeats):
        started = time.perf_counter()
        write_checkpoint(path, state)
        write.append(time.perf_counter() - started)
        started = time.perf_counter()
        read_checkpoint(path)
        read.append(time.perf_counter() - started)
    return {
        "size": size,
        "parameters": sum(p.numel() for p in net.parameters()),
        "mb": round(path.stat().st_size / 2**20, 1),
        "write_s": round(statistics.median(write), 3),
        "read_s": round(statistics.median(read), 3),
    }


def main() -> int:
    """Print and write the results; the exit code counts the failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="trainings to kill, each up to three times")
    parser.add_argument("--signals", type=int, default=20, help="trainings to stop by SIGTERM")
    parser.add_argument("--quick", action="store_true", help="3 kills, 1 signal, the small network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "soak_training.json")
    args = parser.parse_args()
    n, n_signals, sizes = (3, 1, ("tiny",)) if args.quick else (args.n, args.signals, ("tiny", "small", "base"))
    sp.settings.progress = False
    torch.set_num_threads(1)
    draw, started = random.Random(args.seed), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        costs = [cost(directory, size, 3 if args.quick else 7) for size in sizes]
        whole, seconds = {}, {}
        for training, train in kills.TRAININGS.items():
            begun = time.perf_counter()
            whole[training] = kills.outcome(train, directory / training, SELDOM, directory / f"{training}.log")
            seconds[training] = time.perf_counter() - begun
        names = [list(kills.TRAININGS)[k % 3] for k in range(n)]
        runs = [killed(t, whole[t], directory / f"kill{k}", seconds[t], draw) for k, t in enumerate(names)]
        steps = [draw.randint(1, 20) for _ in range(n_signals)]
        stops = [warned(whole["vit"], directory / f"stop{k}", step) for k, step in enumerate(steps)]
    found = {
        "machine": machine(),
        "killed": {
            "goal": f"{n} of {n} equal",
            "equal": sum(not run["differences"] for run in runs),
            "kills": sum(run["kills"] for run in runs),
            "failures": [run for run in runs if run["differences"]],
            "went_on_from_a_checkpoint": sum(bool(run["went_on_from"]) for run in runs),
        },
        "sigterm": {
            "goal": f"{n_signals} of {n_signals} at most one step old and equal",
            "good": sum(s["age"] <= 1 and s["code"] == 143 and not s["differences"] for s in stops),
            "oldest_steps": max(stop["age"] for stop in stops),
        },
        "cost": costs,
        "seconds": round(time.perf_counter() - started, 1),
    }
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return n - found["killed"]["equal"] + n_signals - found["sigterm"]["good"]


if __name__ == "__main__":
    sys.exit(main())
