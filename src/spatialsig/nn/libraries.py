"""Networks out of timm and transformers: optional packages, and weights that are never fetched unasked.

Floor 1, above the ground floor. Used by nn/backbones.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spatialsig.errors import FileMissingError, InputError
from spatialsig.nn.external import IMAGENET_MEAN, IMAGENET_STD, Inputs

if TYPE_CHECKING:
    from torch import nn

EXTRA = "pip install 'spatialsig[backbones]'"
PREPROCESSOR = "preprocessor_config.json"  # where transformers keeps the scale of the pixels


@dataclass(frozen=True)
class Network:
    """A network of a library."""

    model: nn.Module  # the network
    name: str  # its name, without weights
    options: dict[str, Any]  # what else it takes to build it again
    inputs: Inputs  # what it wants to be shown


def timm_network(name: str, options: dict[str, Any], *, pretrained: bool, download: bool) -> Network:
    """A network of timm without its classifier; ``NAME@FILE`` takes the weights of a file."""
    timm = _library("timm")
    name, _, file = name.partition("@")
    arguments = _numbers(options.get("arguments", {}))
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        msg = (
            f"timm network {name!r} keeps its architecture outside of timm. Name the architecture and a file, with its "
            """arguments where it has such: 'timm:{"name": "vit_large_patch16_224@FILE", "arguments": {"init_values": 1e-5}}'."""
        )
        raise InputError(msg)
    if pretrained and not file and not download:
        msg = (
            f"weights of timm network {name!r} are not loaded from the hub unasked. Give a file, "
            f"`backbone='timm:{name}@weights.safetensors'`, or pass `download=True`."
        )
        raise FileMissingError(msg)
    fetched = pretrained and not file
    try:
        model = timm.create_model(name, pretrained=fetched, num_classes=0, **arguments)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        msg = f"timm cannot make the network {name!r}: {error}"
        raise InputError(msg) from error
    if file and pretrained:
        _load_file(model, Path(file), name)
    wanted = timm.data.resolve_model_data_config(model)
    inputs = Inputs(mean=tuple(wanted["mean"]), std=tuple(wanted["std"]), input_px=int(wanted["input_size"][-1]))
    return Network(model, name, {"arguments": arguments} if arguments else {}, inputs)


def transformers_network(name: str, options: dict[str, Any], *, pretrained: bool, download: bool) -> Network:
    """A network of transformers, from a directory or the local cache of the hub; code of the hub is never run."""
    library = _library("transformers")
    if "config" in options and not pretrained:
        values = dict(options["config"])
        config = library.AutoConfig.for_model(values.pop("model_type"), **values)
        model = library.AutoModel.from_config(config)
        scale = {}
    else:
        where = {"local_files_only": not download, "trust_remote_code": False}
        try:
            config = library.AutoConfig.from_pretrained(name, **where)
            scale = _pixel_scale(library, name, where)
            model = _weights(library, name, config, where) if pretrained else library.AutoModel.from_config(config)
        except (OSError, ValueError) as error:
            msg = (
                f"the network {name!r} of transformers is not here: {error}. Give the directory of a download "
                "(`hf download NAME --local-dir DIR`, then `backbone='transformers:DIR'`), or pass `download=True`."
            )
            raise FileMissingError(msg) from error
    n_prefix = _n_prefix(model)
    size = getattr(config, "image_size", None)
    inputs = Inputs(
        mean=tuple(scale.get("image_mean") or IMAGENET_MEAN),
        std=tuple(scale.get("image_std") or IMAGENET_STD),
        input_px=int(max(size) if isinstance(size, list | tuple) else size) if size else None,
        pool="class" if n_prefix else "mean",
        n_prefix=n_prefix,
    )
    values = json.loads(config.to_json_string(use_diff=True)) | {"model_type": config.model_type}
    return Network(model, Path(name).name, {"config": values}, inputs)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is not that of this torch
        msg = f"backbone '{name}:...' needs the package {name}, which cannot be imported ({error}): {EXTRA}."
        raise InputError(msg) from error


def _numbers(arguments: Any) -> dict[str, Any]:
    """Arguments of a network; text could name files, which a model directory may not."""
    plain = isinstance(arguments, dict) and all(_is_number(value) for value in arguments.values())
    if not plain:
        msg = f"`arguments` of a timm network must be numbers, lists of numbers, true or false; got {arguments!r}."
        raise InputError(msg)
    return dict(arguments)


def _is_number(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(part, int | float) for part in value)
    return isinstance(value, bool | int | float)


def _weights(library: Any, name: str, config: Any, where: dict[str, bool]) -> nn.Module:
    model: nn.Module = library.AutoModel.from_pretrained(name, config=config, use_safetensors=True, **where)
    return model


def _pixel_scale(library: Any, name: str, where: dict[str, bool]) -> dict[str, Any]:
    """Mean and deviation of the pixels that the weights come with; empty where they say nothing."""
    path = Path(name) / PREPROCESSOR
    if not Path(name).is_dir():
        only_here = where["local_files_only"]
        found = library.utils.cached_file(
            name, PREPROCESSOR, local_files_only=only_here, _raise_exceptions_for_missing_entries=False
        )
        path = Path(found) if found else path
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _n_prefix(model: nn.Module) -> int:
    """Class and register tokens before those of the image."""
    names = [name.rpartition(".")[2] for name, _ in model.named_parameters()]
    registers = [p.shape[-2] for name, p in model.named_parameters() if name.endswith("register_tokens")]
    return int("cls_token" in names) + sum(registers)


def _load_file(model: nn.Module, path: Path, name: str) -> None:
    """Weights of a safetensors file, or of a file of torch, of which only tensors are read."""
    if not path.is_file():
        msg = f"weights {path} of timm network {name!r} are not there; fetch them once and name the file."
        raise FileMissingError(msg)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    found = {key: value for key, value in weights.items() if key in own}  # those of the classifier are of no use
    missing = sorted(key for key in own if key not in found or found[key].shape != own[key].shape)
    if missing:
        msg = f"{path} is not for timm network {name!r}: {len(missing)} tensors missing or of another shape: {missing[:5]}."
        raise InputError(msg)
    model.load_state_dict(found)
