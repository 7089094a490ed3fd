"""The record of a model (SHA-256 of its files and of itself), and JSON helpers for models.

Floor 2, above geometry, nn, signatures, stats, store. Used by 10 modules of models, pipeline, whole_slides.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from contextvars import ContextVar
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import numpy as np
from safetensors import SafetensorError

from spatialsig import _files
from spatialsig._checks import first_few
from spatialsig._hashing import content_hash, file_hash
from spatialsig._progress import say
from spatialsig.errors import InputError, SpatialsigError
from spatialsig.models.card import card_text, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

RUN = "run.json"
MAX_JSON_BYTES = 64 * 2**20
FIX = "Save the model again, or fetch an undamaged copy."
_loading: ContextVar[bool] = ContextVar("loading", default=False)
M = TypeVar("M")
P = ParamSpec("P")
DAMAGE = (*_files.DECODING_ERRORS, SafetensorError, zipfile.BadZipFile, zlib.error)  # of the files of a model
_LISTS = ("signatures", "genes")  # of names, abbreviated where a model is printed
_UNKNOWN = "0" * 64  # stands for the digest of the record while it is taken


class Described:
    """Models that say in one line what they are: kind, what they give, what they need, and what they learned from."""

    kind: str
    run: dict[str, Any]

    def __repr__(self) -> str:
        facts = [f"{len(self.members)} models"] if hasattr(self, "members") else []
        facts += [
            f"{len(values)} {name} ({first_few(values)})" for name in _LISTS if (values := getattr(self, name, ()))
        ]
        if hasattr(self, "n_latent"):
            facts.append(f"{self.n_latent} dimensions")
        if hasattr(self, "patch_px") and hasattr(self, "um_per_px"):
            facts.append(f"patches of {self.patch_px} px at {self.um_per_px:g} µm/px")
        if hasattr(self, "uses_expression"):
            facts.append("H&E, with expression or without" if self.uses_expression else "H&E alone")
        slides, fold = self.run.get("training_samples"), self.run.get("test_fold")
        facts.append(f"trained on {first_few(slides)}" if slides else "no training slides")
        facts += [] if fold is None else [f"fold {fold} held out"]
        return f"{self.kind} of {'; '.join(facts)}"

    def card(self) -> str:
        """What ``save`` writes as README.md: use, inputs, training data, results (:func:`spatialsig.tl.evaluate`), limits, versions."""
        return card_text(self)


def write_record(directory: Path, files: Iterable[str], run: Mapping[str, Any]) -> None:
    """Write the record of a model: its provenance and the SHA-256 of its files, including the record itself."""
    digests = {name: file_hash(directory / name) for name in sorted(files)} | {RUN: _UNKNOWN}
    text = _as_json({"spatialsig": version("spatialsig"), "sha256": digests, "run": dict(run)})
    whole = content_hash([text])
    (directory / RUN).write_text(text.replace(_UNKNOWN, whole), encoding="utf-8")


def read_record(directory: Path, files: Sequence[str]) -> dict[str, Any]:
    """Provenance of a model whose files, the record among them, are those that were saved.

    Records of early versions do not hold a digest of their own. Raises :class:`InputError` naming the file that differs.
    """
    record = read_json(directory / RUN, dict)
    digests, run = record.get("sha256"), record.get("run")
    if not isinstance(digests, dict) or not isinstance(run, dict):
        _refuse_altered(directory / RUN)
    for name in files:
        if digests.get(name) != file_hash(directory / name):
            _refuse_altered(directory / name)
    own = digests.get(RUN)
    if not own:  # of an early version
        whole = set(digests) == set(files)
    else:
        as_hashed = (directory / RUN).read_bytes().replace(str(own).encode(), _UNKNOWN.encode())
        whole = content_hash([as_hashed]) == own
    if not whole:
        _refuse_altered(directory / RUN)
    return run


def _refuse_altered(file: Path) -> NoReturn:
    of = "the one that it states" if file.name == RUN else f"that in {RUN}"
    msg = f"{file} is not what was saved (its SHA-256 differs from {of}). {FIX}"
    raise InputError(msg)


def reads_model(load: Callable[P, M]) -> Callable[P, M]:
    """Turn the errors that damaged files raise (``DAMAGE``) in the ``load`` of a class into an :class:`InputError` that names the directory."""

    @wraps(load)
    def loaded(*args: P.args, **options: P.kwargs) -> M:
        inner, token = _loading.get(), _loading.set(True)
        try:
            model = load(*args, **options)
            if not inner:  # of an ensemble, not each member
                say(one_line(model))
            return model
        except SpatialsigError:
            raise
        except DAMAGE as error:
            place = options.get("directory", args[-1])
            msg = f"model {place} cannot be read ({type(error).__name__}: {error}). {FIX}"
            raise InputError(msg) from error
        finally:
            _loading.reset(token)

    return loaded


def read_json(path: Path, kind: type) -> Any:
    """JSON of a file of a model, which must hold a ``kind``."""
    return _files.read_json(path, kind, fix=FIX, max_bytes=MAX_JSON_BYTES)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` with its numbers and paths as plain JSON."""
    path.write_text(_as_json(value), encoding="utf-8")


def _as_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False, default=_plain)


def _plain(value: object) -> object:
    """JSON form of numpy numbers and arrays and of paths."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    msg = f"cannot write {type(value).__name__} {value!r} as JSON."
    raise InputError(msg)
