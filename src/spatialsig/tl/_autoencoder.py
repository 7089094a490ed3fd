"""The expression autoencoder, trained on the training slides, and its embedding of every cell.

Floor 7, above evaluation. Called as sp.tl.embed_cells, sp.tl.train_autoencoder; used by 3 modules of cli, pipeline.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from spatialsig import _keys
from spatialsig._arguments import Count, Fraction, Key, Natural, NewKey, Seed, checked
from spatialsig.expression import AutoencoderOptions, embed_slide, train_expression_autoencoder
from spatialsig.models import Autoencoder
from spatialsig.nn.device import on_device
from spatialsig.signatures import Source
from spatialsig.slide.added import check_added_part
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import counts_of_table
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.seen import noted
from spatialsig.slide.slides import Data, Slide


@checked
@needs_cells
def train_autoencoder(
    data: Data,
    *,
    signatures: Source = "tumour_microenvironment",
    exclude_signature_genes: bool = True,
    gene_symbols: Key | None = None,
    panel: str = "intersection",
    test_fold: Natural | None = 0,
    validation_fold: Natural | None = None,
    n_latent: Count = 32,
    hidden: tuple[int, ...] = (1024, 256),
    loss: str = "mse",
    denoise: Fraction = 0.2,
    slide_offsets: bool = False,
    linear_path: bool = True,
    seed: Seed = 0,
    table_key: Key = _keys.TABLE,
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
    gene_symbols
        Column of ``var`` with the names that signatures use, where ``var_names`` are others, such as Ensembl ids.
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
        ``"mse"`` of the z-scores, or ``"nb"`` (negative binomial [2]_) or ``"poisson"`` of the counts with their
        library size.
    denoise
        Share of the genes hidden from the network while it trains [1]_, 0 to 1: the embedding then holds less of the
        noise of single genes.
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

    References
    ----------
    .. [1] Vincent P, Larochelle H, Bengio Y, Manzagol PA. Extracting and composing robust features with denoising
       autoencoders. International Conference on Machine Learning, 1096-1103 (2008).
       https://doi.org/10.1145/1390156.1390294
    .. [2] Eraslan G, Simon LM, Mircea M, Mueller NS, Theis FJ. Single-cell RNA-seq denoising using a deep count
       autoencoder. Nature Communications 10, 390 (2019). https://doi.org/10.1038/s41467-018-07931-2

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> model = sp.tl.train_autoencoder(sdata, signatures="seed", n_latent=4, hidden=(16,), test_fold=None, max_epochs=1)
    >>> len(model.genes) < sdata["table"].n_vars  # the genes of the signatures are left out
    True
    """
    options = AutoencoderOptions(
        signatures=signatures, exclude_signature_genes=exclude_signature_genes, gene_symbols=gene_symbols,
        panel=panel, test_fold=test_fold, validation_fold=validation_fold, n_latent=n_latent, hidden=tuple(hidden), loss=loss, denoise=denoise,
        slide_offsets=slide_offsets, linear_path=linear_path, seed=seed, table_key=table_key, fit=fit_options,
    )  # fmt: skip
    return train_expression_autoencoder(data, options)


@checked
@needs_cells
def embed_cells(
    data: Data,
    model: Autoencoder,
    *,
    device: str | None = None,
    table_key: Key = _keys.TABLE,
    key_added: NewKey = _keys.X_AE,
) -> None:
    """Write the embedding of every cell that a trained autoencoder makes from its counts.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    model
        Autoencoder; its genes are looked up by name.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
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

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> model = sp.tl.train_autoencoder(sdata, signatures="seed", n_latent=4, hidden=(16,), test_fold=None, max_epochs=1)
    >>> sp.tl.embed_cells(sdata, model)
    >>> sdata["table"].obsm["X_ae"].shape == (sdata["table"].n_obs, 4)
    True
    """
    map_slides(
        data, partial(_embed, model=model, device=device, table_key=table_key, key_added=key_added), "embed cells"
    )


def _embed(slide: Slide, *, model: Autoencoder, device: str | None, table_key: str, key_added: str) -> None:
    check_added_part(slide, table_key, "obsm", key_added, made_by="tl.embed_cells")
    with on_device(model.net, device=device):
        slide.table(table_key).obsm[key_added] = embed_slide(slide, model, table_key=table_key)
    slide.params(table_key)["embed_cells"] = {
        "key": key_added, **_held_out(model), **noted(model.run), **model.record()
    }  # fmt: skip
    slide.commit_table(
        table_key,
        obsm=[key_added],
        steps=["embed_cells"],
        made_by="tl.embed_cells",
        sources=counts_of_table(table_key, model.run.get("test_fold")),
    )


def _held_out(model: Autoencoder) -> dict[str, int]:
    """Fold the model has not seen, for whoever judges on one (-1: it has seen all); empty where it does not say."""
    if "test_fold" not in model.run:
        return {}
    fold = model.run["test_fold"]
    return {"test_fold": -1 if fold is None else int(fold)}
