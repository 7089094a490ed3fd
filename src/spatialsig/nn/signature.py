"""The whole network: an H&E patch, and an expression embedding where there is one, to signature scores.

Floor 1, above the ground floor. Used by 16 modules of inference, models, nn, tl, train.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from spatialsig._arguments import Count, Fraction, Key, Natural, checked_class
from spatialsig._checks import check_integers
from spatialsig.errors import InputError
from spatialsig.nn.fusion import Fusion
from spatialsig.nn.seed_vit import SeedViT
from spatialsig.nn.stacking import Stacking
from spatialsig.nn.vit import ViT, ViTConfig

MAX_TARGETS = 100_000
MAX_LOG_VARIANCE = 6.0  # a deviation of 1 / 20 to 20 times that of the score over all patches
VIT = "vit"  # the backbone of our own


class Prediction(NamedTuple):
    """What a network says about each patch, on the standardised scale.

    Attributes
    ----------
    mean
        Scores, ``(b, n_targets)``.
    log_variance
        Logarithm of the variance expected around them, ``(b, n_targets)``; None where the network does not know it.
    code
        Expression embedding guessed from the image alone, ``(b, n_latent)``; None where the network does not guess.
    """

    mean: Tensor
    log_variance: Tensor | None = None
    code: Tensor | None = None


@checked_class
@dataclass(frozen=True)
class SignatureConfig:
    """Shape of a signature network.

    Parameters
    ----------
    vit
        The image network; with another ``backbone``, only its ``dim`` counts: the width of the head.
    n_targets
        Number of scores.
    n_latent
        Width of the expression embedding; 0 where none is used.
    fusion
        One of :data:`spatialsig.nn.fusion.FUSIONS`.
    modality_dropout
        Share of training samples whose embedding is withheld.
    backbone
        ``"vit"``, or the name of what takes its place (``"seed"``: the whole prototype).
    gaussian
        Also predict the variance around each score.
    guess_code
        Also predict the expression embedding from the image.
    image_px
        Edge of the images, where the network takes one size only; 0 where it takes all.
    n_landmarks
        Of the regression on the expression embedding, see :class:`spatialsig.nn.stacking.Stacking`; 0 where scores are
        those of the network.
    """

    vit: ViTConfig = field(default_factory=ViTConfig)
    n_targets: Count = 1
    n_latent: Natural = 0
    fusion: str = "none"
    modality_dropout: Fraction = 0.3
    backbone: Key = VIT
    gaussian: bool = False
    guess_code: bool = False
    image_px: Natural = 0
    n_landmarks: Natural = 0

    def __post_init__(self) -> None:
        check_integers(1, MAX_TARGETS, n_targets=self.n_targets)
        check_integers(0, MAX_TARGETS, n_latent=self.n_latent, image_px=self.image_px, n_landmarks=self.n_landmarks)
        if self.guess_code and self.fusion in ("none", "token"):
            msg = (
                f"an embedding can be guessed from the image only where the network is given one and the image's features "
                f"have not seen it; `fusion={self.fusion!r}` is not such. Use 'gated', 'film' or 'add'."
            )
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
    backbone
        Any module with ``num_features``, ``takes_tokens`` and ``forward(image, extra=None) -> (b, num_features)`` for
        images as in :meth:`forward`; one that takes tokens also has ``token_dim``. None makes what ``config`` names.
    """

    def __init__(self, config: SignatureConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = new_backbone(config) if backbone is None else backbone
        _check_tokens(config, self.backbone)
        dim, n_features = config.vit.dim, cast("int", self.backbone.num_features)
        self.whiten = Whitening(n_features)
        self.linear = nn.Linear(n_features, config.n_targets)
        if config.fusion != "none":
            self.linear_ae = nn.Linear(config.n_latent, config.n_targets, bias=False)
            nn.init.zeros_(self.linear_ae.weight)
        self.project = nn.Linear(n_features, dim)
        width = cast("int", self.backbone.token_dim) if config.fusion == "token" else dim
        self.fusion = Fusion(config.fusion, width, config.n_latent, modality_dropout=config.modality_dropout)
        # without a hidden layer, fusion after the backbone could only add the two modalities up
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, config.n_targets))
        if config.gaussian:
            self.spread = nn.Linear(dim, config.n_targets)
            nn.init.zeros_(self.spread.weight)
            nn.init.zeros_(self.spread.bias)
        if config.guess_code:
            self.guess = nn.Linear(n_features, config.n_latent)
            nn.init.zeros_(self.guess.weight)
            nn.init.zeros_(self.guess.bias)
        self.stacking: Stacking | None = None
        if config.n_landmarks:
            self.stack(Stacking(config.n_landmarks, config.n_latent, config.n_targets))

    def stack(self, stacking: Stacking) -> None:
        """Let ``stacking`` have the last word where expression is given; the image alone is read as before."""
        self.config = replace(self.config, n_landmarks=len(stacking.landmarks))
        self.stacking = stacking

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
        return self.forward_all(image, ae, ae_present).mean

    def forward_all(self, image: Tensor, ae: Tensor | None = None, ae_present: Tensor | None = None) -> Prediction:
        """Everything the network predicts; arguments as in :meth:`forward`."""
        if self.config.fusion == "none":
            return self.read(self.whiten(self.backbone(image)), None, None)
        if self.stacking is not None and ae is not None:
            fused, alone = self.forward_both(image, ae, ae_present)
            code, keep = self.fusion.given(ae, ae_present, len(image))
            return fused._replace(mean=torch.where(keep, self.stacking(code, alone.mean, fused.mean), alone.mean))
        code, keep = self.fusion.given(ae, ae_present, len(image))
        embedded = self.fusion.embed(code, keep)
        return self.read(self.whiten(self.features(image, embedded)), code, embedded)

    def forward_both(
        self, image: Tensor, ae: Tensor, ae_present: Tensor | None = None
    ) -> tuple[Prediction, Prediction]:
        """:meth:`forward_all`, and the same of the image alone; one pass of the backbone where fusion comes after it."""
        code, keep = self.fusion.given(ae, ae_present, len(image))
        embedded = self.fusion.embed(code, keep)
        nothing, unseen = self.fusion.given(None, None, len(image))
        missing = self.fusion.embed(nothing, unseen)
        features = self.whiten(self.features(image, embedded))
        alone = self.whiten(self.features(image, missing)) if self.config.fusion == "token" else features
        return self.read(features, code, embedded), self.read(alone, nothing, missing)

    def features(self, image: Tensor, embedded: Tensor) -> Tensor:
        """Features of the backbone ``(b, n_features)``, which sees ``embedded`` for fusion ``"token"`` only."""
        tokens = self.fusion.tokens(embedded)
        features: Tensor = self.backbone(image) if tokens is None else self.backbone(image, tokens)
        return features

    def read(self, features: Tensor, code: Tensor | None, embedded: Tensor | None) -> Prediction:
        """Whitened features ``(b, n_features)`` and what is seen of the expression to predictions."""
        hidden = self.head[:-1](self.fusion(self.project(features), embedded))
        mean = self.linear(features) + self.head[-1](hidden)
        if code is not None:
            mean = mean + self.linear_ae(code)
        log_variance = bounded(self.spread(hidden)) if self.config.gaussian else None
        return Prediction(mean, log_variance, self.guess(features) if self.config.guess_code else None)


def bounded(raw: Tensor) -> Tensor:
    """Log-variances within ``+- MAX_LOG_VARIANCE``, about ``raw`` itself near 0, with a gradient everywhere."""
    return MAX_LOG_VARIANCE * torch.tanh(raw.float() / MAX_LOG_VARIANCE)


def new_backbone(config: SignatureConfig) -> nn.Module:
    """The image network that ``config`` names, untrained."""
    if config.backbone == VIT:
        return ViT(config.vit)
    from spatialsig.nn.backbones import build_backbone  # loads libraries that only foreign networks need

    backbone: nn.Module = build_backbone(config.backbone, pretrained=False)
    return backbone


def _check_tokens(config: SignatureConfig, backbone: nn.Module) -> None:
    if config.fusion == "token" and not getattr(backbone, "takes_tokens", False):
        msg = (
            f"`fusion='token'` puts the expression among the image tokens, which backbone {config.backbone!r} does not "
            "allow. Use 'gated', 'film' or 'add'."
        )
        raise InputError(msg)


class SeedNet(nn.Module):
    """:class:`SeedViT` with the inputs of a :class:`spatialsig.nn.signature.SignatureNet`.

    The prototype knows no missing expression: zeros stand in for it, and scores without it mean little.

    Parameters
    ----------
    config
        Its ``n_targets``, ``n_latent`` and ``image_px`` count.
    """

    def __init__(self, config: SignatureConfig) -> None:
        super().__init__()
        if config.fusion not in ("none", "add") or config.gaussian or config.guess_code:
            msg = (
                f"the prototype adds the expression and predicts scores only; got `fusion={config.fusion!r}`, "
                f"`gaussian={config.gaussian}`, `guess_code={config.guess_code}`. Use fusion='add' or 'none'."
            )
            raise InputError(msg)
        self.config = config
        ae_dim = config.n_latent if config.fusion == "add" else 0
        self.backbone = SeedViT(config.n_targets, ae_dim, image_px=config.image_px)

    def forward(self, image: Tensor, ae: Tensor | None = None, ae_present: Tensor | None = None) -> Tensor:
        """Scores ``(b, n_targets)``; arguments as in :meth:`spatialsig.nn.signature.SignatureNet.forward`."""
        n_latent = self.backbone.ae_dim
        if not n_latent:
            return self.backbone(_pixels(image))  # type: ignore[no-any-return]
        code = torch.zeros(len(image), n_latent, device=image.device) if ae is None else ae
        if ae_present is not None:
            code = torch.where(ae_present[:, None], code, torch.zeros_like(code))
        return self.backbone(_pixels(image), code)  # type: ignore[no-any-return]

    def forward_all(self, image: Tensor, ae: Tensor | None = None, ae_present: Tensor | None = None) -> Prediction:
        """Scores, as a :class:`spatialsig.nn.signature.Prediction`."""
        return Prediction(self(image, ae, ae_present))


def _pixels(image: Tensor) -> Tensor:
    """Uint8 pixels as they are; optical densities back to [0, 1]."""
    return ((256 * torch.exp(-image) - 1) / 255).clamp(0, 1) if image.is_floating_point() else image
