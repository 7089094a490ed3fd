"""Image files of slides, as files, folders, patterns and manifests name them; each gets a name of its own.

Floor 11, above report. Used by 4 modules of cli, whole_slides.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialsig import _keys
from spatialsig._checks import check_files, first_few
from spatialsig._known import what_is
from spatialsig._text import MISSING, as_name, composed, trimmed
from spatialsig.errors import FileMissingError, InputError
from spatialsig.io._cohort import (
    HE_IMAGE,
    UM_PER_PX,
    at_home,
    check_columns,
    each_row,
    pixel_size,
    read_csv,
    without_blanks,
)
from spatialsig.io.images.ngff import is_zarr
from spatialsig.io.images.open_rgb import SUFFIXES, image_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = "image"
COLUMNS = (_keys.SAMPLE, IMAGE, HE_IMAGE, UM_PER_PX, _keys.PATIENT)
MANIFEST_SUFFIX, DICOM_SUFFIX = ".csv", ".dcm"
MAX_NAME_BYTES = 120  # of a slide: files named after it have an ending of their own
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
_FIX = "Give image files, folders of them, patterns such as 'scans/*.svs', or a csv with a column `image`."


@dataclass(frozen=True)
class SlideImage:
    """A slide that is one image file (or OME-Zarr, or store)."""

    sample: str  # of which the folder of its results is called
    path: Path
    um_per_px: float | None = None  # None: as the file says
    patient: str | None = None
    otherwise_um_per_px: float | None = None  # where neither a manifest nor the file says it


def list_images(
    slides: str | Path | Sequence[str | Path] | pd.DataFrame, *, um_per_px: float | None = None
) -> list[SlideImage]:
    """Slides that files, folders, patterns and manifests name, each file once, in their order.

    A slide is called as its manifest says, or else as its file without the ending; with it, and with its folders, where
    several would be called the same. ``um_per_px`` is for those of which neither manifest nor file says it.

    Raises
    ------
    FileMissingError
        If something is not there, or there is no image.
    InputError
        If a manifest cannot be used, or names are not unique or cannot name a folder.
    """
    if isinstance(slides, pd.DataFrame):
        found = list(
            _rows(without_blanks(slides.reset_index(drop=True), MISSING), Path(), COLUMNS, name="the manifest")
        )
    else:
        places = [slides] if isinstance(slides, str | Path) else list(slides)
        found = [image for place in places for image in _at(at_home(place))]
    if not found:
        msg = f"`slides` is empty: there is nothing to predict. {_FIX}"
        raise InputError(msg)
    once = list({str(image.path.resolve()): image for image in reversed(found)}.values())[::-1]
    return _named([replace(image, otherwise_um_per_px=um_per_px) for image in once])


def is_store(path: Path) -> bool:
    """Whether a path is the store of a slide, and not an image in an OME-Zarr."""
    return path.is_dir() and "store of a slide" in what_is(path)


def _at(place: Path) -> Iterator[SlideImage]:
    """Slides at one path."""
    if not place.exists() and has_magic(str(place)):
        matched = sorted(map(Path, glob(str(place), recursive=True)))
        yield from _chosen(matched, what=f"pattern {str(place)!r}")
        return
    check_files([place], what="slides", fix=_FIX)
    if place.is_file() and place.suffix.lower() == MANIFEST_SUFFIX:
        rows = read_csv(place, needed=(), known=COLUMNS)  # which warns of others
        yield from _rows(rows, place.parent, tuple(rows.columns), name=str(place))
    elif place.is_dir() and not is_zarr(place):
        yield from _chosen(sorted(place.iterdir()), what=f"folder {str(place)!r}", hint=what_is(place))
    else:
        yield SlideImage("", place)


def _chosen(paths: list[Path], *, what: str, hint: str = "") -> Iterator[SlideImage]:
    """Those of the paths that are images by their ending; the files of a DICOM slide lie in a folder of their own."""
    shown = [path for path in paths if not path.name.startswith(".")]
    images = [path for path in shown if path.suffix.lower() in SUFFIXES and (path.is_file() or is_zarr(path))]
    if not images:
        endings = Counter(path.suffix.lower() or "no ending" for path in shown if path.is_file())
        there = ", ".join(f"{n} x {ending}" for ending, n in endings.most_common(5)) or "no files"
        folders = [path for path in shown if path.is_dir()]
        deeper = (
            f" Those in folders below it are found by {str(folders[0].parent / '**' / '*.svs')!r}." if folders else ""
        )
        msg = f"{what} holds no image of a slide: {there}; wanted one of {list(SUFFIXES)}.{hint}{deeper}"
        raise FileMissingError(msg)
    largest: dict[Path, Path] = {}  # of the files of a DICOM slide, the one of full resolution
    for path in sorted(filter(_is_dicom, images), key=lambda each: each.stat().st_size):
        largest[path.parent] = path
    yield from (SlideImage("", path) for path in images if not _is_dicom(path) or largest[path.parent] == path)


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == DICOM_SUFFIX and path.is_file()


def _rows(rows: pd.DataFrame, base: Path, known: Sequence[str], *, name: str) -> Iterator[SlideImage]:
    """Slides of a manifest, whose relative paths start at ``base``."""
    column = HE_IMAGE if HE_IMAGE in rows and IMAGE not in rows else IMAGE
    check_columns(rows, (column,), known, name=name)
    for at, row in zip(each_row(rows), rows.to_dict("records"), strict=True):
        given = {key: row[key] for key in COLUMNS if key in row and _is_given(row[key])}
        size = pixel_size(given[UM_PER_PX], f"{name}, {at}") if UM_PER_PX in given else None
        patient = as_name(given[_keys.PATIENT]) if _keys.PATIENT in given else None
        sample = as_name(given[_keys.SAMPLE]) if _keys.SAMPLE in given else ""
        yield SlideImage(sample, at_home(base / at_home(given[column])), size, patient)


def _is_given(value: Any) -> bool:
    return not (value is None or value is pd.NA or (isinstance(value, float) and value != value))


def _named(images: list[SlideImage]) -> list[SlideImage]:
    """The same slides, those without a name called as their files, with as much of the path as tells them apart."""
    given = [image.sample for image in images if image.sample]
    repeated = sorted(name for name, n in Counter(map(str.casefold, given)).items() if n > 1)
    if repeated:
        msg = f"sample name(s) {repeated} occur more than once among the slides; give each a name of its own."
        raise InputError(msg)
    names = {index: image.sample for index, image in enumerate(images) if image.sample}
    length = 0
    while len(names) < len(images):
        tried = {i: _called(images[i].path, length) for i in range(len(images)) if i not in names}
        taken = Counter(name.casefold() for name in (*names.values(), *tried.values()))
        names |= {i: name for i, name in tried.items() if taken[name.casefold()] == 1}
        if length > max(len(image.path.resolve().parts) for image in images):  # a file and a name of the manifest
            msg = f"slides {first_few(list(tried.values()))} have names that others were given; name all in a manifest."
            raise InputError(msg)
        length += 1
    for name in names.values():
        _check_name(name)
    return [replace(image, sample=names[index]) for index, image in enumerate(images)]


def _called(path: Path, length: int) -> str:
    """Name of a slide by its file: without its ending, with it, with one folder, with two, ..."""
    if _is_dicom(path):
        path = path.resolve().parent
    if length == 0:
        return trimmed(image_name(path))
    return "_".join(composed(part) for part in path.resolve().parts[-length:])


def _check_name(name: str) -> None:
    if _UNSAFE.search(name) or name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES or name != name.rstrip(". "):
        msg = (
            f'sample name {name!r} cannot name a folder; use up to {MAX_NAME_BYTES} bytes without / \\ : * ? " < > |, not '
            "starting or ending with '.': name the slides in a manifest, column `sample`."
        )
        raise InputError(msg)
