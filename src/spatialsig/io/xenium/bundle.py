"""Names of a bundle's files, the settings of its experiment, and the generation of the software that wrote it.

Floor 7, above evaluation. Used by 6 modules of io.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spatialsig._checks import check_files
from spatialsig._files import content_hint
from spatialsig._known import what_is
from spatialsig._text import decoded, distinct
from spatialsig.errors import FileMissingError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CELLS_ZARR = "cells.zarr.zip"
PIXEL_SIZE_UM = (0.05, 1.0)  # morphology pixels of a microscope; 0.2125 is typical
MORPHOLOGY_DIR = "morphology_focus"
FOCUS_FILE, MIP_FILE = "morphology_focus.ome.tif", "morphology_mip.ome.tif"
_FIRST_FOCUS, _FIRST_CHANNEL = "morphology_focus_0000.ome.tif", "ch0000_dapi.ome.tif"
_VERSION = re.compile(r"^[xX]enium-(\d+)\.(\d+)\.\d+")
INTEGER_IDS, BYTE_IDS, TEXT_IDS = "1.0-1.2", "1.3-1.9", "2 and later"
ATERA_GENERATION = "Atera"


@dataclass(frozen=True)
class Form:
    """Names of the files that every bundle of one form has, and what marks it."""

    specs: str
    matrix: str
    cells: str  # where each cell is; in Atera the matrix knows it
    images: str  # folder of the morphology images

    @property
    def needed(self) -> tuple[str, ...]:
        """Files that are always read, each once."""
        return tuple(dict.fromkeys((self.specs, self.matrix, self.cells)))


XENIUM = Form("experiment.xenium", "cell_feature_matrix.h5", "cells.parquet", MORPHOLOGY_DIR)
ATERA = Form("experiment.spatial", "cell_feature_matrix.zarr.zip", "cell_feature_matrix.zarr.zip", "morphology_2d")
SPECS = (XENIUM.specs, ATERA.specs)
_ONLY_ATERA = (ATERA.specs, "panel_config.json", ATERA.images)


def form_of(path: Path) -> Form:
    """Tell whether a bundle is of Xenium (or of Atera's preview, which has the same files) or of Atera, by its files.

    A bundle that has all files of both is read as Xenium's.
    """
    if all((path / name).exists() for name in XENIUM.needed):
        return XENIUM
    return ATERA if any((path / name).exists() for name in _ONLY_ATERA) else XENIUM


def check_bundle(path: Path, form: Form, extra: Sequence[str] = ()) -> None:
    """Raise :class:`FileMissingError` naming all files of the bundle that are needed and not there."""
    if not path.is_dir():
        what = what_is(path) or " It is a file: if it holds the packed bundle, unpack it." if path.exists() else ""
        msg = (
            f"bundle {str(path)!r} {'is not a directory' if path.exists() else 'does not exist'}; give the output directory of one Xenium or Atera region."
            f"{what}"
        )
        raise FileMissingError(msg)
    fix = f"Copy them from the output of the instrument; {', '.join(form.needed)} are always needed"
    fix += f", here also {sorted(extra)}." if extra else ", other files only for what you ask for."
    optional = [CELLS_ZARR] if os.path.lexists(path / CELLS_ZARR) else []
    files = [path / name for name in dict.fromkeys((*form.needed, *extra, *optional))]
    if not any(file.exists() for file in files) and (what := what_is(path)):
        msg = f"{str(path)!r} is no bundle of Xenium or Atera: none of {', '.join(form.needed)} is in it.{what}"
        raise FileMissingError(msg)
    check_files(files, what=f"bundle {str(path)!r}", fix=_instead(path, files) + fix)
    folders = [file.name for file in files if file.is_dir()]
    if folders:
        msg = f"bundle {str(path)!r}: {', '.join(folders)} is a folder; wanted a file, not unpacked. {fix}"
        raise InputError(msg)


def _instead(path: Path, files: Sequence[Path]) -> str:
    """Sentence on what is there in place of files that are missing: another spelling, a half download, a folder deeper."""
    missing = [file.name for file in files if not file.exists()]
    there = sorted(file.name for file in path.iterdir() if file.name not in missing and not file.name.startswith("."))
    near = [name for name in there if any(_stands_for(name, wanted) for wanted in missing)]
    if near:
        return f"There are {near}: let the download end, unpack and rename them. "
    inner = [name for name in there if any((path / name / specs).is_file() for specs in SPECS)]
    return f"The bundle seems to lie in {inner[0]!r}: give {str(path / inner[0])!r}. " if missing and inner else ""


def _stands_for(name: str, wanted: str) -> bool:
    """Whether a file is another spelling, a numbered copy, a half download or the unpacked form of the one wanted."""
    stem, _, ending = wanted.lower().partition(".")
    plain = re.sub(r"( \(\d+\)| - copy| copy)(?=\.)", "", name.lower())
    return plain.startswith(f"{stem}.{ending}") or f"{plain}.zip" == wanted.lower()


def read_specs(file: Path) -> dict[str, Any]:
    """Read ``experiment.xenium`` or ``experiment.spatial`` into its fields."""
    try:
        specs = json.loads(decoded(file), object_pairs_hook=distinct)
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{str(file)!r} is no valid JSON ({error}): restore it, copy it from the output of the instrument again.{content_hint(file)}"
        raise InputError(msg) from error
    if not isinstance(specs, dict):
        msg = f"{str(file)!r} holds a {type(specs).__name__}; wanted fields as `pixel_size`: restore the original file."
        raise InputError(msg)
    return specs


def pixel_size_of(specs: dict[str, Any], *, file: Path) -> float:
    """Take the micrometres per morphology px from the fields of the manifest, checked."""
    value = specs.get("pixel_size")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and PIXEL_SIZE_UM[0] <= (value or 0) <= PIXEL_SIZE_UM[1]:  # NaN fails as well
        return float(value or 0)
    msg = (
        f"`pixel_size` in {str(file)!r} is {value!r}; wanted um per morphology px, {PIXEL_SIZE_UM[0]} to "
        f"{PIXEL_SIZE_UM[1]} (0.2125 is typical): restore the original file."
    )
    raise InputError(msg)


@dataclass(frozen=True)
class Layout:
    """Generation of a bundle as its files show it."""

    # XOA versions whose cell ids and segmentation it has: ``1.0-1.2``, ``1.3-1.9``, ``2 and later``; or ``Atera``
    generation: str
    images: str | None  # XOA versions whose morphology images it has: ``1``, ``2-3``, ``4``; None without images

    @property
    def xoa(self) -> str:
        """XOA versions that write such a bundle."""
        if self.generation != TEXT_IDS:
            return self.generation
        return self.images if self.images in {"2-3", "4"} else self.generation

    @property
    def images_fit(self) -> bool:
        """Whether images and cell ids are of one generation."""
        return self.images is None or (self.images == "1") == (self.generation in {INTEGER_IDS, BYTE_IDS})


def detect_layout(path: Path, form: Form, *, id_kind: str, segmentation: str | None) -> Layout:
    """Find the generation of a bundle in its files.

    ``id_kind`` says how ``cells.parquet`` stores ids (``"integer"``, ``"bytes"`` or ``"text"``), ``segmentation`` which
    generation ``cells.zarr.zip`` shows (None without the file).
    """
    if form == ATERA:
        return Layout(ATERA_GENERATION, "4" if (path / ATERA.images / _FIRST_CHANNEL).exists() else None)
    images = _images(path)
    if segmentation is not None:
        return Layout(segmentation, images)
    if id_kind == "text":  # some copies of old bundles hold their ids as text
        return Layout(BYTE_IDS if images == "1" else TEXT_IDS, images)
    return Layout({"integer": INTEGER_IDS, "bytes": BYTE_IDS}[id_kind], images)


def _images(path: Path) -> str | None:
    directory = path / MORPHOLOGY_DIR
    if (directory / _FIRST_CHANNEL).exists():
        return "4"
    if (directory / _FIRST_FOCUS).exists():
        return "2-3"
    return "1" if any((path / name).exists() for name in (FOCUS_FILE, MIP_FILE)) else None


def stated_generation(specs: dict[str, Any]) -> str | None:
    """Generation that the version string of ``experiment.xenium`` claims; None where it says nothing (``R&D``)."""
    ranger = specs.get("xenium_ranger")
    text = ranger.get("version") if isinstance(ranger, dict) and ranger else specs.get("analysis_sw_version")
    numbers = _VERSION.match(text) if isinstance(text, str) else None
    if numbers is None:
        return None
    version = int(numbers[1]), int(numbers[2])
    return INTEGER_IDS if version < (1, 3) else BYTE_IDS if version < (2, 0) else TEXT_IDS


def version_for(generation: str) -> str:
    """Version string that a reader which trusts versions needs for a bundle of this generation."""
    versions = {INTEGER_IDS: "xenium-1.0.0.0", BYTE_IDS: "xenium-1.3.0.0"}
    return versions.get(generation, "xenium-2.0.0.0")
