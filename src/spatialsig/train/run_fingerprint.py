"""Fingerprint of a run: its settings, names and data, by which a checkpoint knows whether it may resume.

Floor 3, above data, models. Used by train/cells, train/checkpoint, train/loop.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import first_few
from spatialsig._hashing import content_hash
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.pytorch import LightningModule
    from numpy.typing import NDArray

_NOT_SETTINGS = {"training", "prepare_data_per_node"}


def digest(*arrays: NDArray[Any] | None) -> str:
    """Short hash of the bytes, shapes and types of arrays."""
    labelled = (("none",) if array is None else _labelled(np.asarray(array)) for array in arrays)
    return content_hash(itertools.chain.from_iterable(labelled), short=True)


def _labelled(array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    return f"{array.shape or (1,)}{array.dtype}", array


def module_fingerprint(module: LightningModule) -> dict[str, Any]:
    """Settings of a module, and the shapes of its weights."""
    values: dict[str, Any] = {"module": type(module).__name__}
    for name, value in vars(module).items():
        if not name.startswith("_") and name not in _NOT_SETTINGS:
            values |= _settings(name, value)
    values |= _settings("net", module.get_submodule("net"))
    shapes = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in module.state_dict().items()]
    return values | {"weights": content_hash(["\n".join(shapes)], short=True)}


def batches_fingerprint(batches: Any, prefix: str) -> dict[str, Any]:
    """Slides, labels, pixels (of a few patches) and order of batches; empty for None."""
    if batches is None:
        return {}
    if hasattr(batches, "identity"):
        values = batches.identity()
    elif isinstance(batches, PatchBatches):
        values = _patch_fingerprint(batches)
    else:
        values = {"kind": type(batches).__name__, "batches": len(batches)}
    return {f"{prefix}.{name}": value for name, value in values.items()}


def check_same_run(was: Mapping[str, Any], now: Mapping[str, Any], *, path: Path) -> None:
    """Raise :class:`InputError` with every difference, unless a checkpoint is one of this very run."""
    different = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    if different:
        told = "; ".join(f"`{name}` {_difference(was.get(name), now.get(name))}" for name in different)
        msg = (
            f"{path} is a checkpoint of another training: {told}. Train as then, choose another `run_dir`, or start "
            "anew with `trainer=TrainerConfig(resume='never')`."
        )
        raise InputError(msg)


def _settings(name: str, value: Any) -> dict[str, Any]:
    """Plain values of an attribute: itself, the fields of a dataclass, or what an object calls its ``config``."""
    if isinstance(value, bool | int | float | str | None):
        return {name: value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f"{name}.{field.name}": _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "config"):
        seed = {f"{name}.seed": value.seed} if hasattr(value, "seed") else {}
        return seed | _settings(f"{name}.config", value.config)
    return {}


def _plain(value: Any) -> Any:
    """What JSON gives back as it was."""
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


def _patch_fingerprint(batches: PatchBatches) -> dict[str, Any]:
    """Order, slides, labels, and pixels of the first and the last patch of every slide."""
    names = ("seed", "batch_size", "window", "shuffle", "slide_balanced", "drop_last")
    return {name: int(getattr(batches, name)) for name in names} | {
        "slides": [source.sample for source in batches.sources],
        "n_patches": batches.n_patches,
        "patch_px": batches.out_px,
        "patches": digest(*(source.origins for source in batches.sources)),
        "pixels": digest(*(read_patches(source, [0, len(source) - 1]) for source in batches.sources if len(source))),
        "targets": digest(batches.target),
        "expression": None if batches.ae is None else digest(batches.ae),
        "patch weights": digest(batches.weight),
    }


def _difference(was: Any, now: Any) -> str:
    if not (isinstance(was, list) and isinstance(now, list)):
        return f"{was!r} then, {now!r} now"
    gone, new = (
        first_few([repr(name) for name in sorted(names)]) for names in (set(was) - set(now), set(now) - set(was))
    )
    if not gone and not new:
        return "in another order"
    return "".join([f"{len(was)} then, {len(now)} now", f", without {gone}" * bool(gone), f", with {new}" * bool(new)])
