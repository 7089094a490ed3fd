"""Models on a hub: taken from there or from a directory, and put there with their card.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.from_hub, sp.models.push_to_hub.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._checks import check_files
from spatialsig._known import MODELS, what_is
from spatialsig.errors import FileMissingError, InputError
from spatialsig.models.autoencoder import Autoencoder
from spatialsig.models.card import CARD, card_text, write_card
from spatialsig.models.cell_head import CellHead
from spatialsig.models.directory import CONFIG
from spatialsig.models.ensemble import SignatureEnsemble
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.models.record import read_json
from spatialsig.models.vit import SignatureViT

AnyModel: TypeAlias = SignatureViT | SignatureEnsemble | Autoencoder | PretrainedViT | CellHead
_KINDS: dict[str, Any] = {
    kind.kind: kind for kind in (SignatureViT, SignatureEnsemble, Autoencoder, PretrainedViT, CellHead)
}
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# all that a model is made of; nothing else of a repository is fetched
FILES = ("*.json", "*.safetensors", "*.npz", "README.md")


@checked
def from_hub(source: AnyPath, *, revision: Key | None = None) -> AnyModel:
    """Read a model of any kind from a hub of models, or from a directory.

    Parameters
    ----------
    source
        Repository, ``"owner/name"``; or a directory that ``model.save`` wrote. A directory of that name goes first.
    revision
        Branch, tag or commit of the repository; ``None`` takes the newest.

    Returns
    -------
    The model, whose files are checked against their SHA-256 as :meth:`SignatureViT.load` does. Nothing in them is executed.

    Raises
    ------
    FileMissingError
        If there is neither.
    InputError
        If the model is damaged or of an unknown kind, or ``huggingface_hub`` is needed and not installed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import spatialsig as sp
    >>> from spatialsig.nn.signature import SignatureConfig
    >>> scale = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
    >>> model = sp.models.SignatureViT(SignatureConfig(), ["T cell"], **scale, patch_px=64, um_per_px=0.5)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     model.save(f"{directory}/vit")
    ...     sp.models.from_hub(f"{directory}/vit").signatures
    ('T cell',)
    """
    place = Path(source)
    if place.is_dir():
        if revision is not None:
            msg = f"`revision={revision!r}` is of a repository, and {str(place)!r} is a directory; leave it out."
            raise InputError(msg)
        return _load(place)
    if not _REPOSITORY.fullmatch(str(source)):
        msg = f"{str(source)!r} is no directory, nor the name of a repository (`owner/name`).{what_is(place)}"
        raise FileMissingError(msg)
    fetched = _hub().snapshot_download(str(source), revision=revision, allow_patterns=list(FILES))
    return _load(Path(fetched))


@checked
def push_to_hub(
    model: AnyModel,
    repository: Key,
    *,
    license: Key = "other",
    private: bool = True,
    message: Key = "A model of spatialsig",
) -> str:
    """Put a model on a hub of models, its card with it.

    Parameters
    ----------
    model
        Model of any kind.
    repository
        ``"owner/name"``; made where it is not there. Who you are is asked by ``huggingface_hub``
        (``hf auth login``).
    license
        Identifier of the licence, for the header of the card. A card that was edited in the repository is kept as it is there.
    private
        Whether a new repository can be seen by nobody else.
    message
        Of the commit.

    Returns
    -------
    Address of the commit.

    Raises
    ------
    InputError
        If the name is none of a repository, or ``huggingface_hub`` is not installed.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sp.models.push_to_hub(model, "our-lab/breast-xenium", license="cc-by-4.0")  # doctest: +SKIP
    """
    if not _REPOSITORY.fullmatch(repository):
        msg = f"`repository={repository!r}`; wanted `owner/name`."
        raise InputError(msg)
    if not _LICENCE.fullmatch(license):
        msg = f"`license={license!r}`; wanted the identifier of a licence, such as 'cc-by-4.0'."
        raise InputError(msg)
    hub = _hub()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "model"
        model.save(place)
        hub.create_repo(repository, private=private, exist_ok=True)
        there = Path(hub.snapshot_download(repository, allow_patterns=[CARD]))
        write_card(place, card_text(model, license_id=license), before=there)
        return str(hub.upload_folder(repo_id=repository, folder_path=str(place), commit_message=message))


def _load(place: Path) -> AnyModel:
    check_files(
        [place / CONFIG],
        what=f"model directory {place}",
        fix="Give a directory that `model.save` wrote.",
        folders=False,
    )
    kind = read_json(place / CONFIG, dict).get("kind")
    if kind not in _KINDS:
        msg = f"{place / CONFIG}: a model of kind {kind!r}; wanted {', '.join(MODELS)}."
        raise InputError(msg)
    model: AnyModel = _KINDS[kind].load(place)
    return model


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        msg = f"hubs of models need the package huggingface_hub, which cannot be imported ({error}): `pip install 'spatialsig[hub]'`."
        raise InputError(msg) from error
