"""The command that predicts: stores, which get a table, or image files, whose results go to a folder.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spatialsig.cli.cohorts import choose
from spatialsig.cli.options import Further, Quiet, keywords, prepare, several, slides_at
from spatialsig.cli.wording import say_error
from spatialsig.errors import InputError, SpatialsigWarning

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.slides import Slide

TABLE = "signatures_pred"
IMAGES, OF_STORES = "Image files (with --out)", "Stores (without --out)"
Places = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL SLIDES...",
        help="Directory of a model or ensemble (not with --model), then the slides: with --out image files, folders, patterns "
        "such as 'scans/*.svs', or a csv with columns image, sample, um_per_px, patient; otherwise a directory of stores, the "
        "csv of a cohort, or the store of one slide.",
    ),
]


def predict(
    places: Places,
    model: Annotated[Path | None, typer.Option(help="Directory of the model, instead of as the first word.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for results of image files: tables, maps, index.html."),
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="µm per px of images that do not say it.", rich_help_panel=IMAGES)
    ] = None,
    stride_um: Annotated[
        float | None,
        typer.Option(help="Step between patches, µm; below their edge they overlap.", rich_help_panel=IMAGES),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these of h5ad, csv, geojson, heatmap, html and atlas; with commas, or repeated.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    use_rep: Annotated[
        str | None,
        typer.Option(help="Embedding to use, such as X_ae; H&E alone by default.", rich_help_panel=OF_STORES),
    ] = None,
    key_added: Annotated[str, typer.Option(help="Table to write.", rich_help_panel=OF_STORES)] = TABLE,
    further: Further = None,
    *,
    qc: Annotated[
        bool, typer.Option("--qc", help="Measure the quality of every patch.", rich_help_panel=IMAGES)
    ] = False,
    store: Annotated[
        bool, typer.Option("--store", help="Also write each slide as a store.", rich_help_panel=IMAGES)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute slides again that are done.", rich_help_panel=IMAGES)
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Predict the scores of every patch, on stores or straight from image files."""
    prepare(quiet=quiet)
    if model is None:
        model, *places = places
        if not places:
            msg = f"there is a model ({model}) and no slide, or a slide and no model; wanted `spatialsig predict MODEL SLIDES... --out OUT`."
            raise InputError(msg)
    named = {"um_per_px": um_per_px, "stride_um": stride_um, "formats": several(formats)}
    named |= {"qc": qc or None, "store": store or None, "overwrite": overwrite or None}
    if out is None:
        _refuse(named, "is for image files: give the folder of the results as `--out`")
        _on_stores(model, places, further, use_rep=use_rep, key_added=key_added)
    else:
        other = {"use_rep": use_rep, "key_added": None if key_added == TABLE else key_added}
        _refuse(other, "is for stores: leave out `--out`, whose slides are read as an H&E alone")
        _from_files(model, places, out, further, named)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            msg = f"`--{name.replace('_', '-')}` {why}."
            raise InputError(msg)


def _from_files(model: Path, places: list[Path], out: Path, further: list[str] | None, named: dict[str, Any]) -> None:
    import pandas as pd

    from spatialsig import tl
    from spatialsig.inference.domain import reference_in_words
    from spatialsig.models import load_signature_model
    from spatialsig.whole_slides import list_images, predict_files
    from spatialsig.whole_slides.listing import HOLDERS

    options = keywords(further, predict_files, own=("device",), **named, on_error="collect")
    images = list_images(places, results=[out])
    chosen = set(choose([image.sample for image in images]))
    columns = {"sample": "sample", "path": "image", "um_per_px": "um_per_px", "patient": "patient"}
    found = [image for image in images if image.sample in chosen]
    rows = pd.DataFrame([vars(image) for image in found])[list(columns)].rename(columns=columns)
    rows.attrs[HOLDERS] = [image.where for image in found]
    loaded = load_signature_model(model)
    done = _quietly(tl.predict_files, loaded, rows, out, **options)
    domain = loaded.domain
    known = (
        ""
        if domain is None
        else f"ood: above 1, a slide lies outside. {reference_in_words(domain.n_patches, domain.n_patients)}\n"
    )
    _say(done.drop(columns="image").round({"ood": 2}), f"{known}results: {out}")


def _on_stores(
    model: Path, places: list[Path], further: list[str] | None, *, use_rep: str | None, key_added: str
) -> None:
    from spatialsig import tl
    from spatialsig.models import load_signature_model
    from spatialsig.models.ensemble import members_of
    from spatialsig.slide.each import try_slides

    if len(places) > 1:
        msg = f"{len(places)} places of slides; stores are given as one directory, or as the csv of a cohort. Of image files give the folder of the results as `--out`."
        raise InputError(msg)
    try:
        data = slides_at(places[0])
    except InputError as error:
        msg = f"{error} Or predict from image files: `spatialsig predict MODEL SLIDES... --out OUT`."
        raise InputError(msg) from error
    loaded: SignatureModel = load_signature_model(model)
    cut = try_slides(data, partial(_cut, patch_px=loaded.patch_px, um_per_px=loaded.um_per_px, stain=members_of(loaded)[0].stain), "patches")  # fmt: skip
    options = keywords(further, tl.predict, use_rep=use_rep, key_added=key_added, on_error="collect")
    done = _quietly(tl.predict, data, loaded, **options)
    for outcome in cut:  # without patches the prediction failed too, for want of them
        if outcome.error is not None:
            done.loc[done["sample"] == outcome.name, "error"] = f"{type(outcome.error).__name__}: {outcome.error}"
    _say(done, f"table: {key_added}, {len(loaded.signatures)} signatures")


def _quietly(function: Any, *arguments: Any, **options: Any) -> pd.DataFrame:
    """What a function returns, without its warning of slides that failed: the table says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ slides could not", SpatialsigWarning)
        done: pd.DataFrame = function(*arguments, **options)
    return done


def _say(done: pd.DataFrame, where: str) -> None:
    """Print what was done and where it lies; exit code 1 where a slide failed."""
    typer.echo(done.drop(columns="error").round({"seconds": 1}).to_string(index=False))
    failed = done[done["error"] != ""]
    if len(failed) < len(done):
        typer.echo(where)
    from spatialsig.slide.each import errors_told_once

    for told in errors_told_once(dict(zip(failed["sample"], failed["error"], strict=True))):
        say_error(told)
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
