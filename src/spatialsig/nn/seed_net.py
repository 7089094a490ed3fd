"""The prototype's network behind the inputs of a signature network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spatialsig.errors import InputError
from spatialsig.nn.seed_vit import SeedViT
from spatialsig.nn.signature import Prediction

if TYPE_CHECKING:
    from spatialsig.nn.signature import SignatureConfig


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
