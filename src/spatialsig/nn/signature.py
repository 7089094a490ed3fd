"""The whole network: an H&E patch, and an expression embedding where there is one, to signature scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spatialsig._errors import InputError
from spatialsig.nn.fusion import Fusion
from spatialsig.nn.vit import ViT, ViTConfig

MAX_TARGETS = 100_000


@dataclass(frozen=True)
class SignatureConfig:
    """Shape of a signature network.

    Parameters
    ----------
    vit
        The image network.
    n_targets
        Number of scores.
    n_latent
        Width of the expression embedding; 0 where none is used.
    fusion
        One of :data:`spatialsig.nn.fusion.FUSIONS`.
    modality_dropout
        Share of training samples whose embedding is withheld.
    """

    vit: ViTConfig = field(default_factory=ViTConfig)
    n_targets: int = 1
    n_latent: int = 0
    fusion: str = "none"
    modality_dropout: float = 0.3

    def __post_init__(self) -> None:
        if not (type(self.n_targets) is int and 0 < self.n_targets <= MAX_TARGETS):
            msg = f"`n_targets={self.n_targets!r}` must be an integer in 1..{MAX_TARGETS}."
            raise InputError(msg)
        if not (type(self.n_latent) is int and 0 <= self.n_latent <= MAX_TARGETS):
            msg = f"`n_latent={self.n_latent!r}` must be an integer in 0..{MAX_TARGETS}."
            raise InputError(msg)


class Whitening(nn.Module):
    """Fixed linear map after which features are uncorrelated and of unit variance.

    Features of patches go together closely, and gradient steps along the few directions that all share drown the many
    that tell scores apart. The map is the identity until :meth:`set`.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def set(self, mean: Tensor, matrix: Tensor) -> None:
        """Take ``mean`` ``(dim,)`` off and multiply by ``matrix`` ``(dim, dim)`` from now on."""
        self.mean.copy_(mean)
        self.matrix.copy_(matrix)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(b, dim)`` to features of the same shape."""
        with torch.autocast(features.device.type, enabled=False):  # directions of little variance need all of float32
            return (features.float() - self.mean) @ self.matrix


class SignatureNet(nn.Module):
    """Predict ``n_targets`` standardised scores per patch: linear maps of image features and expression, and a network on both.

    Parameters
    ----------
    config
        Shape of the network.
    """

    def __init__(self, config: SignatureConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ViT(config.vit)
        dim = config.vit.dim
        self.whiten = Whitening(self.backbone.num_features)
        self.linear = nn.Linear(self.backbone.num_features, config.n_targets)
        if config.fusion != "none":
            self.linear_ae = nn.Linear(config.n_latent, config.n_targets, bias=False)
            nn.init.zeros_(self.linear_ae.weight)
        self.project = nn.Linear(self.backbone.num_features, dim)
        self.fusion = Fusion(config.fusion, dim, config.n_latent, modality_dropout=config.modality_dropout)
        # without a hidden layer, fusion after the backbone could only add the two modalities up
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, config.n_targets))

    def forward(self, image: Tensor, ae: Tensor | None = None, ae_present: Tensor | None = None) -> Tensor:
        """Standardised scores ``(b, n_targets)``.

        Parameters
        ----------
        image
            ``(b, 3, h, w)``: uint8 pixels, or float optical densities.
        ae
            Standardised expression embedding ``(b, n_latent)``; None predicts from the image alone.
        ae_present
            Which rows of ``ae`` are measured, ``(b,)`` bool; None means all.
        """
        if self.config.fusion == "none":
            features = self.whiten(self.backbone(image))
            alone: Tensor = self.linear(features) + self.head(self.project(features))
            return alone
        code, keep = self.fusion.given(ae, ae_present, len(image))
        embedded = self.fusion.embed(code, keep)
        features = self.whiten(self.backbone(image, self.fusion.tokens(embedded)))
        joined = self.head(self.fusion(self.project(features), embedded))
        scores: Tensor = self.linear(features) + self.linear_ae(code) + joined
        return scores
