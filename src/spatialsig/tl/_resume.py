"""What a long run has finished already, and what its data were: to go on where it stopped, and only then."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse

from spatialsig import _keys
from spatialsig._errors import InputError
from spatialsig.data.slides import open_slides
from spatialsig.store.atomic import write_text
from spatialsig.tl._done import array_hash, json_hash, patches_hash

if TYPE_CHECKING:
    import os

    from spatialsig.data.slides import Data, Slide


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
    if table_key is not None:
        cells = slide.table(table_key)
        arrays += [cells.X.data, cells.X.indices] if issparse(cells.X) else [np.asarray(cells.X)]
        if _keys.HIGHLY_VARIABLE in cells.var:
            arrays.append(np.asarray(cells.var[_keys.HIGHLY_VARIABLE], bool))
    return json_hash([patches_hash(slide, patches_key), list(labels.var_names), array_hash(*arrays)])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is damaged ({error}); remove it to begin again."
        raise InputError(msg) from error
    return found if isinstance(found, dict) else {}
