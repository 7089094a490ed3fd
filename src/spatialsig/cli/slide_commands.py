"""Commands on slides: into stores, held out, cut and labelled, verified and repaired.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

import warnings
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spatialsig._checks import check_files
from spatialsig._files import write_csv
from spatialsig.cli.cohorts import Survivors, choose, is_chosen
from spatialsig.cli.options import (
    DEFAULT_SIGNATURES,
    AllSlides,
    Quiet,
    Seed,
    Signatures,
    Slides,
    Store,
    TestFold,
    check_stores,
    held_out,
    prepare,
    slides_at,
)
from spatialsig.cli.seed_files import import_seed_layout, is_seed_layout
from spatialsig.errors import InputError, SpatialsigWarning, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.slide.slides import Slide


class Layout(StrEnum):
    """How an image lies in a store."""

    default = "default"
    speed = "speed"


def _read_and_filter(
    row: pd.Series[Any], store: Path, *, limits: dict[str, Any], boundaries: bool, overwrite: bool
) -> None:
    """Read a bundle and leave out poor cells; one that was imported before is left alone, or refused with other limits."""
    from spatialsig import pp
    from spatialsig._keys import NAMESPACE, TABLE
    from spatialsig.cohort import read_bundle
    from spatialsig.io._cohort import BUNDLE
    from spatialsig.slide.slides import open_slides

    read_bundle(row, store, boundaries=boundaries, overwrite=overwrite)
    if row[BUNDLE] is None:  # an H&E alone
        return
    (slide,) = open_slides(store)
    before = slide.table(TABLE).uns.get(NAMESPACE, {}).get("filter_cells", {})
    if not before:  # new, or its import was interrupted
        pp.filter_cells(store, **limits)
        return
    other = {name: int(before[name]) for name, value in limits.items() if name in before and before[name] != value}
    if other:
        msg = f"store {str(store)!r} was imported with {other}, now {limits}. Pass `overwrite=True` to read the slide again."
        raise StoreError(msg)


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV file of bundles and H&E images, a Xenium or Atera bundle, an H&E image, or a folder of the prototype's files."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Directory of stores for a CSV file or the prototype's files, else the store to write.")
    ],
    sample: Annotated[str | None, typer.Option(help="Name of a single slide.")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Patient of a single slide, or of all slides of the prototype's files.")
    ] = None,
    he_image: Annotated[Path | None, typer.Option(help="H&E of a single bundle, if it is elsewhere.")] = None,
    he_alignment: Annotated[
        Path | None, typer.Option(help="CSV file of its alignment, or the zip of Xenium Explorer.")
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="µm per px of an H&E that does not state it, and of the prototype's files.")
    ] = None,
    min_counts: Annotated[int, typer.Option(min=0, help="Minimum counts of a cell.")] = 10,
    min_genes: Annotated[int, typer.Option(min=0, help="Minimum genes of a cell.")] = 5,
    *,
    boundaries: Annotated[
        bool, typer.Option("--boundaries", help="Also the outlines of cells and nuclei of a bundle.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing stores.")] = False,
    quiet: Quiet = False,
) -> None:
    """Import slides into stores; control probes and low-quality cells are dropped."""
    from spatialsig import io, pp
    from spatialsig.cohort import import_cohort

    prepare(quiet=quiet)
    check_files([source], what="what to import", fix="Give a csv of bundles, the directory of a bundle, or an image.")
    single = {"sample": sample, "patient": patient, "out": out, "overwrite": overwrite}
    if source.is_file() and source.suffix.lower() == ".csv":
        if sample or patient or he_image or he_alignment or um_per_px:
            msg = "with a csv, `sample`, `patient`, `he_image` and `he_alignment` are columns of the csv, not options."
            raise InputError(msg)
        limits = {"min_counts": min_counts, "min_genes": min_genes}
        read = partial(_read_and_filter, limits=limits, boundaries=boundaries, overwrite=overwrite)
        cohort = import_cohort(source, out, read, choose=choose)
        typer.echo(repr(cohort))
        if cohort.failures:
            raise typer.Exit(1)
        return
    if is_seed_layout(source):
        import_seed_layout(
            source, out, um_per_px, others=(he_image, he_alignment), only=sample, patient=patient, overwrite=overwrite
        )
        return
    if is_chosen():
        msg = f"{source} is one slide; `--only` and `--index` choose from the slides of a csv."
        raise InputError(msg)
    if not source.is_file() and um_per_px:
        msg = "a bundle takes the size of its pixels from the alignment; leave `um_per_px` out."
        raise InputError(msg)
    if source.is_file():
        io.read_he(source, um_per_px=um_per_px, **single)  # type: ignore[arg-type]
    else:
        io.read_xenium(source, he_image=he_image, he_alignment=he_alignment, boundaries=boundaries, **single)  # type: ignore[arg-type]
        pp.filter_cells(out, min_counts=min_counts, min_genes=min_genes)
    typer.echo(f"store: {out}")


def split(
    stores: Slides,
    by: Annotated[
        str,
        typer.Option(
            help="What is kept together in one fold: patient, slide, block, or an attribute of the slides, such as site."
        ),
    ] = "patient",
    n_folds: Annotated[str, typer.Option(help="Number of folds, or all: each patient, slide or value in turn.")] = "4",
    block_um: Annotated[float, typer.Option(help="Edge of a block, µm (by block).")] = 1000.0,
    buffer_um: Annotated[float, typer.Option(help="Gap between folds, µm (by block).")] = 256.0,
    seed: Seed = 0,
    *,
    quiet: Quiet = False,
) -> None:
    """Assign every slide to a fold, so that models are evaluated on held-out patients."""
    from spatialsig import pp
    from spatialsig.slide.roles import with_cells
    from spatialsig.slide.slides import open_slides

    if by == "random":
        msg = "puts neighbours of test patches into training; only `sp.pp.split(..., allow_leakage=True)` does it"
        raise typer.BadParameter(msg, param_hint="--by")
    prepare(quiet=quiet)
    data = slides_at(stores)
    number: Any = int(n_folds) if n_folds.isdecimal() else n_folds  # what is neither is refused by the function
    pp.split(data, by=by, n_folds=number, block_um=block_um, buffer_um=buffer_um, seed=seed)
    folds: dict[int, list[str]] = {}
    for slide in open_slides(with_cells(data)):
        folds.setdefault(int(slide.attrs["split"].get("fold", -1)), []).append(slide.name)
    for fold, names in sorted(folds.items()):
        typer.echo(f"fold {fold}: {', '.join(names)}" if fold >= 0 else f"blocks of {', '.join(names)}")


def label(
    stores: Slides,
    signatures: Signatures = DEFAULT_SIGNATURES,
    patch_px: Annotated[int, typer.Option(help="Edge of a patch, px.")] = 224,
    um_per_px: Annotated[float, typer.Option(help="Resolution of a patch, µm/px.")] = 0.5,
    stride_um: Annotated[
        float | None, typer.Option(help="Distance between patches, µm; their edge by default.")
    ] = None,
    min_tissue: Annotated[float, typer.Option(help="Minimum share of tissue.")] = 0.25,
    method: Annotated[str, typer.Option(help="zscore, score_genes, ucell, aucell or ulm.")] = "zscore",
    stat: Annotated[str, typer.Option(help="mean, median, trimmed_mean or pseudobulk.")] = "mean",
    min_cells: Annotated[int, typer.Option(help="Minimum cells of a labelled patch.")] = 10,
    gene_symbols: Annotated[str | None, typer.Option(help="Column of var with gene symbols, beside ids.")] = None,
    test_fold: TestFold = 0,
    coverage: Annotated[Path | None, typer.Option(help="CSV file to write: measured genes per signature.")] = None,
    *,
    normalize_stain: Annotated[bool, typer.Option(help="Read all slides in the colours of one reference.")] = False,
    all_slides: AllSlides = False,
    quiet: Quiet = False,
) -> None:
    """Cut the H&E into patches and label each with the scores of its cells (and their mean embedding, after `embed`)."""
    from spatialsig import pp, tl
    from spatialsig._keys import TABLE, X_AE
    from spatialsig.io import read_signatures
    from spatialsig.slide.roles import with_cells
    from spatialsig.slide.slides import open_slides

    prepare(quiet=quiet)
    data = slides_at(stores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)  # said when they are scored
        read_signatures(signatures)  # before the first patch is cut
    work, fold = Survivors(data), held_out(test_fold, all_slides=all_slides)
    mixed = with_cells(data) is not data
    work.check(partial(_check_ready, mixed=mixed, all_slides=all_slides))  # before the first patch is cut
    work(pp.make_patches, patch_px=patch_px, um_per_px=um_per_px, stride_um=stride_um, min_tissue=min_tissue)
    if normalize_stain:
        work(pp.normalize_stain)
    work(pp.assign_cells)
    score = partial(tl.score_cells, signatures=signatures, method=method, gene_symbols=gene_symbols, test_fold=fold)
    if (scored := work(score)) is None:  # what is told of the genes holds for the others
        scored = score(work.data)
    embedded = all(X_AE in slide.table(TABLE).obsm for slide in open_slides(with_cells(work.data)))
    work(tl.aggregate_patches, stat=stat, min_cells=min_cells, use_rep=X_AE if embedded else None)
    typer.echo(scored.to_string())
    if coverage is not None:
        write_csv(coverage, scored, index=True)
    work.end()


def _check_ready(slide: Slide, *, mixed: bool, all_slides: bool) -> None:
    """Refuse a slide that cannot be labelled; in a mixed cohort, an H&E alone is only cut into patches."""
    from spatialsig._keys import TABLE
    from spatialsig.slide.roles import is_image_alone

    if mixed and slide.path is not None and is_image_alone(slide.path):
        return
    if TABLE not in slide.sdata.tables:
        msg = f"slide {slide.name!r} has no gene expression, so it cannot be labelled; nothing was changed. Predict on it instead."
        raise InputError(msg)
    if not all_slides and "split" not in slide.attrs:
        msg = f"slide {slide.name!r} has no folds; nothing was changed. Call `sp.pp.split` first, or pass `test_fold=None`."
        raise InputError(msg)


def verify(stores: Slides, *, quiet: Quiet = False) -> None:
    """Check every file of one or more stores; exits with 1 if anything is missing, altered, left over or stale."""
    import pandas as pd

    from spatialsig.cohort import Cohort
    from spatialsig.io import verify as verify_store
    from spatialsig.store.metadata import stores_in

    prepare(quiet=quiet)
    check_stores(stores)
    several = Cohort(stores).stores if stores.is_file() else {path.name: path for path in stores_in(stores)}
    if is_chosen():
        named = {Path(name).stem: name for name in several}
        several = {named[name]: several[named[name]] for name in choose(list(named))}
    tables = {name: verify_store(path) for name, path in several.items()}
    found = pd.concat(tables, names=["store"]).reset_index(0) if several else verify_store(stores)
    typer.echo(found.to_string(index=False))
    if not found["status"].isin(["ok", "not checksummed", "changed"]).all():
        raise typer.Exit(1)


def repair(store: Store, *, quiet: Quiet = False) -> None:
    """Make a store readable again; unfinished elements are moved next to it, nothing is deleted."""
    from spatialsig.io import repair as repair_store

    prepare(quiet=quiet)
    done = repair_store(store)
    typer.echo(done.to_string(index=False) if len(done) else "nothing to repair")


def optimize(
    store: Store,
    layout: Annotated[Layout, typer.Option(help="speed: uncompressed, larger, faster to read.")] = Layout.default,
    chunk_px: Annotated[int | None, typer.Option(help="Edge of a chunk, px; 256 by default.")] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Rewrite the images of any store in chunks from which patches are read quickly."""
    from spatialsig.io import optimize as optimize_store

    prepare(quiet=quiet)
    done = optimize_store(store, layout=layout.value, chunk_px=chunk_px)
    typer.echo(done.to_string(index=False) if len(done) else "every image has this layout")
