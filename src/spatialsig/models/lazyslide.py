"""Our models where LazySlide expects one of its own: ``zs.tl.tile_prediction`` and ``zs.tl.feature_extraction``.

LazySlide asks a model for ``model``, ``name``, ``get_transform``, ``to`` and ``try_compile``; one that predicts tiles for ``predict``,
which gives a column per name, and one that makes features for ``encode_image``. Nothing of LazySlide is imported here.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.LazySlideModel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spatialsig._arguments import Key, checked
from spatialsig.errors import InputError
from spatialsig.models.ensemble import SignatureModel, members_of, placed, predict_with_deviation
from spatialsig.nn.external import TableBackbone
from spatialsig.nn.signature import SignatureNet

_STD = "std"


class LazySlideModel:
    """A signature model in the form of a tile prediction model of LazySlide.

    ``zs.tl.tile_prediction(wsi, LazySlideModel(model))`` [1]_ adds a column per signature to the tiles, and one of its deviation where the
    model knows it; ``zs.tl.feature_extraction(wsi, LazySlideModel(model))`` the features that the head of the network reads.
    Tiles must be cut as the model was trained: ``zs.pp.tile_tissues(wsi, model.patch_px, mpp=model.um_per_px)``; another edge is
    refused, another resolution cannot be seen.

    Parameters
    ----------
    model
        Model or ensemble, trained on H&E in the colours of the scan.
    name
        What LazySlide calls it.

    Raises
    ------
    InputError
        If the model reads features of a table, or patches in a normalised stain, neither of which LazySlide gives.

    References
    ----------
    .. [1] Zheng Y, Abila E, Chrenková E, Winkler J, Rendeiro AF. LazySlide: accessible and interoperable whole-slide image
       analysis. bioRxiv (2025). https://doi.org/10.1101/2025.05.28.656548

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from spatialsig.models import LazySlideModel, SignatureViT
    >>> from spatialsig.nn.signature import SignatureConfig
    >>> scale = {"target_mean": np.zeros(2), "target_std": np.ones(2)}
    >>> model = SignatureViT(SignatureConfig(n_targets=2), ["T cell", "B cell"], **scale, patch_px=64, um_per_px=0.5)
    >>> sorted(LazySlideModel(model).predict(torch.full((3, 3, 64, 64), 200, dtype=torch.uint8)))
    ['B cell', 'T cell']
    """

    @checked
    def __init__(self, model: SignatureModel, *, name: Key = "spatialsig") -> None:
        first = members_of(model)[0]
        if isinstance(first.net.backbone, TableBackbone):
            msg = f"the model reads features of the table {first.config.backbone!r}, and LazySlide gives images. Train one on images."
            raise InputError(msg)
        if first.stain != "none":
            msg = (
                f"the model learned from patches in a normalised stain ({first.stain}), and LazySlide gives the colours of the scan. "
                "Use `sp.tl.predict_files`, which normalises, or train on the colours of the scans."
            )
            raise InputError(msg)
        self.signatures = model
        self.name = name
        self.columns = tuple(f"{signature}{end}" for end in _ends(model) for signature in model.signatures)
        self._device: str | None = None

    @property
    def model(self) -> torch.nn.Module:
        """The network; of an ensemble, that of its first member."""
        return members_of(self.signatures)[0].net

    def get_transform(self) -> Any:
        """What tiles ``(h, w, 3)`` become before :meth:`predict`: ``(3, h, w)`` uint8, in full range, unscaled."""
        return as_channels_first

    @checked
    def to(self, device: str | torch.device | None) -> LazySlideModel:
        """Predict on ``device`` from now on; the networks lie there for the length of a call."""
        self._device = None if device is None else str(device)
        return self

    @staticmethod
    def try_compile(**_options: Any) -> None:
        """Do nothing: networks are read as they are."""

    @checked
    def predict(self, image: torch.Tensor | NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Scores of tiles ``(b, 3, h, w)`` uint8, a column ``(b,)`` per signature, and ``NAME std`` where the model knows it."""
        with placed(self.signatures, self._device):
            mean, std = predict_with_deviation(self.signatures, _pixels(image))
        both = [mean] if std is None else [mean, std]
        return dict(zip(self.columns, np.concatenate(both, axis=1).T, strict=True))

    @checked
    @torch.inference_mode()
    def encode_image(self, image: torch.Tensor | NDArray[Any]) -> NDArray[np.float32]:
        """Features of tiles ``(b, 3, h, w)`` uint8 that the head of the (first) network reads, ``(b, d)``."""
        first, pixels = members_of(self.signatures)[0], _pixels(image)
        first.check_images(pixels)
        with placed(first, self._device) as device:
            features = first.net.backbone(torch.from_numpy(pixels).to(device))
            read = first.net.whiten(features) if isinstance(first.net, SignatureNet) else features
        found: NDArray[np.float32] = read.float().cpu().numpy()
        return found


def as_channels_first(tile: NDArray[np.uint8]) -> torch.Tensor:
    """A tile ``(h, w, 3)``, or with a fourth channel that is left out, as a tensor ``(3, h, w)``."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(tile)[..., :3], -1, 0)))


def _ends(model: SignatureModel) -> tuple[str, ...]:
    return ("", f" {_STD}") if model.knows_uncertainty else ("",)


def _pixels(image: torch.Tensor | NDArray[Any]) -> NDArray[np.uint8]:
    found: NDArray[Any] = image.cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if found.dtype != np.uint8:
        msg = f"tiles are {found.dtype}; wanted uint8 as they are read. Leave `transform` out, or give `model.get_transform()`."
        raise InputError(msg)
    return np.ascontiguousarray(found)
