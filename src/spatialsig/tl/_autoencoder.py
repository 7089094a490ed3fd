"""Train the expression autoencoder on the training slides and embed every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.counts import common_genes, counts_of
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import positions, training_rows
from spatialsig.signatures import read_signatures
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train import fit_autoencoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.slides import Data
    from spatialsig.models import Autoencoder


def train_autoencoder(
    data: Data,
    *,
    signatures: str | Path | Mapping[str, Sequence[str]] = "tumour_microenvironment",
    exclude_signature_genes: bool = True,
    test_fold: int | None = 0,
    n_latent: int = 32,
    hidden: tuple[int, ...] = (1024, 256),
    seed: int = 0,
    table_key: str = _keys.TABLE,
    **fit_options: Any,
) -> Autoencoder:
    """Train an autoencoder on the cell-by-gene counts of all training slides together.

    It learns from the genes marked highly variable (all genes without such a mark) that every slide measures, z-scored
    by one scaler fitted on the training cells. The genes of ``signatures`` are left out: an embedding made from the very
    genes a score is made of would carry the answer, and the model fed with it would never look at the image.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    signatures
        Signatures that will be predicted; see :func:`spatialsig.io.read_signatures`.
    exclude_signature_genes
        Leave their genes out. ``False`` is a leak wherever the embedding is given to the image model.
    test_fold
        Fold whose cells are not used; ``None`` uses every cell.
    n_latent, hidden
        Width of the embedding and of the layers before it.
    seed
        Of the weights and the order of cells.
    table_key
        Table of the cells, raw counts in ``X``.
    **fit_options
        Passed on to :func:`spatialsig.train.fit_autoencoder`: ``max_epochs``, ``batch_size``, ``learning_rate``, ...

    Returns
    -------
    The trained model; ``run["history"]`` holds the losses per epoch.

    Raises
    ------
    InputError
        If fewer than two genes are left, or there are no training cells.
    """
    from spatialsig.nn.autoencoder import AutoencoderConfig

    genes = _genes(data, read_signatures(signatures) if exclude_signature_genes else {}, table_key)
    slides = [s for s in _training_counts(data, genes, test_fold, table_key) if s.shape[0]]
    if not slides:
        msg = f"`test_fold={test_fold}` leaves no training cells; choose another fold."
        raise InputError(msg)
    mean, std = _scaler(slides)
    config = AutoencoderConfig(hidden=tuple(hidden), n_latent=n_latent)
    model, history = fit_autoencoder(slides, genes=genes, mean=mean, std=std, config=config, seed=seed, **fit_options)
    model.run |= {
        "test_fold": test_fold,
        "samples": [slide.name for slide in open_slides(data)],
        "exclude_signature_genes": exclude_signature_genes,
        "seed": seed,
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
    ``uns["spatialsig"]["embed_cells"]``.

    Raises
    ------
    InputError
        If a slide does not measure all genes of the model.
    """
    for slide in track(open_slides(data), "embed cells", total=slide_count(data), unit="slide"):
        counts = counts_of(slide, table_key, model.genes)
        slide.table(table_key).obsm[key_added] = model.get_latent_representation(counts)
        slide.params(table_key)["embed_cells"] = {"key": key_added, "genes": list(model.genes)}
        slide.commit(table_key)


def _genes(data: Data, signatures: Mapping[str, Sequence[str]], table_key: str) -> list[str]:
    panels = []
    for slide in open_slides(data):
        var = slide.table(table_key).var
        marked = var[_keys.HIGHLY_VARIABLE] if _keys.HIGHLY_VARIABLE in var else np.ones(len(var), bool)
        panels.append(list(var.index[np.asarray(marked, bool)]))
    excluded = {gene for genes in signatures.values() for gene in genes}
    genes = [gene for gene in common_genes(panels) if gene not in excluded]
    if len(genes) < 2:
        msg = (
            f"only {len(genes)} genes are left for the autoencoder: {len(common_genes(panels))} highly variable genes "
            f"are measured on all slides, {len(excluded)} signature genes are excluded. Raise `n_top_genes` in "
            "`sp.pp.highly_variable_genes`, or use fewer signatures."
        )
        raise InputError(msg)
    return genes


def _training_counts(data: Data, genes: list[str], test_fold: int | None, table_key: str) -> list[sparse.csr_matrix]:
    return [
        counts_of(slide, table_key, genes)[training_rows(slide, positions(slide, table_key), test_fold=test_fold)]
        for slide in open_slides(data)
    ]


def _scaler(slides: list[sparse.csr_matrix]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    moments = [gene_moments(counts, library_size(counts)) for counts in slides]
    total, squares = (np.sum(part, axis=0) for part in zip(*moments, strict=True))
    mean, std = scaler_from_moments(total, squares, sum(counts.shape[0] for counts in slides))
    return mean.astype(np.float32), std.astype(np.float32)
