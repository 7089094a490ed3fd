"""The directory of a model: JSON, safetensors and plain arrays; written whole or not at all, never a pickle.

Floor 2, above geometry, nn, signatures, stats, store. Used by 9 modules of cli, models, pipeline.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors.torch import load_file

from spatialsig._checks import check_files, first_few
from spatialsig._files import object_or_empty, write_tensors
from spatialsig._known import MODELS, model_words, what_is
from spatialsig._paths import behind_links
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.models.card import CARD, write_card
from spatialsig.models.domain import DOMAIN, write_domain
from spatialsig.models.record import DAMAGE, FIX, RUN, read_json, read_record, write_json, write_record
from spatialsig.nn.evaluating import not_finite, refuse_not_finite
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig
from spatialsig.store.atomic import replaced_directory
from spatialsig.store.foreign import is_of_system

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from spatialsig.models.domain import TrainingDomain

FORMAT = 1
CONFIG, WEIGHTS, SCALER = "config.json", "weights.safetensors", "scaler.npz"
_MEMBER = re.compile(r"member-\d+")  # of an ensemble
MAX_WEIGHT_BYTES = 16 * 2**30
C = TypeVar("C")


def save_model(
    directory: str | os.PathLike[str],
    *,
    kind: str,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    scaler: Mapping[str, NDArray[Any]],
    lists: Mapping[str, list[str]],
    run: Mapping[str, Any],
    card: str,
    overwrite: bool,
    domain: TrainingDomain | None = None,
) -> None:
    """Write a model directory beside its place and move it there whole.

    Parameters
    ----------
    directory
        Where the model shall be.
    kind
        Class of the model, checked when it is loaded.
    config, run
        JSON-able settings and provenance.
    weights, scaler
        Tensors and arrays by name.
    lists
        Names to store, by the stem of their file (``genes`` -> ``genes.json``).
    card
        What it is, for people; the only file that may be edited.
    overwrite
        Replace a model that is there, instead of :class:`StoreError`.
    domain
        What it has learned from, where that is known.

    Raises
    ------
    InputError
        If weights are NaN or infinite, which :func:`load_weights` would refuse.
    """
    refuse_not_finite(weights.items(), what=f"the model to be saved as {directory}")
    with replacing(Path(directory), overwrite=overwrite) as draft:
        write_json(draft / CONFIG, {"format": FORMAT, "kind": kind, **config})
        for stem, names in lists.items():
            write_json(draft / f"{stem}.json", names)
        np.savez(draft / SCALER, **dict(scaler))  # type: ignore[arg-type]
        write_tensors(draft / WEIGHTS, {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        if domain is not None:
            write_domain(draft, domain)
        write_record(draft, [path.name for path in draft.iterdir()], run)
        write_card(draft, card, before=Path(directory))


def check_model(directory: Path, *, kind: str, lists: tuple[str, ...]) -> dict[str, Any]:
    """Check the files of a model against their digests and return its provenance.

    Raises
    ------
    FileMissingError
        Naming every file that is not there.
    InputError
        If a file was altered, or the directory holds another kind of model.
    """
    if not directory.is_dir():
        beside = sorted(place.parent.name for place in directory.parent.glob(f"*/{CONFIG}"))
        msg = f"there is no model directory {str(directory)!r}; models beside it: {beside or 'none'}; wanted {model_words(kind)}.{what_is(directory)}"
        raise FileMissingError(msg)
    refuse_other_kind(directory, kind)
    what = "" if (directory / CONFIG).exists() else what_is(directory)
    names = [CONFIG, WEIGHTS, SCALER, *(f"{stem}.json" for stem in lists)]
    names += [DOMAIN] if DOMAIN in listed_files(directory) else []
    needed = [directory / name for name in (*names, RUN)]
    check_files(needed, what=f"model directory {directory}", fix=FIX + what, folders=False)
    run = read_record(directory, names)
    read_config(directory, kind)
    return run


def listed_files(directory: Path) -> Collection[str]:
    """Names of the files that the record of a model holds digests of; early versions wrote fewer."""
    digests = object_or_empty(directory / RUN).get("sha256")
    return digests if isinstance(digests, dict) else ()


def refuse_other_kind(directory: Path, kind: str) -> None:
    """Raise :class:`InputError` for a model of another kind, whose files would be missed."""
    found = object_or_empty(directory / CONFIG).get("kind")
    if found in MODELS and found != kind:
        msg = f"{directory} holds a model of kind {found!r}, which `{MODELS[found][1]}` reads; wanted {model_words(kind)}."
        raise InputError(msg)


def read_config(directory: Path, kind: str) -> dict[str, Any]:
    """What a model of that kind was made with; :class:`InputError` if the file says that it is another."""
    config: dict[str, Any] = read_json(directory / CONFIG, dict)
    if config.get("kind") != kind or config.get("format") != FORMAT:
        msg = (
            f"{directory / CONFIG}: a {config.get('kind')!r} of format {config.get('format')!r}; wanted {kind!r} of format "
            f"{FORMAT}."
        )
        raise InputError(msg)
    return config


def read_names(path: Path) -> tuple[str, ...]:
    """Distinct strings of a JSON list."""
    names = read_json(path, list)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        msg = f"{path}: wanted a list of distinct names, at least one. {FIX}"
        raise InputError(msg)
    return tuple(names)


def read_scaler(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float64]]:
    """Arrays of the scaler, finite, with exactly the wanted names and shapes; names ending in ``std`` above 0."""
    path = directory / SCALER
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
    except DAMAGE as error:
        msg = f"{path} cannot be read as plain arrays: {error}. {FIX}"
        raise InputError(msg) from error
    found = {name: array.shape for name, array in arrays.items()}
    if found != dict(shapes):
        msg = f"{path} holds {found}; wanted {dict(shapes)}. {FIX}"
        raise InputError(msg)
    for name, array in arrays.items():
        if not np.isfinite(array).all() or (name.endswith("std") and (array <= 0).any()):
            msg = f"{path}: `{name}` must be finite{' and above 0' if name.endswith('std') else ''}. {FIX}"
            raise InputError(msg)
    return arrays


def load_weights(directory: Path, net: nn.Module) -> None:
    """Load weights into ``net`` (built on the meta device): exactly its names, shapes and types, all finite."""
    path = directory / WEIGHTS
    if path.stat().st_size > MAX_WEIGHT_BYTES:
        msg = f"{path} has {path.stat().st_size} bytes; at most {MAX_WEIGHT_BYTES} are read. {FIX}"
        raise InputError(msg)
    try:
        found = load_file(path)
    except DAMAGE as error:
        msg = f"{path} is not a safetensors file: {error}. {FIX}"
        raise InputError(msg) from error
    wanted = net.state_dict()
    differing = sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found
        or name not in wanted
        or (found[name].shape, found[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    )
    if differing:
        msg = f"{path} does not fit {CONFIG}: {len(differing)} tensors differ in name, shape or type: {differing[:8]}."
        raise InputError(msg)
    broken = not_finite(found.items())
    if broken:
        msg = f"{path}: NaN or infinite weights in {broken[:8]}. {FIX}"
        raise InputError(msg)
    net.load_state_dict(found, assign=True)


def check_model_target(directory: Path, *, overwrite: bool) -> None:
    """Refuse to write a model where something else than a model is, or one that shall stay (:class:`StoreError`)."""
    kind = object_or_empty(directory / CONFIG).get("kind")
    if kind in MODELS or all((directory / name).is_file() for name in (CONFIG, RUN)):  # also one that is damaged
        if not overwrite:
            msg = f"there is a model at {str(directory)!r} ({kind}); pass `overwrite=True` to replace it, or choose another path."
            raise StoreError(msg)
        _refuse_others(directory)
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        msg = f"{directory} exists and is no model directory; choose another place."
        raise InputError(msg)


def _refuse_others(directory: Path) -> None:
    """Refuse to replace a model directory in which something lies that no model has (:class:`StoreError`)."""
    ours = {CONFIG, WEIGHTS, SCALER, DOMAIN, RUN, CARD, "signatures.json", "genes.json", *listed_files(directory)}
    others = [
        str(place.relative_to(directory))
        for place in sorted(directory.rglob("*"))
        if (place.is_symlink() or not place.is_dir())
        and not is_of_system(place.name)
        and not (
            place.name in ours and all(_MEMBER.fullmatch(part) for part in place.relative_to(directory).parts[:-1])
        )
    ]
    if others:
        msg = (
            f"model directory {str(directory)!r} holds {first_few(others)}, which no model does and which would be deleted with what is "
            "replaced: move it elsewhere, or choose another path."
        )
        raise StoreError(msg)


@contextmanager
def replacing(directory: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty directory beside ``directory``; put it in its place once it is filled and on disk. A link stays."""
    directory = behind_links(directory)
    check_model_target(directory, overwrite=overwrite)
    with replaced_directory(directory) as draft:
        yield draft


def config_from_json(cls: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build ``cls`` from ``values``; a field with a default may be absent, as it is in models saved before it existed."""
    if not isinstance(values, dict):
        msg = f"{where}: wanted a mapping, got {type(values).__name__}."
        raise InputError(msg)
    needed = {field.name: field.default is MISSING for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - needed.keys())
    missing = sorted(name for name, is_needed in needed.items() if is_needed and name not in values)
    if unknown or missing:
        msg = f"{where}: unknown settings {unknown}, missing {missing}."
        raise InputError(msg)
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except InputError as error:
        msg = f"{where}: {error}"
        raise InputError(msg) from error


def signature_config(values: Any, *, where: str) -> SignatureConfig:
    """Build the config of a signature network, with that of its image network inside."""
    if isinstance(values, dict):
        values = {**values, "vit": config_from_json(ViTConfig, values.get("vit", {}), where=where)}
    return config_from_json(SignatureConfig, values, where=where)


def number_field(values: Mapping[str, Any], name: str, *, where: Path) -> float:
    """Number that stands under a name."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{where}: `{name}={value!r}` must be a number."
        raise InputError(msg)
    return float(value)
