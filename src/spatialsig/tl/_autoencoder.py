"""Train the expression autoencoder on the training slides and embed every cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.cells import MemoryCells, StoredCells
from spatialsig.data.counts import common_genes, counts_of
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import folds_of, positions, training_rows
from spatialsig.signatures import read_signatures
from spatialsig.stats.cell_rows import sub_matrix
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train import fit_autoencoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.cells import CellSource
    from spatialsig.data.slides import Data, Slide
    from spatialsig.models import Autoencoder

PANELS = ("intersection", "union")


def train_autoencoder(
    data: Data,
    *,
    signatures: str | Path | Mapping[str, Sequence[str]] = "tumour_microenvironment",
    exclude_signature_genes: bool = True,
    panel: str = "intersection",
    test_fold: int | None = 0,
    validation_fold: int | None = None,
    n_latent: int = 32,
    hidden: tuple[int, ...] = (1024, 256),
    loss: str = "mse",
    denoise: float = 0.2,
    slide_offsets: bool = False,
    linear_path: bool = True,
    seed: int = 0,
    table_key: str = _keys.TABLE,
    **fit_options: Any,
) -> Autoencoder:
    """Train an autoencoder on the cell-by-gene counts of all training slides together.

    It learns from the genes marked highly variable (all genes without such a mark), z-scored by one scaler fitted on
    the training cells. The genes of ``signatures`` are left out: an embedding made from the very genes a score is made
    of would carry the answer, and the model fed with it would never look at the image. Slides are read from their
    stores in blocks, all shuffled together; a cohort larger than ``settings.cells_mb`` never lies in memory.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    signatures
        Signatures that will be predicted; see :func:`spatialsig.io.read_signatures`.
    exclude_signature_genes
        Leave their genes out. ``False`` is a leak wherever the embedding is given to the image model.
    panel
        Genes to learn from where slides differ: ``"intersection"`` (default) those that every slide measures, or
        ``"union"`` all of them. A gene that a slide does not measure is then left out of its input and of its loss,
        never taken as 0.
    test_fold
        Fold whose cells are not used; ``None`` uses every cell.
    validation_fold
        Fold whose cells do not train but choose the best epoch and stop the training; ``None`` takes a tenth of the
        cells of every training slide instead (``held_out=0``: none, and the last epoch is kept).
    n_latent, hidden
        Width of the embedding and of the layers before it.
    loss
        ``"mse"`` of the z-scores, or ``"nb"`` (negative binomial) or ``"poisson"`` of the counts with their library
        size.
    denoise
        Share of the genes hidden from the network while it trains, 0 to 1: the embedding then holds less of the noise
        of single genes.
    slide_offsets
        Let the decoder know each training slide's offset per gene, so that the embedding need not carry it.
    linear_path
        Linear maps beside the network, started as a PCA; without them it is the plain network of the prototype.
    seed
        Of the weights and the order of cells.
    table_key
        Table of the cells, raw counts in ``X``.
    **fit_options
        Passed on to :func:`spatialsig.train.fit_autoencoder`: ``max_epochs``, ``batch_size``, ``learning_rate``, ...

    Returns
    -------
    The trained model; ``run["history"]`` holds the losses per epoch, ``run["scaler_sha256"]`` the hash of its scaler.

    Raises
    ------
    InputError
        If fewer than two genes are left, or there are no training cells.
    """
    from spatialsig.nn.autoencoder import AutoencoderConfig

    check_choice(panel, PANELS, name="panel")
    excluded = read_signatures(signatures) if exclude_signature_genes else {}
    genes = _genes(data, excluded, table_key, panel)
    training, validation = _cells(data, genes, test_fold, validation_fold, table_key)
    if not training.sources:
        msg = f"`test_fold={test_fold}`, `validation_fold={validation_fold}` leave no training cells; choose another fold."
        raise InputError(msg)
    mean, std = training.scaler()
    config = AutoencoderConfig(
        hidden=tuple(hidden),
        n_latent=n_latent,
        dropout=denoise,
        linear_path=linear_path,
        loss=loss,
        n_batches=len(training.sources) if slide_offsets else 0,
    )
    model, history = fit_autoencoder(
        training.sources,
        genes=genes,
        mean=mean,
        std=std,
        measured=training.mask if panel == "union" else None,
        validation=validation.sources or None,
        validation_measured=validation.mask if panel == "union" and validation.sources else None,
        config=config,
        seed=seed,
        **fit_options,
    )
    model.run |= {
        "test_fold": test_fold,
        "validation_fold": validation_fold,
        "samples": [slide.name for slide in open_slides(data)],
        "training_samples": training.samples,
        "n_training_cells": sum(source.n_cells for source in training.sources),
        "exclude_signature_genes": exclude_signature_genes,
        "panel": panel,
        "seed": seed,
        "scaler_sha256": model.scaler_sha256,
        "history": history.to_dict("list"),
    }
    return model


def embed_cells(data: Data, model: Autoencoder, *, table_key: str = _keys.TABLE, key_added: str = _keys.X_AE) -> None:
    """Embed every cell with a trained autoencoder.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    model
        Autoencoder; its genes are looked up by name.
    table_key
        Table of the cells, raw counts in ``X``.
    key_added
        Name of the result.

    Returns
    -------
    Nothing; writes ``tables[table_key].obsm[key_added]``, ``(n_cells, n_latent)`` float32, and
    ``uns["spatialsig"]["embed_cells"]``: ``key``; ``genes``, ``mean`` and ``std`` of the model's scaler, its hash
    ``scaler_sha256``, and ``model_sha256``, the hash of scaler and weights, by which later steps know embeddings of
    different models apart.

    Raises
    ------
    InputError
        If a slide does not measure all genes of the model.
    """
    for slide in track(open_slides(data), "embed cells", total=slide_count(data), unit="slide"):
        table = slide.table(table_key)
        columns = model.align_genes(table.var_names, where=f"slide {slide.name!r}")
        counts = sub_matrix(counts_of(slide, table_key), columns)
        measured = columns >= 0
        known = None if measured.all() else measured
        table.obsm[key_added] = model.get_latent_representation(counts, measured=known)
        slide.params(table_key)["embed_cells"] = {"key": key_added, **_held_out(model), **model.record()}
        slide.commit_table(table_key, obsm=[key_added], steps=["embed_cells"])


def _held_out(model: Autoencoder) -> dict[str, int]:
    """Fold the model has not seen, for whoever judges on one (-1: it has seen all); empty where it does not say."""
    if "test_fold" not in model.run:
        return {}
    fold = model.run["test_fold"]
    return {"test_fold": -1 if fold is None else int(fold)}


def _genes(data: Data, signatures: Mapping[str, Sequence[str]], table_key: str, panel: str) -> list[str]:
    panels = []
    for slide in open_slides(data):
        var = slide.table(table_key).var
        marked = var[_keys.HIGHLY_VARIABLE] if _keys.HIGHLY_VARIABLE in var else np.ones(len(var), bool)
        panels.append(list(var.index[np.asarray(marked, bool)]))
    excluded = {gene for genes in signatures.values() for gene in genes}
    found = (
        common_genes(panels) if panel == "intersection" else list(dict.fromkeys(g for genes in panels for g in genes))
    )
    genes = [gene for gene in found if gene not in excluded]
    if len(genes) < 2:
        msg = (
            f"only {len(genes)} genes are left for the autoencoder: {len(found)} highly variable genes are measured on "
            f"{'all' if panel == 'intersection' else 'any'} slides, {len(excluded)} signature genes are excluded. Raise "
            "`n_top_genes` in `sp.pp.highly_variable_genes`, use fewer signatures, or `panel='union'`."
        )
        raise InputError(msg)
    return genes


@dataclass
class _Slides:
    """Cells of several slides to read from, the genes each measures, and sums of their expression."""

    genes: list[str]
    samples: list[str] = field(default_factory=list)
    sources: list[CellSource] = field(default_factory=list)
    measured: list[NDArray[np.bool_]] = field(default_factory=list)
    sums: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)

    @property
    def mask(self) -> NDArray[np.bool_]:
        return np.stack(self.measured)

    def add(self, slide: Slide, table_key: str, counts: sparse.csr_matrix, rows: NDArray[np.bool_]) -> None:
        """Take chosen cells of a slide; its counts are at hand now, so nothing has to be read for the scaler later."""
        if not rows.any():
            return
        columns = np.asarray(slide.table(table_key).var_names.get_indexer(self.genes), np.int64)
        chosen, measured = np.flatnonzero(rows), columns >= 0
        used = np.zeros(counts.shape[1], bool)
        used[columns[measured]] = True
        sums = gene_moments(counts, library_size(counts, genes=used), rows=rows)
        self.sums.append((np.where(measured, sums[0][columns], 0), np.where(measured, sums[1][columns], 0)))
        if slide.path is None:
            source: CellSource = MemoryCells(sub_matrix(counts, columns, chosen))
        else:
            source = StoredCells(slide.path / "tables" / table_key / "X", columns, chosen)
        self.samples.append(slide.name)
        self.sources.append(source)
        self.measured.append(measured)

    def scaler(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of every gene over the cells of the slides that measure it."""
        total, squares = np.sum(self.sums, axis=0)
        n = np.array([source.n_cells for source in self.sources]) @ self.mask
        mean, std = scaler_from_moments(total, squares, n.astype(np.float64))
        return mean.astype(np.float32), std.astype(np.float32)


def _cells(
    data: Data, genes: list[str], test_fold: int | None, validation_fold: int | None, table_key: str
) -> tuple[_Slides, _Slides]:
    """Cells to train on, and cells to choose the best epoch by."""
    training, validation = _Slides(genes), _Slides(genes)
    for slide in track(open_slides(data), "find cells", total=slide_count(data), unit="slide"):
        counts = counts_of(slide, table_key)
        xy_um = positions(slide, table_key)
        rows = training_rows(slide, xy_um, test_fold=test_fold)
        if validation_fold is not None:
            held_out = rows & (folds_of(slide, xy_um) == validation_fold)
            validation.add(slide, table_key, counts, held_out)
            rows &= ~held_out
        training.add(slide, table_key, counts, rows)
    return training, validation
