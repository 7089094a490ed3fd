"""One file per checkpoint: tensors as safetensors, all else as JSON in its header; never a pickle, never half a file.

Floor 3, above data, models. Used by train/checkpoint, train/loop.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open

from spatialsig._checks import warn
from spatialsig._files import replaced, write_tensors
from spatialsig.errors import FileMissingError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = "1"
SUFFIX = ".safetensors"
DIRECTORY = "checkpoints"  # within run_dir
_TENSOR, _PAIRS, _TUPLE = "$tensor", "$pairs", "$tuple"
_PLAIN = (str, bool, int, float, type(None))


def write_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors, arrays and plain values; ``path`` appears whole or not at all.

    Parameters
    ----------
    path
        File to make or to replace.
    tree
        What to keep.

    Raises
    ------
    InputError
        If something in ``tree`` is none of these.
    StoreError
        If the disk refuses it.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_encoded(tree, tensors, "state"))
    header = {"format": FORMAT, "tree": text, "crc32": str(_sum(text, tensors))}
    with replaced(path) as draft:
        write_tensors(draft, _apart(tensors), metadata=header)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`write_checkpoint` wrote, on the CPU.

    Raises
    ------
    FileMissingError
        If there is no such file.
    InputError
        If it is damaged, or no checkpoint.
    """
    if not path.is_file():
        msg = f"checkpoint {path} is not there."
        raise FileMissingError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        whole = header.get("format") == FORMAT and header.get("crc32") == str(_sum(header["tree"], tensors))
        tree = _decoded(json.loads(header["tree"]), tensors) if whole else None
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        msg = f"{path} is not a whole checkpoint: {error}. Delete it; the one before is used then."
        raise InputError(msg) from error
    if not isinstance(tree, dict):
        msg = f"{path} is damaged, or not a checkpoint of this version. Delete it; the one before is used then."
        raise InputError(msg)
    return tree


def checkpoint_files(directory: Path) -> list[Path]:
    """Checkpoints of a directory, the newest (of the highest step) first."""
    return sorted(directory.glob(f"step-*{SUFFIX}"), reverse=True)


def checkpoint_path(directory: Path, step: int) -> Path:
    """Place of the checkpoint after ``step`` steps of the optimiser."""
    return directory / f"step-{step:09d}{SUFFIX}"


def newest_checkpoint(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """What a run resumes from: newest whole checkpoint of any directory, with its content; damaged ones are warned of."""
    for path in checkpoint_files(directory):
        try:
            return path, read_checkpoint(path)
        except (InputError, FileMissingError) as error:  # the one before was kept for this
            warn(f"passed over: {error}")
    return None


class PlainCheckpointIO(CheckpointIO):
    """Lets Lightning read and write checkpoints of this kind.

    Parameters
    ----------
    written
        Called with the path after each write.
    """

    def __init__(self, written: Callable[[Path], None]) -> None:
        self._written = written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; where the disk refuses it, warn and let the run continue."""
        try:
            write_checkpoint(Path(path), checkpoint)
        except OSError as error:
            msg = f"checkpoint {path} could not be written: {error}. The run continues; make room, or be ready to lose it."
            warn(msg)
            return
        self._written(Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint; its tensors come on the CPU."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _encoded(value: Any, tensors: dict[str, torch.Tensor], where: str) -> Any:
    """JSON form of a tree; its tensors are put into ``tensors``."""
    if isinstance(value, torch.Tensor | np.ndarray):
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()
        name = f"{len(tensors)}.{where}"[-200:] if where in tensors else where
        tensors[name] = tensor.cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple):
        return {_TUPLE: [_encoded(item, tensors, f"{where}.{k}") for k, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encoded(item, tensors, f"{where}.{k}") for k, item in enumerate(value)]
    if isinstance(value, dict):
        return {_PAIRS: [[key, _encoded(item, tensors, f"{where}.{key}")] for key, item in value.items()]}
    msg = f"a checkpoint cannot hold the {type(value).__name__} at {where}; wanted tensors, numbers, strings, lists."
    raise InputError(msg)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _decoded(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_decoded(item, tensors) for item in value[_TUPLE])
    return {key: _decoded(item, tensors) for key, item in value[_PAIRS]}


def _sum(text: str, tensors: dict[str, torch.Tensor]) -> int:
    """Check sum of all that is kept."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.numel():
            total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total
