"""Commands on models: train, embed, predict.

Floor 12, above pipeline. Used by cli/project_commands, cli.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from spatialsig.cli.wording import say_error
from spatialsig.errors import SpatialsigWarning

if TYPE_CHECKING:
    from spatialsig.slide.slides import Slide

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


def predict(
    stores: Slides,
    model: ModelIn,
    use_rep: Annotated[str | None, typer.Option(help="Embedding to use, such as X_ae; H&E alone by default.")] = None,
    key_added: Annotated[str, typer.Option(help="Table to write.")] = "signatures_pred",
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Predict the scores of every patch; slides without patches get them as the model needs."""
    from spatialsig import tl
    from spatialsig.models import load_signature_model
    from spatialsig.models.ensemble import members_of
    from spatialsig.slide.each import try_slides

    prepare(quiet=quiet)
    data, loaded = slides_at(stores), load_signature_model(model)
    cut = try_slides(data, partial(_cut, patch_px=loaded.patch_px, um_per_px=loaded.um_per_px, stain=members_of(loaded)[0].stain), "patches")  # fmt: skip
    options = keywords(further, tl.predict, use_rep=use_rep, key_added=key_added, on_error="collect")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ slides could not", SpatialsigWarning)  # the table says so
        done = tl.predict(data, loaded, **options)
    for outcome in cut:  # without patches the prediction failed too, for want of them
        if outcome.error is not None:
            done.loc[done["sample"] == outcome.name, "error"] = f"{type(outcome.error).__name__}: {outcome.error}"
    typer.echo(done.drop(columns="error").round({"seconds": 1}).to_string(index=False))
    failed = done[done["error"] != ""]
    if len(failed) < len(done):
        typer.echo(f"table: {key_added}, {len(loaded.signatures)} signatures")
    for sample, error in zip(failed["sample"], failed["error"], strict=True):
        say_error(f"{sample}: {error}")
    if len(failed):
        raise typer.Exit(1)


def _cut(slide: Slide, *, patch_px: int, um_per_px: float, stain: str) -> None:
    """Patches as a model needs them on a slide that has none."""
    from spatialsig import pp
    from spatialsig._keys import PATCHES

    if PATCHES not in slide.sdata.shapes and slide.path is not None:
        pp.make_patches(slide.path, patch_px=patch_px, um_per_px=um_per_px)
        if stain != "none":
            pp.normalize_stain(slide.path, method=stain)
