"""A trained autoencoder of expression: genes, scaler and network in one object.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.Autoencoder; used by 9 modules of 6 rooms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from spatialsig._arguments import AnyPath, Count, checked
from spatialsig._hashing import content_hash
from spatialsig.errors import InputError
from spatialsig.models.directory import (
    CONFIG,
    check_model,
    config_from_json,
    load_weights,
    read_names,
    read_scaler,
    save_model,
)
from spatialsig.models.record import Described, read_json, reads_model
from spatialsig.models.scalers import as_floats, check_counts, check_same_genes, check_scaler, scaler_hash
from spatialsig.nn.autoencoder import AutoencoderConfig, AutoencoderNet
from spatialsig.nn.device import on_device
from spatialsig.nn.losses import gene_rates
from spatialsig.stats.cell_rows import dense_rows, zscore_rows
from spatialsig.stats.expression import library_size

if TYPE_CHECKING:
    from collections.abc import Iterator

Counts: TypeAlias = sparse.csr_matrix | sparse.csr_array
_SHOWN = 10


class Autoencoder(Described):
    """Embed cells by their expression.

    The network sees ``(log1p(1e4 * count / library) - mean) / std`` with the library taken over its own genes.

    Parameters
    ----------
    config
        Shape of the network.
    genes
        Gene names, in the order of the network's input.
    mean, std
        Scaler of the training cells, ``(n_genes,)``.
    run
        Provenance, JSON-able (training slides, seed, hashes).

    Attributes
    ----------
    net
        The network, in evaluation mode.

    References
    ----------
    Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313 (2006) 504-507,
    https://doi.org/10.1126/science.1127647

    Examples
    --------
    :func:`spatialsig.tl.train_autoencoder` makes one from slides. Untrained, of three genes:

    >>> import numpy as np
    >>> from scipy import sparse
    >>> from spatialsig.models import Autoencoder
    >>> from spatialsig.nn.autoencoder import AutoencoderConfig
    >>> shape = AutoencoderConfig(hidden=(8,), n_latent=2)
    >>> model = Autoencoder(shape, ["CD3D", "MS4A1", "EPCAM"], mean=np.zeros(3), std=np.ones(3))
    >>> counts = sparse.csr_matrix(np.array([[4, 0, 1], [0, 2, 7]], np.float32))
    >>> model.get_latent_representation(counts).shape
    (2, 2)
    """

    kind = "Autoencoder"

    @checked
    def __init__(
        self,
        config: AutoencoderConfig,
        genes: Sequence[str],
        *,
        mean: NDArray[Any] | Sequence[float],
        std: NDArray[Any] | Sequence[float],
        run: dict[str, Any] | None = None,
        net: AutoencoderNet | None = None,
    ) -> None:
        self.config, self.genes = config, tuple(genes)
        self.mean, self.std = as_floats(mean, name="mean"), as_floats(std, name="std")
        check_scaler(self.genes, self.mean, self.std)
        self.run = dict(run or {})
        self.net = AutoencoderNet(len(self.genes), config) if net is None else net
        self.net.eval()

    @property
    def n_latent(self) -> int:
        """Width of the embedding."""
        return self.config.n_latent

    @property
    def scaler_sha256(self) -> str:
        """Hash of genes, means and deviations in their order."""
        return scaler_hash(self.genes, self.mean, self.std)

    def record(self) -> dict[str, Any]:
        """What tells embeddings of this model from those of another: scaler, its hash, and hash of it and the weights."""
        return {
            "genes": list(self.genes),
            "mean": self.mean,
            "std": self.std,
            "scaler_sha256": self.scaler_sha256,
            "model_sha256": model_hash(self.scaler_sha256, self.net),
        }

    @checked
    def align_genes(self, var_names: Sequence[str], *, where: str = "the table") -> NDArray[np.int64]:
        """Columns of a table that hold the model's genes, in the model's order, ``(n_genes,)``.

        A model trained on slides of different panels (``config.masked``) does without some genes: -1 stands for them.

        Parameters
        ----------
        var_names
            Gene names of the table, any order, more than the model's allowed.
        where
            What the errors call the table.

        Raises
        ------
        InputError
            If a gene of the model is missing (of a masked model: more than half of them), or stands there twice.
        """
        names = [str(name) for name in var_names]
        place = {name: column for column, name in enumerate(names)}
        missing = [gene for gene in self.genes if gene not in place]
        allowed = len(self.genes) // 2 if self.config.masked else 0
        if len(missing) > allowed:
            msg = (
                f"{len(missing)} of the {len(self.genes)} genes of this autoencoder are not in {where}, whose "
                f"`var_names` are {len(names)} genes: {missing[:_SHOWN]}{' ...' if len(missing) > _SHOWN else ''}. "
                "Use slides of the same panel, or train an autoencoder on the shared genes."
            )
            raise InputError(msg)
        if len(place) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1} & set(self.genes))
            if twice:
                msg = f"genes stand in the table more than once: {twice[:_SHOWN]}; make `var_names` unique."
                raise InputError(msg)
        return np.array([place.get(gene, -1) for gene in self.genes], np.int64)

    @checked
    def get_latent_representation(
        self, counts: Counts, *, measured: NDArray[np.bool_] | None = None, batch_size: Count = 4096
    ) -> NDArray[np.float32]:
        """Embed cells.

        Parameters
        ----------
        counts
            Raw counts ``(n_cells, n_genes)``, columns as ``genes``.
        measured
            ``(n_genes,)`` bool, False for genes (empty columns) that the slide does not measure; None where all are.
        batch_size
            Cells that are dense at a time.

        Returns
        -------
        ``(n_cells, n_latent)`` float32.
        """
        out = np.empty((counts.shape[0], self.n_latent), np.float32)
        with on_device(self.net), torch.inference_mode():
            for start, z in self._batches(counts, batch_size, measured):
                out[start : start + len(z)] = self.net.encode(z).cpu().numpy()
        return out

    @checked
    def reconstruct(self, counts: Counts, *, batch_size: Count = 4096) -> NDArray[np.float32]:
        """What the model makes of cells, ``(n_cells, n_genes)`` float32: z-scores, or expected counts of a count loss.

        Dense: meant for some cells, not for a whole slide.
        """
        out = np.empty(counts.shape, np.float32)
        with on_device(self.net), torch.inference_mode():
            for start, z in self._batches(counts, batch_size, None):
                rebuilt = self.net(z)
                if self.config.loss != "mse":
                    rows = counts[start : start + len(z)]
                    rebuilt = gene_rates(rebuilt) * self._tensor(library_size(rows))[:, None]
                out[start : start + len(z)] = rebuilt.cpu().numpy()
        return out

    @checked
    def get_reconstruction_error(
        self, counts: Counts, *, measured: NDArray[np.bool_] | None = None, batch_size: Count = 4096
    ) -> float:
        """Loss per cell and measured gene: squared error of the z-scores, or negative log-likelihood of the counts."""
        if not counts.shape[0]:
            msg = "`counts` holds no cells, of which there is no error."
            raise InputError(msg)
        total = 0.0
        with on_device(self.net), torch.inference_mode():
            for start, z in self._batches(counts, batch_size, measured):
                known = None if measured is None else torch.from_numpy(measured)[None].expand(len(z), -1).to(z.device)
                total += len(z) * float(self._loss(z, counts[start : start + len(z)], known))
        return total / int(counts.shape[0])

    def _loss(self, z: torch.Tensor, counts: sparse.csr_matrix, measured: torch.Tensor | None) -> torch.Tensor:
        empty = np.empty(0, np.float32)
        dense = empty if self.config.loss == "mse" else dense_rows(counts, np.arange(counts.shape[0]))
        library = self._tensor(library_size(counts))
        loss: torch.Tensor = self.net.loss(z, counts=self._tensor(dense), library=library, measured=measured)
        return loss

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(next(self.net.parameters()).device)

    @checked
    def save(self, directory: AnyPath, *, overwrite: bool = False) -> None:
        """Write the model directory, whole or not at all; in place of a model only with ``overwrite``, else :class:`StoreError`."""
        save_model(
            directory,
            kind=self.kind,
            config={"net": asdict(self.config)},
            weights=self.net.state_dict(),
            scaler={"mean": self.mean, "std": self.std},
            lists={"genes": list(self.genes)},
            run=self.run,
            card=self.card(),
            overwrite=overwrite,
        )

    @classmethod
    @checked
    @reads_model
    def load(cls, directory: AnyPath, *, genes: Sequence[str] | None = None) -> Autoencoder:
        """Read a model directory.

        Parameters
        ----------
        directory
            Where :meth:`save` wrote.
        genes
            The genes the model must have, in any order; None takes what is there.

        Raises
        ------
        FileMissingError
            If files are missing.
        InputError
            If a file was altered, does not fit the others, or the genes differ.
        """
        place = Path(directory)
        run = check_model(place, kind=cls.kind, lists=("genes",))
        config = config_from_json(
            AutoencoderConfig, read_json(place / CONFIG, dict).get("net", {}), where=str(place / CONFIG)
        )
        names = read_names(place / "genes.json")
        if genes is not None:
            check_same_genes(names, genes, where=place)
        shape = (len(names),)
        scaler = read_scaler(place, {"mean": shape, "std": shape})
        if run.get("scaler_sha256", own := scaler_hash(names, scaler["mean"], scaler["std"])) != own:
            msg = f"{place}: genes and scaler are not those of the trained model (hash {own[:12]}). Copy all its files."
            raise InputError(msg)
        with torch.device("meta"):
            net = AutoencoderNet(len(names), config)
        load_weights(place, net)
        return cls(config, names, mean=scaler["mean"], std=scaler["std"], run=run, net=net)

    def _batches(
        self, counts: sparse.csr_matrix, batch_size: int, measured: NDArray[np.bool_] | None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        check_counts(counts, len(self.genes), measured)
        device = next(self.net.parameters()).device
        library = library_size(counts)
        for start in range(0, counts.shape[0], batch_size):
            rows = np.arange(start, min(start + batch_size, counts.shape[0]))
            z = zscore_rows(counts, rows, library, self.mean, self.std)
            if measured is not None:
                z *= measured
            yield start, torch.from_numpy(z).to(device)


def model_hash(scaler_sha256: str, net: torch.nn.Module) -> str:
    """SHA-256 of a scaler's hash and of all weights, as hex digits."""
    named = net.state_dict().items()
    weights = (part for name, tensor in named for part in (name, tensor.detach().cpu().numpy()))
    return content_hash(itertools.chain([scaler_sha256], weights))
