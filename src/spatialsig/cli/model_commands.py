"""Commands on models: train, train-probe, embed.

Floor 12, above pipeline, referee, whole_slides. Used by 4 modules of cli.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialsig.cli.options import (
    DEFAULT_SIGNATURES,
    AllSlides,
    Further,
    Quiet,
    Seed,
    Signatures,
    Slides,
    TestFold,
    held_out,
    keywords,
    prepare,
    slides_at,
)

ModelOut = Annotated[Path, typer.Option(help="Directory to write the model to.")]
ModelIn = Annotated[Path, typer.Option(help="Directory of the model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training slides.")]


def train_ae(
    stores: Slides,
    out: ModelOut,
    signatures: Signatures = DEFAULT_SIGNATURES,
    n_top_genes: Annotated[int, typer.Option(help="Most variable genes of the training slides.")] = 2000,
    n_latent: Annotated[int, typer.Option(help="Width of the embedding.")] = 32,
    max_epochs: Epochs = None,
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    all_slides: AllSlides = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Select variable genes and train the autoencoder on them, without the signature genes."""
    from spatialsig import pp, tl
    from spatialsig.models.directory import check_model_target
    from spatialsig.train import fit_autoencoder

    prepare(quiet=quiet)
    check_model_target(out, overwrite=overwrite)
    data, fold = slides_at(stores), held_out(test_fold, all_slides=all_slides)
    options = keywords(
        further, tl.train_autoencoder, fit_autoencoder,
        own=("signatures", "test_fold", "seed"), n_latent=n_latent, max_epochs=max_epochs,
    )  # fmt: skip
    pp.highly_variable_genes(data, n_top_genes=n_top_genes, test_fold=fold)
    model = tl.train_autoencoder(data, signatures=signatures, test_fold=fold, seed=seed, **options)
    model.save(out, overwrite=overwrite)
    typer.echo(f"model: {out}")


def embed(
    stores: Slides,
    model: ModelIn,
    *,
    quiet: Quiet = False,
) -> None:
    """Embed all cells with a trained autoencoder; `label` then averages the embedding over each patch."""
    from spatialsig import tl
    from spatialsig.models import Autoencoder

    prepare(quiet=quiet)
    tl.embed_cells(slides_at(stores), Autoencoder.load(model))


def train(
    stores: Slides,
    out: ModelOut,
    size: Annotated[str | None, typer.Option(help="tiny (default), small or base; seed: the prototype.")] = None,
    fusion: Annotated[
        str | None, typer.Option(help="Fusion with the embedding: gated, token, film, add or none.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches per step.")] = None,
    max_epochs: Epochs = None,
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    no_embedding: Annotated[bool, typer.Option("--no-embedding", help="Train on the H&E alone.")] = False,
    all_slides: AllSlides = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train the image model on labelled patches, read directly from the stores."""
    from spatialsig import tl
    from spatialsig.models.directory import check_model_target
    from spatialsig.train import fit_vit

    prepare(quiet=quiet)
    check_model_target(out, overwrite=overwrite)
    options = keywords(
        further,
        tl.train_vit,
        fit_vit,
        own=("test_fold", "seed"),
        max_epochs=max_epochs,
        size=size,
        fusion=fusion,
        batch_size=batch_size,
    )
    if no_embedding:
        options |= {"use_rep": None, "fusion": "none"}
    model = tl.train_vit(slides_at(stores), test_fold=held_out(test_fold, all_slides=all_slides), seed=seed, **options)
    model.save(out, overwrite=overwrite)
    typer.echo(f"model: {out}")


def train_probe(
    stores: Slides,
    out: ModelOut,
    features_key: Annotated[
        str | None, typer.Option(help="Table of features of the patches; without it, `--set backbone=NAME`.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="ridge (default) or mlp.")] = None,
    n_components: Annotated[int | None, typer.Option(help="Principal components, 256 by default.")] = None,
    penalty: Annotated[
        float | None, typer.Option(help="Ridge penalty per patch; chosen on inner folds by default.")
    ] = None,
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    all_slides: AllSlides = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Fit a ridge regression, or a small network, on the features of a frozen encoder."""
    from spatialsig import tl
    from spatialsig.models.directory import check_model_target
    from spatialsig.train import fit_vit

    prepare(quiet=quiet)
    check_model_target(out, overwrite=overwrite)
    options = keywords(
        further,
        tl.train_probe,
        fit_vit,
        own=("test_fold", "seed"),
        features_key=features_key,
        head=head,
        n_components=n_components,
        penalty=penalty,
    )
    fold = held_out(test_fold, all_slides=all_slides)
    model = tl.train_probe(slides_at(stores), test_fold=fold, seed=seed, **options)
    model.save(out, overwrite=overwrite)
    typer.echo(f"model: {out}")
