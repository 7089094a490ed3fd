"""Autoencoder of z-scored expression: a dense network, with a linear path beside it when asked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spatialsig._checks import check_fraction
from spatialsig._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WIDTH = 65_536


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder.

    Parameters
    ----------
    hidden
        Widths of the encoder's hidden layers; the decoder mirrors them.
    n_latent
        Width of the embedding.
    dropout
        Share of input genes set to 0 (their mean) while training.
    linear_path
        Add a linear encoder and a linear decoder beside the network. The dense layers then learn only what a linear
        map cannot, which is what lets the whole beat a PCA of equal width; without it the network is the plain
        ``d-1024-256-32`` one.
    """

    hidden: tuple[int, ...] = (1024, 256)
    n_latent: int = 32
    dropout: float = 0.0
    linear_path: bool = True

    def __post_init__(self) -> None:
        widths = (*self.hidden, self.n_latent)
        if not all(isinstance(width, int) and 0 < width <= MAX_WIDTH for width in widths):
            msg = f"`hidden={self.hidden!r}` and `n_latent={self.n_latent!r}` must be integers in 1..{MAX_WIDTH}."
            raise InputError(msg)
        check_fraction(dropout=self.dropout)


class AutoencoderNet(nn.Module):
    """Map z-scores ``(b, n_genes)`` to an embedding ``(b, n_latent)`` and back.

    Parameters
    ----------
    n_genes
        Width of input and output.
    config
        Shape of the network.
    """

    def __init__(self, n_genes: int, config: AutoencoderConfig) -> None:
        super().__init__()
        if not 0 < n_genes <= MAX_WIDTH:
            msg = f"`n_genes={n_genes}` must lie in 1..{MAX_WIDTH}."
            raise InputError(msg)
        self.config, self.n_genes = config, n_genes
        widths = (n_genes, *config.hidden, config.n_latent)
        self.noise = nn.Dropout(config.dropout)
        self.enc = _dense(widths)
        self.dec = _dense(widths[::-1])
        if config.linear_path:
            self.enc_linear = nn.Linear(n_genes, config.n_latent)
            self.dec_linear = nn.Linear(config.n_latent, n_genes)

    def encode(self, z: Tensor) -> Tensor:
        """Embedding ``(b, n_latent)`` of z-scores ``(b, n_genes)``."""
        if z.ndim != 2 or z.shape[1] != self.n_genes:
            msg = f"z-scores of shape {tuple(z.shape)}; wanted (n_cells, {self.n_genes})."
            raise InputError(msg)
        z = self.noise(z)
        code: Tensor = self.enc(z)
        return code + self.enc_linear(z) if self.config.linear_path else code

    def decode(self, code: Tensor) -> Tensor:
        """Reconstructed z-scores ``(b, n_genes)`` of embeddings ``(b, n_latent)``."""
        z: Tensor = self.dec(code)
        return z + self.dec_linear(code) if self.config.linear_path else z

    def forward(self, z: Tensor) -> Tensor:
        """Reconstruct z-scores ``(b, n_genes)``."""
        return self.decode(self.encode(z))

    @torch.no_grad()
    def start_from_components(self, components: Tensor, offset: Tensor) -> None:
        """Start as the linear autoencoder of orthonormal ``components``; the dense layers begin at an output of 0.

        Parameters
        ----------
        components
            ``(n_components, n_genes)`` with ``n_components <= n_latent``, orthonormal rows.
        offset
            Mean z-score of the training cells, ``(n_genes,)``.
        """
        if not self.config.linear_path:
            msg = "only an autoencoder with `linear_path=True` can start from components."
            raise InputError(msg)
        n = len(components)
        for layer in (self.enc_linear, self.dec_linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.enc_linear.weight[:n] = components
        self.enc_linear.bias[:n] = -components @ offset
        self.dec_linear.weight[:, :n] = components.T
        self.dec_linear.bias.copy_(offset)
        for last in (self.enc[-1], self.dec[-1]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)


def _dense(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
