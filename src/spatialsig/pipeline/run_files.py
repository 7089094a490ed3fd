"""Paths of the files of a run, and their content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialsig import _files
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

AUTOENCODER, IMAGE_MODEL = "autoencoder", "vit"
_HISTORIES = {AUTOENCODER: "autoencoder", IMAGE_MODEL: "image model"}


@dataclass(frozen=True)
class RunFiles:
    """Files of one run, below ``root``."""

    root: Path

    @property
    def stores(self) -> Path:
        """Cohort: one store per slide."""
        return self.root / "stores"

    @property
    def models(self) -> Path:
        """One directory per model."""
        return self.root / "models"

    @property
    def ledger(self) -> Path:
        """What is done, see :class:`spatialsig._ledger.Ledger`."""
        return self.root / "steps.json"

    @property
    def record(self) -> Path:
        """Versions, parameters, seeds and hashes of the run."""
        return self.root / "run.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    def table(self, name: str) -> Path:
        """A csv of the run: evaluation, coverage, summary, comparisons or findings."""
        return self.root / f"{name}.csv"

    def read_table(self, name: str, **options: Any) -> pd.DataFrame | None:
        """A csv of the run as a frame; None where the run has none, or an empty one."""
        path = self.table(name)
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            return None
        table: pd.DataFrame = pd.read_csv(path, **options)
        return table

    def model_files(self) -> dict[str, dict[str, Any]]:
        """Configuration and provenance of each model, by a name for people; none of its weights."""
        found = {}
        for directory in (self.models / name for name in _HISTORIES):
            if (directory / "run.json").is_file() and (directory / "config.json").is_file():
                provenance = read_json(directory / "run.json")
                found[_HISTORIES[directory.name]] = {
                    "config": read_json(directory / "config.json"),
                    "run": dict(provenance.get("run", {})),
                    "sha256": dict(provenance.get("sha256", {})),
                }
        return found


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises
    ------
    InputError
        If the file does not hold one.
    """
    loaded = _files.read_json(path, fix="Remove it, or run again.")
    if not isinstance(loaded, dict):
        msg = f"{path} must hold an object; got {type(loaded).__name__}."
        raise InputError(msg)
    return loaded
