"""What the command import does with a folder of the prototype's files.

Floor 12, above pipeline, referee, whole_slides. Used by cli/slide_commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spatialsig.cli.cohorts import choose
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def is_seed_layout(source: Path) -> bool:
    """Whether a folder holds the prototype's table of labels, and no bundle."""
    from spatialsig._known import what_is
    from spatialsig.io._seed_files import LABELS

    return source.is_dir() and (source / LABELS).is_file() and not what_is(source)


def import_seed_layout(
    source: Path, out: Path, um_per_px: float | None, *, others: tuple[Path | None, ...], only: str | None,
    patient: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Read every slide of the prototype's files, or those that are chosen, into a store each."""
    from spatialsig import io
    from spatialsig.io._cohort import check_samples
    from spatialsig.io._seed_files import LABELS, read_labels

    if um_per_px is None or any(others):
        msg = (
            f"{source} holds files of the prototype, whose pictures are its patches: leave `he_image` and `he_alignment` out, and give the "
            "µm of a px of the slide, which the files do not say, as `--um-per-px`."
        )
        raise InputError(msg)
    samples = read_labels(source / LABELS).slides if only is None else [only]
    check_samples(samples, where=repr(str(source / LABELS)))
    for sample in choose(samples):
        store = out / f"{sample}.zarr"
        out.mkdir(parents=True, exist_ok=True)
        io.read_seed_layout(source, um_per_px=um_per_px, sample=sample, patient=patient, out=store, overwrite=overwrite)
        typer.echo(f"store: {store}")
