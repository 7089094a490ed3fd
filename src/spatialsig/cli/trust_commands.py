"""Commands on how far to trust predictions: triage.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import Annotated

import typer

from spatialsig.cli.model_commands import ModelIn  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import Further, Quiet, Slides, keywords, prepare, slides_at


def triage(
    stores: Slides,
    model: ModelIn,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Stores of held-out patients with labels, predicted as well; the model then carries what they say."
        ),
    ] = None,
    error_rate: Annotated[
        float | None, typer.Option(help="Share of slides that may be accepted though wrong (0.1).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for the decisions.")] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Accept, review or reject each predicted slide and signature, at an error rate that you state."""
    from spatialsig import tl
    from spatialsig._files import write_csv
    from spatialsig.models import load_signature_model

    prepare(quiet=quiet)
    options = keywords(further, tl.triage, error_rate=error_rate)
    loaded = load_signature_model(model)
    held_out = None if calibration is None else slides_at(calibration)
    found = tl.triage(slides_at(stores), loaded, calibration=held_out, **options)
    if held_out is not None:
        loaded.save(model, overwrite=True)
        typer.echo(f"{model} now carries the calibration slides", err=True)
    if out is not None:
        write_csv(out, found)
    typer.echo(found[["sample", "signature", "decision", "reason", "score", "ood"]].round(3).to_string(index=False))
