"""Autoencoders in the three files of the prototype: ``ae.ckpt``, ``ae_genes.json``, ``scaler.npz``.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.export_seed_autoencoder, sp.models.import_seed_autoencoder; used by 1 modules of 1 rooms.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from spatialsig._arguments import AnyPath, checked
from spatialsig._checks import check_files
from spatialsig._files import replaced, write_text
from spatialsig.errors import InputError
from spatialsig.models.autoencoder import Autoencoder
from spatialsig.nn.autoencoder import AutoencoderConfig

CHECKPOINT, GENES, SCALER = "ae.ckpt", "ae_genes.json", "scaler.npz"
_DENSE = ("enc", "dec")


@checked
def export_seed_autoencoder(model: Autoencoder, directory: AnyPath) -> None:
    """Write a plain autoencoder in the prototype's layout.

    Parameters
    ----------
    model
        Trained with ``linear_path=False`` and the loss ``"mse"``: the prototype knows no other network.
    directory
        Folder to write into; made if missing.

    Returns
    -------
    Nothing; writes ``ae.ckpt`` (torch state dict with keys ``enc.{0,2,...}.{weight,bias}``, ``dec...``),
    ``ae_genes.json`` (list of names in the order of the input) and ``scaler.npz`` (``mu``, ``sigma``, each
    ``(1, n_genes)`` float32).

    Raises
    ------
    InputError
        If the network has parts that the prototype has not.

    Examples
    --------
    >>> import os, tempfile
    >>> from spatialsig.models import Autoencoder, export_seed_autoencoder
    >>> from spatialsig.nn.autoencoder import AutoencoderConfig
    >>> plain = AutoencoderConfig(hidden=(8,), n_latent=2, linear_path=False)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     export_seed_autoencoder(Autoencoder(plain, ["CD3D"], mean=[0.1], std=[1.0]), directory)
    ...     sorted(os.listdir(directory))
    ['ae.ckpt', 'ae_genes.json', 'scaler.npz']
    """
    extra = sorted({name.split(".")[0] for name in model.net.state_dict()} - set(_DENSE))
    if extra or model.config.loss != "mse":
        msg = (
            f"this autoencoder has {extra or 'no extra parts'} and the loss {model.config.loss!r}, which the prototype's "
            "layout cannot hold; train one with `linear_path=False, loss='mse'`."
        )
        raise InputError(msg)
    place = Path(directory)
    weights = {name: value.detach().cpu().clone() for name, value in model.net.state_dict().items()}
    packed = io.BytesIO()  # torch hides what the disk says
    torch.save(weights, packed)
    with replaced(place / CHECKPOINT) as partial:
        partial.write_bytes(packed.getbuffer())
    write_text(place / GENES, json.dumps(list(model.genes)))
    with replaced(place / SCALER) as partial, partial.open("wb") as file:
        np.savez(file, mu=model.mean[None].astype(np.float32), sigma=model.std[None].astype(np.float32))


@checked
def import_seed_autoencoder(directory: AnyPath) -> Autoencoder:
    """Read the three files of the prototype; nothing in them is executed.

    Parameters
    ----------
    directory
        Folder with ``ae.ckpt``, ``ae_genes.json`` and ``scaler.npz``.

    Returns
    -------
    The model; ``run["source"]`` says where it comes from.

    Raises
    ------
    FileMissingError
        If files are missing (all are named).
    InputError
        If a file holds something else, or the files do not fit each other.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from spatialsig.models import Autoencoder, export_seed_autoencoder, import_seed_autoencoder
    >>> from spatialsig.nn.autoencoder import AutoencoderConfig
    >>> shape = AutoencoderConfig(hidden=(8,), n_latent=2, linear_path=False)
    >>> model = Autoencoder(shape, ["CD3D", "EPCAM"], mean=np.zeros(2), std=np.ones(2))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     export_seed_autoencoder(model, directory)
    ...     import_seed_autoencoder(directory).genes
    ('CD3D', 'EPCAM')
    """
    place = Path(directory)
    files = [place / name for name in (CHECKPOINT, GENES, SCALER)]
    check_files(files, what=f"autoencoder of the prototype in {str(place)!r}", fix="Copy all three files.")
    state, genes = _state(place / CHECKPOINT), _genes(place / GENES)
    widths = [int(state[f"enc.{2 * i}.bias"].shape[0]) for i in range(_n_layers(state))]
    config = AutoencoderConfig(hidden=tuple(widths[:-1]), n_latent=widths[-1], linear_path=False)
    mean, std = _scaler(place / SCALER, len(genes))
    model = Autoencoder(config, genes, mean=mean, std=std, run={"source": str(place.resolve())})
    try:
        model.net.load_state_dict(state)
    except RuntimeError as error:
        msg = f"{str(place / CHECKPOINT)!r} does not fit {len(genes)} genes of {GENES}: {error}"
        raise InputError(msg) from error
    return model


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, BadZipFile) as error:
        msg = f"{str(path)!r} is no state dict of tensors ({error}): only weights are read, nothing is executed."
        raise InputError(msg) from error
    whole = isinstance(state, dict) and state and all(isinstance(value, torch.Tensor) for value in state.values())
    if not whole or any(str(name).split(".")[0] not in _DENSE for name in state) or "enc.0.bias" not in state:
        found = sorted(map(str, state))[:6] if isinstance(state, dict) else type(state).__name__
        msg = f"{str(path)!r} holds {found}; wanted tensors `enc.0.weight`, `enc.0.bias`, ..., `dec...`."
        raise InputError(msg)
    weights: dict[str, torch.Tensor] = state
    return weights


def _n_layers(state: dict[str, torch.Tensor]) -> int:
    n = 0
    while f"enc.{2 * n}.bias" in state:
        n += 1
    return n


def _genes(path: Path) -> list[str]:
    try:
        genes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{str(path)!r} is no valid JSON ({error}); wanted a list of gene names."
        raise InputError(msg) from error
    if not isinstance(genes, list) or not genes or not all(isinstance(gene, str) for gene in genes):
        msg = f"{str(path)!r} holds {type(genes).__name__}; wanted a list of gene names."
        raise InputError(msg)
    return genes


def _scaler(path: Path, n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            parts = {name: np.asarray(found[name], np.float64).ravel() for name in found.files}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        msg = f"{str(path)!r} cannot be read as numbers ({error}); wanted arrays `mu` and `sigma`."
        raise InputError(msg) from error
    sizes = {name: len(part) for name, part in parts.items()}
    if sizes.get("mu") != n_genes or sizes.get("sigma") != n_genes:
        msg = f"{str(path)!r} holds {sizes}; wanted `mu` and `sigma` of {n_genes} numbers, one per gene of {GENES}."
        raise InputError(msg)
    return parts["mu"], parts["sigma"]
