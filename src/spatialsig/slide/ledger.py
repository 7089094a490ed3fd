"""Parts of a run that are done, so that it resumes where it stopped and only then, and the hash of what it reads.

Floor 4, above train. Used by 7 modules of evaluation, pipeline, tl.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._files import read_json, write_text
from spatialsig._hashing import array_hash, json_hash
from spatialsig.errors import InputError
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from spatialsig.slide.slides import Data, Slide

_HASH = "digest"
_SHOWN = 60  # signs of a wrong value


class Ledger:
    """Parts of a run that are done, each with the hash of everything that decides its result.

    Parameters
    ----------
    path
        JSON file that keeps them: of each part its hash, or an object with its hash and what else was noted. Every note
        replaces the file whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._done: dict[str, Any] = _read(self.path) if self.path.exists() else {}

    def holds(self, part: str, digest: str) -> bool:
        """Whether the part was finished with this hash."""
        entry = self._done.get(part)
        return (entry.get(_HASH) if isinstance(entry, dict) else entry) == digest

    def note(self, part: str, digest: str, **values: Any) -> None:
        """Write down that a part is done, and JSON-able values of it."""
        self._done[part] = {_HASH: digest, **values} if values else digest
        self._write()

    def forget(self, parts: Collection[str]) -> None:
        """Forget parts, where they were noted."""
        self.keep(lambda part: part not in parts)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget the parts that are not ``wanted`` any more."""
        kept = {part: entry for part, entry in self._done.items() if wanted(part)}
        if len(kept) < len(self._done):
            self._done = kept
            self._write()

    def parts(self) -> list[str]:
        """Parts that are done, in their order."""
        return list(self._done)

    def values(self, name: str) -> dict[str, Any]:
        """One value of each part that it was noted for, in the order of the parts."""
        return {p: entry[name] for p, entry in self._done.items() if isinstance(entry, dict) and name in entry}

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self._done, indent=1))


def _read(path: Path) -> dict[str, Any]:
    fix = "Remove it: the run begins again, and what it can resume is resumed."
    if not path.is_file():
        msg = f"{path} is a folder; wanted the file of the steps that are done. {fix}"
        raise InputError(msg)
    try:
        done: dict[str, Any] = read_json(path, dict, fix="")
    except InputError as error:
        msg = f"{path} is damaged ({error.__cause__ or error}). {fix}"
        raise InputError(msg) from error
    for part, entry in done.items():
        for name, value in ({_HASH: entry} if not isinstance(entry, dict) else {_HASH: None} | entry).items():
            wanted, fits = _VALUES.get(name, ("", _anything))
            if not fits(value):
                msg = f"{path} is damaged: `{name}` of {part!r} is {repr(value)[:_SHOWN]}; wanted {wanted}. {fix}"
                raise InputError(msg)
    return done


def _anything(_: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _names_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


# what may be noted with a part, in words, and whether a value is that
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    _HASH: ("a text", _is_text),
    "warnings": ("a list of texts", _are_texts),
    "seconds": ("a number", _is_number),
    "left": ("an object of texts", _names_texts),
    "failed": ("an object of texts", _names_texts),
}


def run_hash(parameters: object) -> str:
    """Hash of parameters and of the version of this package."""
    return json_hash([version("spatialsig"), parameters])


def data_hash(
    data: Data, *, patches_key: str, signatures_key: str, use_rep: str | None, table_key: str | None
) -> list[str]:
    """Hash of every slide: patches and their folds, labels, embedding, and the counts of ``table_key``."""
    return [_slide_hash(slide, patches_key, signatures_key, use_rep, table_key) for slide in open_slides(data)]


def _slide_hash(slide: Slide, patches_key: str, signatures_key: str, use_rep: str | None, table_key: str | None) -> str:
    labels = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
    arrays = [np.asarray(labels.X), np.asarray(labels.obs[_keys.N_CELLS])]
    if use_rep is not None and use_rep in labels.obsm:
        arrays.append(np.asarray(labels.obsm[use_rep]))
    counts = []
    if table_key is not None:
        cells = slide.table(table_key)
        counts = [slide.lineage.fingerprint(f"{table_key}/X")]
        if _keys.HIGHLY_VARIABLE in cells.var:
            arrays.append(np.asarray(cells.var[_keys.HIGHLY_VARIABLE], bool))
    return json_hash([slide.patches(patches_key).content_hash, list(labels.var_names), array_hash(*arrays), *counts])
