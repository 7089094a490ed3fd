"""Commands that judge: predictions of outside models on held-out patients.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from spatialsig._files import write_csv
from spatialsig.cli.options import Further, Quiet, Seed, Slides, TestFold, keywords, prepare, slides_at
from spatialsig.errors import SpatialsigWarning


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
