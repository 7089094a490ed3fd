"""Parts of a run that are finished, so that it resumes where it stopped, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._errors import InputError
from spatialsig.store.atomic import write_text

if TYPE_CHECKING:
    import os


class Finished:
    """Parts of a run that are done, each with the hash of everything that decides its result.

    Parameters
    ----------
    path
        JSON file that keeps them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._done: dict[str, str] = {}
        if self.path.is_file():
            self._done = _read(self.path)

    def holds(self, part: str, digest: str) -> bool:
        """Whether the part was finished with this hash."""
        return self._done.get(part) == digest

    def note(self, part: str, digest: str) -> None:
        """Write down that a part is done."""
        self._done[part] = digest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self._done, indent=1))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is damaged ({error}); remove it to begin again."
        raise InputError(msg) from error
    return found if isinstance(found, dict) else {}
