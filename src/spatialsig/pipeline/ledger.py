"""What a run has done already, so that it can go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Ledger:
    """Steps done, each with a digest of everything that decides its result.

    The digest of a step covers its own parameters and the digest of the step before it: a change anywhere redoes that
    step and all later ones.

    Parameters
    ----------
    path
        JSON file that keeps the ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._done = json.loads(path.read_text(encoding="utf-8"))
        self._previous = version("spatialsig")

    def digest(self, step: str, parameters: object) -> str:
        """Digest of the next step; call once per step, in order."""
        text = json.dumps([self._previous, step, parameters], sort_keys=True, default=str)
        self._previous = hashlib.sha256(text.encode()).hexdigest()
        return self._previous

    def is_done(self, step: str, digest: str) -> bool:
        """Whether the step was finished with this digest."""
        return self._done.get(step, {}).get("digest") == digest

    def warnings(self) -> list[str]:
        """Warnings of all steps done, in order."""
        return [text for entry in self._done.values() for text in entry["warnings"]]

    def seconds(self) -> dict[str, float]:
        """Seconds that each step took when it was done, in order."""
        return {name: entry["seconds"] for name, entry in self._done.items()}

    def start(self, step: str) -> None:
        """Forget this step and everything that was made after it."""
        names = list(self._done)
        if step in names:
            for later in names[names.index(step) :]:
                del self._done[later]
            self._write()

    def finish(self, step: str, digest: str, warnings: list[str], seconds: float) -> None:
        """Note that a step is done."""
        self._done[step] = {"digest": digest, "warnings": warnings, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._done, indent=2), encoding="utf-8")
        os.replace(temporary, self.path)
