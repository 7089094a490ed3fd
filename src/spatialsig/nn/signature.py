"""The whole network: an H&E patch, and an expression embedding where there is one, to signature scores."""

from __future__ import annotations

from dataclasses import dataclass, field

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


class SignatureNet(nn.Module):
    """Predict ``n_targets`` standardised scores per patch.

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
        # batch norm: patches differ little beside what all have in common, and only the differences tell scores apart
        self.standardise = nn.Sequential(
            nn.BatchNorm1d(self.backbone.num_features), nn.Linear(self.backbone.num_features, dim)
        )
        self.fusion = Fusion(config.fusion, dim, config.n_latent, modality_dropout=config.modality_dropout)
        # without a hidden layer, fusion after the backbone could only add the two modalities up
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, config.n_targets))

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
        embedded = self.fusion.embed(ae, ae_present, len(image))
        features = self.standardise(self.backbone(image, self.fusion.tokens(embedded)))
        scores: Tensor = self.head(self.fusion(features, embedded))
        return scores
