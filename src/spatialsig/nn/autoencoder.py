"""Autoencoder of expression: a dense network, with a linear path beside it when asked.

Floor 1, above the ground floor. Used by 5 modules of expression, models, train.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from spatialsig._arguments import Count, Fraction, Natural, checked_class
from spatialsig._checks import check_choice, check_integers
from spatialsig.errors import InputError
from spatialsig.nn.losses import gene_rates, negative_binomial_loss, poisson_loss, squared_error

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WIDTH = 65_536
LOSSES = ("mse", "nb", "poisson")


@checked_class
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
        Share of input genes set to 0 (their mean) while training, to be rebuilt from the others (denoising): the
        embedding then carries less of the noise of single genes; 0 is the plain autoencoder.
    linear_path
        Add a linear encoder and a linear decoder beside the network. The dense layers then learn only what a linear
        map cannot, which is what lets the whole beat a PCA of equal width; without it the network is the plain
        ``d-1024-256-32`` one.
    loss
        What the decoder rebuilds: ``"mse"`` z-scores; ``"poisson"`` and ``"nb"`` counts, as the share of each gene in
        the library (negative binomial: with a dispersion per gene).
    n_batches
        Slides (or other batches) whose constant offset per gene the decoder is told, so that the embedding need not
        carry it; 0 for none.
    masked
        Slides may lack genes: these are left out of the input and of the loss.
    """

    hidden: tuple[int, ...] = (1024, 256)
    n_latent: Count = 32
    dropout: Fraction = 0.2
    linear_path: bool = True
    loss: str = "mse"
    n_batches: Natural = 0
    masked: bool = False

    def __post_init__(self) -> None:
        check_choice(self.loss, LOSSES, name="loss")
        check_integers(0, MAX_WIDTH, n_batches=self.n_batches)
        widths = (*self.hidden, self.n_latent)
        if not all(isinstance(width, int) and 0 < width <= MAX_WIDTH for width in widths):
            msg = f"`hidden={self.hidden!r}` and `n_latent={self.n_latent!r}` must be integers in 1..{MAX_WIDTH}."
            raise InputError(msg)


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
        if config.loss == "nb":
            self.log_dispersion = nn.Parameter(torch.zeros(n_genes))
        if config.n_batches:
            self.batch_offset = nn.Embedding(config.n_batches, n_genes)
            nn.init.zeros_(self.batch_offset.weight)

    def encode(self, z: Tensor) -> Tensor:
        """Embedding ``(b, n_latent)`` of z-scores ``(b, n_genes)``."""
        if z.ndim != 2 or z.shape[1] != self.n_genes:
            msg = f"z-scores of shape {tuple(z.shape)}; wanted (n_cells, {self.n_genes})."
            raise InputError(msg)
        z = self.noise(z)
        code: Tensor = self.enc(z)
        return code + self.enc_linear(z) if self.config.linear_path else code

    def decode(self, code: Tensor, batch: Tensor | None = None) -> Tensor:
        """Output of the decoder for embeddings ``(b, n_latent)``: z-scores, or the logits of a count loss.

        ``batch`` ``(b,)`` adds the offset of each cell's slide; None leaves them out.
        """
        out: Tensor = self.dec(code)
        out = out + self.dec_linear(code) if self.config.linear_path else out
        return out if batch is None or not self.config.n_batches else out + self.batch_offset(batch)

    def forward(self, z: Tensor, batch: Tensor | None = None) -> Tensor:
        """Decode the embedding of z-scores ``(b, n_genes)``."""
        return self.decode(self.encode(z), batch)

    def loss(
        self, z: Tensor, *, counts: Tensor, library: Tensor, batch: Tensor | None = None, measured: Tensor | None = None
    ) -> Tensor:
        """Loss of the configuration, a mean over cells and measured genes.

        Parameters
        ----------
        z
            z-scores, ``(b, n_genes)``.
        counts, library
            Raw counts ``(b, n_genes)`` and their sum ``(b,)``; not looked at by ``"mse"``.
        batch
            Slide of each cell, ``(b,)``; None leaves the offsets out.
        measured
            ``(b, n_genes)`` bool; None where all genes are measured.
        """
        out = self(z, batch)
        if self.config.loss == "mse":
            return squared_error(out, z, measured)
        mean = gene_rates(out, measured) * library[:, None]
        if self.config.loss == "poisson":
            return poisson_loss(counts, mean, measured)
        return negative_binomial_loss(counts, mean, self.log_dispersion.exp(), measured)

    @torch.no_grad()
    def start_from_components(
        self, components: Tensor, offset: Tensor, *, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        """Start as the linear autoencoder of orthonormal ``components``; the dense layers begin at an output of 0.

        Parameters
        ----------
        components
            ``(n_components, n_genes)`` with ``n_components <= n_latent``, orthonormal rows.
        offset
            Mean z-score of the training cells, ``(n_genes,)``.
        scale, shift
            Map the rebuilt z-scores to the decoder's output, ``scale * z + shift``, each ``(n_genes,)``; None where
            the output is the z-scores.
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
        scale = torch.ones_like(offset) if scale is None else scale
        self.dec_linear.weight[:, :n] = components.T * scale[:, None]
        self.dec_linear.bias.copy_(offset * scale + (0.0 if shift is None else shift))
        for last in (self.enc[-1], self.dec[-1]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    @torch.no_grad()
    def change_axes(self, centre: Tensor, change: Tensor) -> None:
        """Replace every embedding ``code`` by ``(code - centre) @ change``; what is decoded stays the same.

        Parameters
        ----------
        centre
            ``(n_latent,)``.
        change
            ``(n_latent, n_latent)``, invertible.
        """
        lasts, firsts = [cast("nn.Linear", self.enc[-1])], [cast("nn.Linear", self.dec[0])]
        if self.config.linear_path:
            lasts, firsts = [*lasts, self.enc_linear], [*firsts, self.dec_linear]
        device = lasts[0].weight.device
        centre, change = centre.double().to(device), change.double().to(device)
        back = torch.linalg.inv(change)
        for last in lasts:
            last.weight.copy_(change.T @ last.weight.double())
            last.bias.copy_(last.bias.double() @ change)
        lasts[0].bias.sub_(centre @ change)
        for first in firsts:
            first.bias.add_(first.weight.double() @ centre)
            first.weight.copy_(first.weight.double() @ back.T)


def _dense(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
