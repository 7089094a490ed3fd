"""One step of a run, and the warnings it gives.

Floor 11, above report. Used by pipeline/estimate, pipeline/run, pipeline/run_steps, pipeline/workload.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from spatialsig.errors import SpatialsigWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

console = Console()
IMPORT, DESIGN, TRAIN_AUTOENCODER = "import bundles", "hold out patients, choose genes", "train autoencoder"
LABEL, TRAIN_VIT = "cut and label patches", "train image model"
PREDICT, EVALUATE = "predict every slide", "evaluate on held-out patients"
ALWAYS = (IMPORT, DESIGN, TRAIN_AUTOENCODER, LABEL, TRAIN_VIT, PREDICT, EVALUATE)  # steps of every run, in their order
EMBED, CALIBRATE, CROSS_VALIDATE = "embed patches", "calibrate", "hold out every fold"  # where they are asked for


@dataclass(frozen=True)
class Step:
    """One step: a name for people, what decides its result, what it does, and what it leaves."""

    name: str
    parameters: Any
    action: Callable[[], None]
    makes: tuple[Path, ...] = ()
    tables: tuple[str, ...] = ()  # in every store
    failed: Callable[[], dict[str, str]] = dict  # slides that it left out -> why


def collect_warnings(action: Callable[[], None]) -> list[str]:
    """Run a step; show its warnings at once and keep ours for the report."""
    ours = warnings_of(action)
    show(ours)
    return ours


def warnings_of(action: Callable[[], None]) -> list[str]:
    """Call ``action`` and return the texts of our warnings; they are not shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        action()
    return [str(warning.message) for warning in caught if issubclass(warning.category, SpatialsigWarning)]


def show(texts: list[str]) -> None:
    """Print warnings."""
    for text in texts:
        console.print(f"  warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
