"""Commands that judge: predictions of outside models, patients that are needed, scales that can be trusted.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatialsig._files import write_csv
from spatialsig.cli.options import Further, Quiet, Seed, Slides, TestFold, keywords, prepare, several, slides_at
from spatialsig.errors import InputError, SpatialsigWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def referee(
    stores: Slides,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="csv, parquet, h5ad or GeoJSON, or a directory of them.")
    ],
    unit: Annotated[str, typer.Option(help="What the values are: scores, log1p_cp10k, cp10k or counts.")],
    out: Annotated[
        Path, typer.Option(help="Directory for referee.html, referee.csv, evaluation.csv and findings.csv.")
    ] = Path("referee"),
    name: Annotated[str, typer.Option(help="Name of the model, for the page.")] = "outside model",
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Fit a line per signature on training patients.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Judge predictions of any outside model on the held-out patients, beside controls, noise ceiling and traps."""
    from spatialsig import tl

    prepare(quiet=quiet)
    own = {"unit": unit, "name": name, "test_fold": test_fold, "seed": seed, "recalibrate": recalibrate}
    options = keywords(further, tl.referee, own=tuple(own)) | own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)  # the findings are listed below
        found = tl.referee(slides_at(stores), predictions, report=out / "referee.html", **options)
    for table, file in ((found.table, "referee"), (found.evaluation, "evaluation"), (found.findings, "findings")):
        write_csv(out / f"{file}.csv", table)
    shown = ["signature", "pearson", "low", "high", "ceiling", "density", "colour", "hand_features"]
    typer.echo(found.table[shown].to_string(index=False, float_format="{:.3f}".format))
    for finding in found.findings.itertuples():
        typer.echo(f"finding ({finding.severity}): {finding.text}")
    typer.echo(found.sentence)
    typer.echo(f"page: {out / 'referee.html'}")


def power(
    stores: Slides,
    out: Annotated[Path, typer.Option(help="Directory for power.png, points.csv, power.csv and what resumes.")] = Path(
        "power"
    ),
    target: Annotated[float, typer.Option(help="Share of the noise ceiling that is wanted.")] = 0.8,
    learner: Annotated[str, typer.Option(help="hand_features (minutes), embedding, or vit (hours).")] = "hand_features",
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Fit a learning curve over patients, and say how many a share of the noise ceiling takes."""
    from spatialsig import pl, tl
    from spatialsig.train import fit_vit

    prepare(quiet=quiet)
    own = {"target": target, "learner": learner, "test_fold": test_fold, "seed": seed}
    options = keywords(further, tl.power, tl.train_vit, fit_vit, own=(*own, "run_dir")) | own
    found = tl.power(slides_at(stores), run_dir=out / "run", **options)
    write_csv(out / "points.csv", found.points)
    write_csv(out / "power.csv", found.table)
    pl.power(found, figure=_figure(), save=out / "power.png")
    for sentence in found.sentences:
        typer.echo(sentence)
    typer.echo(f"plot: {out / 'power.png'}")


def scales(
    stores: Slides,
    out: Annotated[Path, typer.Option(help="Directory for scales.png, scales.csv and summary.csv.")] = Path("scales"),
    scales_um: Annotated[
        list[str] | None,
        typer.Option(help="Edges of the squares, µm (28, 56, 112, 224); with commas, or repeated."),
    ] = None,
    test_fold: TestFold = 0,
    seed: Seed = 0,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Judge predictions at several scales, and name the finest at which they beat density and colour."""
    from spatialsig import pl, tl

    prepare(quiet=quiet)
    own = {"test_fold": test_fold, "seed": seed}
    options = keywords(further, tl.scales, own=tuple(own), scales_um=_numbers(several(scales_um), "--scales-um")) | own
    found = tl.scales(slides_at(stores), **options)
    write_csv(out / "scales.csv", found.table)
    write_csv(out / "summary.csv", found.summary)
    pl.scales(found, figure=_figure(), save=out / "scales.png")
    typer.echo(found.sentence)
    typer.echo(f"plot: {out / 'scales.png'}")


def _numbers(given: list[str] | None, option: str) -> list[float] | None:
    """Numbers that were given with commas."""
    try:
        return None if given is None else [float(value) for value in given]
    except ValueError as error:
        msg = f"`{option} {','.join(given or [])}` is no list of numbers, such as `{option} 56,112,224`."
        raise InputError(msg) from error


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure()
