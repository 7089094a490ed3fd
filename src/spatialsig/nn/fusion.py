"""Ways to join an expression embedding to the features of an image, and to do without it.

Floor 1, above the ground floor. Used by inference/vit, nn/signature.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from spatialsig._checks import check_choice, check_fraction
from spatialsig.errors import InputError

FUSIONS = ("none", "add", "token", "film", "gated")


class Fusion(nn.Module):
    """Join an expression embedding ``(b, n_latent)`` to image features ``(b, dim)``.

    Where the embedding is missing, and for a random share of the samples while training, a learned vector stands in,
    so that the image alone stays enough.

    Parameters
    ----------
    kind
        ``"add"`` to the features; ``"token"`` among the image tokens; ``"film"``, scale and shift of the features;
        ``"gated"``, added through a tanh gate that starts shut; ``"none"``, never used.
    dim, n_latent
        Widths of the features and of the embedding.
    modality_dropout
        Share of training samples whose embedding is withheld.
    """

    def __init__(self, kind: str, dim: int, n_latent: int, *, modality_dropout: float = 0.3) -> None:
        super().__init__()
        check_choice(kind, FUSIONS, name="fusion")
        check_fraction(modality_dropout=modality_dropout)
        self.kind, self.n_latent, self.modality_dropout = kind, n_latent, modality_dropout
        if kind == "none":
            return
        if n_latent < 1:
            msg = f"`fusion={kind!r}` needs an expression embedding; got `n_latent={n_latent}`. Use fusion='none'."
            raise InputError(msg)
        self.project = nn.Sequential(nn.Linear(n_latent, dim), nn.GELU(), nn.Linear(dim, dim))
        self.missing = nn.Parameter(torch.zeros(dim))
        if kind == "film":
            self.to_scale_shift = nn.Linear(dim, 2 * dim)
            nn.init.zeros_(self.to_scale_shift.weight)
            nn.init.zeros_(self.to_scale_shift.bias)
        if kind == "gated":
            self.gate = nn.Parameter(torch.zeros(dim))

    def given(self, ae: Tensor | None, present: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """Decide which embeddings are seen.

        Parameters
        ----------
        ae
            ``(b, n_latent)``, or None.
        present
            Which rows are measured, ``(b,)``; None means all.
        batch
            Number of samples.

        Returns
        -------
        Embeddings ``(b, n_latent)``, 0 where missing or withheld, and which are seen, ``(b, 1)`` bool.
        """
        if ae is None:
            nothing = torch.zeros(batch, self.n_latent, device=self.missing.device)
            return nothing, torch.zeros(batch, 1, dtype=torch.bool, device=self.missing.device)
        if ae.shape != (batch, self.n_latent):
            msg = f"expression embedding of shape {tuple(ae.shape)}; wanted ({batch}, {self.n_latent})."
            raise InputError(msg)
        keep = self._kept(present, batch, ae.device)
        # unmeasured rows hold NaN: put 0 there before any product, for NaN * 0 is NaN in the gradient too
        return torch.where(keep, ae, torch.zeros_like(ae)), keep

    def embed(self, code: Tensor, keep: Tensor) -> Tensor:
        """Projected embeddings ``(b, dim)`` of what :meth:`given` gave, the learned vector where one is not seen."""
        projected = self.project(code)
        return torch.where(keep, projected, self.missing.to(projected.dtype))

    def tokens(self, embedded: Tensor | None) -> Tensor | None:
        """Tokens ``(b, 1, dim)`` to put among the image tokens, for ``"token"`` only."""
        return rearrange(embedded, "b d -> b 1 d") if self.kind == "token" and embedded is not None else None

    def forward(self, features: Tensor, embedded: Tensor | None) -> Tensor:
        """Features ``(b, dim)`` joined with what :meth:`embed` gave."""
        if embedded is None or self.kind == "token":
            return features
        if self.kind == "add":
            return features + embedded
        if self.kind == "gated":
            return features + torch.tanh(self.gate) * embedded
        scale, shift = self.to_scale_shift(embedded).chunk(2, dim=-1)
        joined: Tensor = features * (1 + scale) + shift
        return joined

    def _kept(self, present: Tensor | None, batch: int, device: torch.device) -> Tensor:
        keep = torch.ones(batch, dtype=torch.bool, device=device) if present is None else present.to(device).bool()
        if keep.shape != (batch,):
            msg = f"`ae_present` of shape {tuple(keep.shape)}; wanted ({batch},)."
            raise InputError(msg)
        if self.training and self.modality_dropout > 0:
            keep = keep & (torch.rand(batch, device=device) >= self.modality_dropout)
        return rearrange(keep, "b -> b 1")
