"""Options that several commands share, and what every command does first.

Floor 12, above pipeline, referee, whole_slides. Used by 9 modules of cli.
"""

from __future__ import annotations

import logging
from importlib import metadata
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from spatialsig._checks import check_options
from spatialsig._known import what_is
from spatialsig._paths import as_address
from spatialsig._settings import settings
from spatialsig._yaml import read_yaml
from spatialsig.cli.cohorts import choose, is_chosen
from spatialsig.errors import FileMissingError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from spatialsig.slide.slides import Data

WHOLE, STEPS, STORES = "Everything at once", "Step by step", "Stores and results"
INTERRUPTED = 130  # exit status that shells report for an interrupted program

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Slides = Annotated[
    Path, typer.Argument(metavar="STORES", help="Directory of stores, CSV file of a cohort, or store of one slide.")
]
Store = Annotated[Path, typer.Argument(metavar="STORE", help="Store of a slide.")]
Signatures = Annotated[str, typer.Option(help="Built-in set such as seed, or a file (gmt, csv, json, yaml).")]
TestFold = Annotated[int, typer.Option(help="Fold that is held out.")]
AllSlides = Annotated[bool, typer.Option("--all-slides", help="Hold out no fold: learn from all slides.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Further = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other keyword of the Python function; may be repeated."),
]

DEFAULT_SIGNATURES = "tumour_microenvironment"


def prepare(*, quiet: bool) -> None:
    """Apply the settings that every command shares."""
    settings.progress = not quiet
    logging.getLogger("spatialdata").setLevel(logging.WARNING)


def show_version(value: bool) -> None:  # noqa: FBT001 (as typer calls it)
    """Print the version and end, where it is asked for."""
    if value:
        typer.echo(metadata.version("spatialsig"))
        raise typer.Exit


def check_stores(path: Path) -> None:
    """Refuse what is neither a store, nor a directory of stores, nor the csv of a cohort."""
    if (address := as_address(path)) is not None:
        msg = (
            f"{address} is an address, and this command works in stores of this machine: copy the store here, or read it in Python "
            "with `sp.io.read`. `spatialsig status` and `spatialsig export seed` take addresses."
        )
        raise InputError(msg)
    if not path.exists():
        msg = f"{path} does not exist; wanted a store, a directory of stores, or the csv of a cohort."
        raise FileMissingError(msg)
    if path.is_file() and path.suffix.lower() != ".csv":
        of_others = " Of an image or a bundle make a store first: `spatialsig import`."
        msg = f"{path} is a file, no store; wanted a store, a directory of stores, or the csv of a cohort.{what_is(path) or of_others}"
        raise InputError(msg)


def slides_at(path: Path, *, reads_only: bool = False) -> Data:
    """One store, or the cohort that lies at ``path``, or the part of it that is asked for.

    A command that ``reads_only`` may be given the address of a store on another machine.
    """
    address = as_address(path) if reads_only else None
    if address is None:
        check_stores(path)
    if address is not None or (path / "zarr.json").is_file() or (path / ".zgroup").is_file():
        if is_chosen():
            msg = f"{address or path} is the store of one slide; `--only` and `--index` choose from the cohort in a directory."
            raise InputError(msg)
        return path if address is None else _read(address)
    from spatialsig.cohort import Cohort

    cohort = Cohort(path)
    return cohort.part(choose(list(cohort))) if is_chosen() else cohort


def _read(address: str) -> Data:
    from spatialsig.io import read

    return read(address)


def several(given: list[str] | None) -> list[str] | None:
    """Names that were given with commas, or by repeating the option."""
    return None if given is None else [name.strip() for entry in given for name in entry.split(",")]


def held_out(test_fold: int, *, all_slides: bool) -> int | None:
    """``test_fold`` as the functions of ``tl`` take it."""
    return None if all_slides else test_fold


def keywords(
    given: list[str] | None, *functions: Callable[..., Any], own: Collection[str] = (), **named: Any
) -> dict[str, Any]:
    """Named options that were given, and those of ``--set NAME=VALUE``, whose values are read as YAML.

    Raises
    ------
    InputError
        If an entry has no ``=``, names one of the command's ``own`` options, its value is not valid YAML, or it names an option twice or one that none of ``functions`` takes.
    """
    known = sorted({name for f in functions for name, p in signature(f).parameters.items() if p.kind == p.KEYWORD_ONLY})
    found = {name: value for name, value in named.items() if value is not None}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            msg = f"`--set {entry}` is not NAME=VALUE, such as `--set learning_rate=0.001`."
            raise InputError(msg)
        if name in own:
            msg = f"`--set {entry}`: give it as `--{name.replace('_', '-')} {value}`, an option of this command."
            raise InputError(msg)
        check_options([name], known, function=f"--set {entry}")
        if name in found:
            msg = f"`{name}` was given twice: {found[name]!r} and {value!r}."
            raise InputError(msg)
        try:
            found[name] = read_yaml(value, settings=True)
        except (ValueError, yaml.YAMLError) as error:
            msg = f"`--set {entry}`: {value!r} is not valid YAML ({' '.join(str(error).split())})."
            raise InputError(msg) from error
    return found
