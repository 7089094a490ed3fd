"""Final scores from expression alone, image alone and both: a regression on the embedding, and one weight for each.

Floor 1, above the ground floor. Used by inference/stacking, nn/signature, train/expression_ridge.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PARTS = ("expression", "image", "fused")


def gaussian_kernel(codes: Tensor, landmarks: Tensor, width: float | Tensor) -> Tensor:
    """``exp(-width * squared distance / d)`` between standardised codes ``(n, d)`` and landmarks ``(m, d)``, ``(n, m)``."""
    squared = (codes**2).sum(dim=1)[:, None] + (landmarks**2).sum(dim=1) - 2 * codes @ landmarks.T
    return torch.exp(-width / codes.shape[1] * squared.clamp_min(0))


class Stacking(nn.Module):
    """Weighted sum of three standardised scores of a patch: of its expression, its image, and of both by the network.

    The weights were learned on patches that none of the three was fitted to (stacked regression [1]_).

    Parameters
    ----------
    n_landmarks, n_latent, n_targets
        Codes that the kernel regression compares with, their width, and the number of scores.

    References
    ----------
    .. [1] Breiman L. Stacked regressions. Machine Learning 24, 49-64 (1996). https://doi.org/10.1007/BF00117832
    """

    landmarks: Tensor
    width: Tensor
    linear: Tensor
    weights: Tensor
    offset: Tensor
    shares: Tensor

    def __init__(self, n_landmarks: int, n_latent: int, n_targets: int) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(n_landmarks, n_latent))
        self.register_buffer("width", torch.zeros(()))
        self.register_buffer("linear", torch.zeros(n_latent, n_targets))
        self.register_buffer("weights", torch.zeros(n_landmarks, n_targets))
        self.register_buffer("offset", torch.zeros(n_targets))
        self.register_buffer("shares", torch.zeros(len(PARTS), n_targets))

    def expression(self, code: Tensor) -> Tensor:
        """Standardised scores ``(b, n_targets)`` that standardised embeddings ``(b, n_latent)`` alone predict."""
        kernel = gaussian_kernel(code, self.landmarks, self.width)
        return self.offset + code @ self.linear + kernel @ self.weights

    def forward(self, code: Tensor, image: Tensor, fused: Tensor) -> Tensor:
        """Final scores ``(b, n_targets)`` from embeddings and the network's scores without and with them."""
        with torch.autocast(code.device.type, enabled=False):  # squared distances need all of float32
            parts = (self.expression(code.float()), image.float(), fused.float())
            return sum(
                (share * part for share, part in zip(self.shares, parts, strict=True)), torch.zeros_like(parts[0])
            )
