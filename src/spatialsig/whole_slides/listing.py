"""Image files of slides, as files, folders, patterns and manifests name them; each gets a name of its own.

Floor 11, above report. Used by 5 modules of cli, whole_slides.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

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
    is_given,
    pixel_size,
    read_csv,
    without_blanks,
)
from spatialsig.io.images.ngff import is_zarr
from spatialsig.io.images.open_rgb import SUFFIXES, image_name
from spatialsig.whole_slides.kept import PAGE, SLIDES, is_result, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IMAGE = "image"
HOLDERS = "holders"  # in the attributes of a frame: manifest and line of every row
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
    where: str = ""  # manifest and line; empty of what no manifest names


def list_images(
    slides: str | Path | Sequence[str | Path] | pd.DataFrame,
    *,
    um_per_px: float | None = None,
    results: Sequence[Path] = (),
) -> list[SlideImage]:
    """Slides that files, folders, patterns and manifests name, each file once, in their order.

    A slide is called as its manifest says, or else as its file without the ending; with it, and with its folders, where
    several would be called the same. One whose results lie in the first of the folders of ``results`` keeps their name. What a
    folder or pattern finds in a folder of results, or in one of ``results`` below it, is no slide. ``um_per_px`` is for
    those of which neither manifest nor file says it.

    Raises
    ------
    FileMissingError
        If something is not there, or there is no image; what a manifest names is looked for by :func:`check_there`.
    InputError
        If a manifest cannot be used or says two things of one image, or names are not unique or cannot name a folder.
    """
    if isinstance(slides, pd.DataFrame):
        rows = without_blanks(slides.reset_index(drop=True), MISSING)
        found = list(_rows(rows, Path(), COLUMNS, name="the manifest", holders=slides.attrs.get(HOLDERS)))
    else:
        places = [slides] if isinstance(slides, str | Path) else list(slides)
        apart = [place.resolve() for place in results]
        found = [image for place in places for image in _at(at_home(place), apart)]
    if not found:
        msg = f"`slides` is empty: there is nothing to predict. {_FIX}"
        raise InputError(msg)
    kept = names_in(results[0]) if results else {}
    return _named([replace(image, otherwise_um_per_px=um_per_px) for image in _once(found)], kept)


def check_there(images: Sequence[SlideImage]) -> None:
    """Raise :class:`FileMissingError` that names images of manifests that are not there, with their lines."""
    missing = [f"{image.where or 'slides'}: {str(image.path)!r}" for image in images if not image.path.exists()]
    if missing:
        msg = (
            f"{len(missing)} image(s) are not there ({first_few(missing, n=5)}): correct the paths, which start at the folder of "
            "the csv, or put '#' before the lines."
        )
        raise FileMissingError(msg)


def _once(found: Sequence[SlideImage]) -> Iterator[SlideImage]:
    """Each image once, as a manifest lists it where one does; refuses lines that say two things of one image."""
    same: dict[str, list[SlideImage]] = {}
    for image in found:
        same.setdefault(str(image.path.resolve()), []).append(image)
    for path, group in same.items():
        listed = [image for image in group if image.where] or group[:1]
        said = {(image.sample, image.um_per_px, image.patient): image for image in reversed(listed)}
        if len(said) > 1:
            lines = [
                f"{image.where} ("
                + ", ".join(
                    f"{name} {value!r}" for name, value in zip(COLUMNS[:1] + COLUMNS[3:], what, strict=True) if value
                )
                + ")"
                for what, image in reversed(said.items())
            ]
            msg = f"image {path!r} is listed as several slides, {first_few(lines, n=5)}: keep one of the lines."
            raise InputError(msg)
        yield listed[0]


def is_store(path: Path) -> bool:
    """Whether a path is the store of a slide, and not an image in an OME-Zarr."""
    return path.is_dir() and "store of a slide" in what_is(path)


def _at(place: Path, apart: Sequence[Path]) -> Iterator[SlideImage]:
    """Slides at one path, none of them in the folders ``apart``."""
    if not place.exists() and has_magic(str(place)):
        matched = sorted(map(Path, glob(str(place), recursive=True)))
        root = next(folder for folder in place.parents if not has_magic(str(folder)))
        slides = [path for path in matched if not _is_result(path, root.resolve(), apart)]
        n = len(matched) - len(slides)
        hint = f" {n} found lie among results of `sp.tl.predict_files`, and are no slides." if n else ""
        yield from _chosen(slides, what=f"pattern {str(place)!r}", hint=hint)
        return
    check_files([place], what="slides", fix=_FIX)
    if place.is_file() and place.suffix.lower() == MANIFEST_SUFFIX:
        rows = read_csv(place, needed=(), known=COLUMNS)  # which warns of others
        yield from _rows(rows, place.parent, tuple(rows.columns), name=str(place))
    elif place.is_dir() and not is_zarr(place):
        if is_result(place.resolve()):
            msg = f"folder {str(place)!r} holds results of `sp.tl.predict_files`, and no image of a slide. {_FIX}"
            raise FileMissingError(msg)
        yield from _chosen(sorted(place.iterdir()), what=f"folder {str(place)!r}", hint=what_is(place))
    else:
        yield SlideImage("", place)


def _is_result(path: Path, root: Path, apart: Sequence[Path]) -> bool:
    """Whether what was found below ``root`` is a result, and no slide."""
    folder = path.parent.resolve()
    below = any(root in place.parents and place in (folder, *folder.parents) for place in apart)
    return below or is_result(folder)


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


def _rows(
    rows: pd.DataFrame, base: Path, known: Sequence[str], *, name: str, holders: Sequence[str] | None = None
) -> Iterator[SlideImage]:
    """Slides of a manifest, whose relative paths start at ``base``; ``holders`` are their places where they are not its rows."""
    if {HE_IMAGE, IMAGE} <= set(rows):
        msg = (
            f"{name!r} has the columns {IMAGE!r} and {HE_IMAGE!r}, of which one names the images: leave out the other."
        )
        raise InputError(msg)
    column = HE_IMAGE if HE_IMAGE in rows and IMAGE not in rows else IMAGE
    check_columns(rows, (column,), known, name=name)
    where = [f"{name}, {at}" for at in each_row(rows)] if holders is None else holders
    for at, row in zip(where, rows.to_dict("records"), strict=True):
        given = {key: row[key] for key in COLUMNS if key in row and is_given(row[key])}
        size = pixel_size(given[UM_PER_PX], at) if UM_PER_PX in given else None
        patient = as_name(given[_keys.PATIENT]) if _keys.PATIENT in given else None
        sample = as_name(given[_keys.SAMPLE]) if _keys.SAMPLE in given else ""
        yield SlideImage(sample, at_home(base / at_home(given[column])), size, patient, where=at)


def _named(images: list[SlideImage], kept: Mapping[str, str]) -> list[SlideImage]:
    """The same slides, those without a name called as their results (``kept``), or as their files, with as much of the path as tells them apart."""
    given = [image.sample for image in images if image.sample]
    repeated = sorted(name for name, n in Counter(map(str.casefold, given)).items() if n > 1)
    if repeated:
        msg = f"sample name(s) {repeated} occur more than once among the slides; give each a name of its own."
        raise InputError(msg)
    names = {index: image.sample for index, image in enumerate(images) if image.sample}
    before = {i: kept.get(str(images[i].path.resolve()), "") for i in range(len(images)) if i not in names}
    before = {i: name for i, name in before.items() if name and name.casefold() not in map(str.casefold, given)}
    names |= before
    length = 0
    while len(names) < len(images):
        tried = {i: _called(images[i].path, length) for i in range(len(images)) if i not in names}
        others = [_called(images[i].path, length) for i in before]  # called so beside them, they would be confused
        taken = Counter(name.casefold() for name in {*names.values(), *others})
        taken.update(name.casefold() for name in tried.values())
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
    if name.casefold() in (PAGE, SLIDES):
        msg = f"sample name {name!r} is that of a file which the results of all slides have: name the slide in a manifest, column `sample`."
        raise InputError(msg)
    if _UNSAFE.search(name) or name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES or name != name.rstrip(". "):
        msg = (
            f'sample name {name!r} cannot name a folder; use up to {MAX_NAME_BYTES} bytes without / \\ : * ? " < > |, not '
            "starting or ending with '.': name the slides in a manifest, column `sample`."
        )
        raise InputError(msg)
