"""The prototype's files: how they are named, what they say of a slide, and its picture put together of those of the patches.

Floor 7, above evaluation. Used by cli/seed_files, io/_read_seed_layout, io/_seed_layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from spatialsig import _keys
from spatialsig._checks import check_files, first_few, number_in
from spatialsig._text import csv_rows, decoded
from spatialsig.errors import InputError
from spatialsig.io.images.open_rgb import open_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LABELS, EMBEDDINGS, PATCHES = "labels.csv", "embeddings", "patches"
SLIDE, SIZE, PICTURE, VECTOR = "slide", "size_l0", "png_path", "ae_path"
NEEDED = (SLIDE, _keys.Y0, _keys.X0, SIZE)
COLUMNS = (*NEEDED, _keys.N_CELLS, PICTURE, VECTOR)  # all others are signatures
WHITE = 255
MOST = 1_000_000  # px of the longest slide, and cells of a patch
_KEPT = 64  # decoded pictures: a window of the slide cuts through some that the next needs again
_WHOLE = "Copy the folder whole"


@dataclass(frozen=True)
class SeedLabels:
    """The table of labels, as text, line by line."""

    file: Path
    rows: dict[int, dict[str, str]]  # number of the line -> column -> field
    signatures: list[str]

    @property
    def slides(self) -> list[str]:
        """Names of the slides, in their order."""
        return list(dict.fromkeys(row[SLIDE] for row in self.rows.values()))

    def of(self, slide: str) -> SeedLabels:
        """The lines of one slide."""
        return SeedLabels(self.file, {n: row for n, row in self.rows.items() if row[SLIDE] == slide}, self.signatures)

    def numbers(self, column: str, *, whole: bool = False) -> NDArray[np.float64]:
        """A column as numbers; empty fields are NaN, and refused of ``whole`` numbers, which are 0 or more."""
        return np.array([self._number(line, column, whole=whole) for line in self.rows], np.float64)

    def paths(self, column: str, folder: str) -> list[Path | None]:
        """Files that a column names: as they stand there, else of that name in ``folder``, or beside the table; None for an empty field."""
        return [self._path(row.get(column, ""), folder) for row in self.rows.values()]

    def _number(self, line: int, column: str, *, whole: bool) -> float:
        text = self.rows[line][column]
        try:
            value = number_in(text) if text else np.nan
        except ValueError:
            value = np.inf
        if np.isinf(value) or (whole and not (0 <= value <= MOST and value == int(value))):
            wanted = f"a whole number from 0 to {MOST:,}" if whole else "a number, or nothing where it was not measured"
            msg = f"{str(self.file)!r}, line {line}: `{column}` is {text!r}; wanted {wanted}. Mend the line, or export the labels again."
            raise InputError(msg)
        return value

    def _path(self, text: str, folder: str) -> Path | None:
        if not text:
            return None
        base, name = self.file.parent, PureWindowsPath(text).name
        places = [base / text, base / folder / name, base / name]
        return next((place for place in places if place.exists()), places[0])


def read_labels(file: Path) -> SeedLabels:
    """The table of labels.

    Raises
    ------
    FileMissingError
        If it is not there.
    InputError
        If it is no csv, or has no slide, place or signature.
    """
    fix = f"Give the folder that `sp.io.export_seed_layout` or the prototype wrote, or the name of its table with `labels=` ({LABELS} otherwise)."
    check_files([file], what="labels of the prototype's layout", fix=fix, folders=False)
    try:
        header, lines = csv_rows(decoded(file))
    except ValueError as error:
        msg = f"{str(file)!r} cannot be read as csv ({error}); wanted a header with {list(NEEDED)} and one column per signature."
        raise InputError(msg) from error
    missing, signatures = [name for name in NEEDED if name not in header], [n for n in header if n not in COLUMNS]
    if missing or not signatures:
        what = f"no column(s) {missing}" if missing else "no column of a signature"
        msg = f"{str(file)!r} has {what}; it has {header}. Wanted {list(COLUMNS)} and one column per signature."
        raise InputError(msg)
    rows = {line: dict(zip(header, fields, strict=True)) for line, fields in lines.items()}
    nameless = [str(line) for line, row in rows.items() if not row[SLIDE]]
    if nameless or not rows:
        what = f"`{SLIDE}` is empty in line {first_few(nameless)}" if rows else "it lists no patch"
        msg = f"{str(file)!r}: {what}; wanted the name of the slide in every line. Export the labels again."
        raise InputError(msg)
    return SeedLabels(file, rows, signatures)


def places_of(labels: SeedLabels) -> tuple[NDArray[np.int64], int]:
    """Corners ``(n, 2)`` as y0, x0 of the patches of one slide, each once, and their one size, level-0 px."""
    corners = [labels.numbers(column, whole=True) for column in (_keys.Y0, _keys.X0)]
    origins = np.stack(corners, axis=1).astype(np.int64)
    sizes = labels.numbers(SIZE, whole=True).astype(np.int64)
    name, lines = f"{str(labels.file)!r}, slide {labels.slides[0]!r}", list(labels.rows)
    if len(set(sizes.tolist())) > 1 or sizes[0] < 1:
        msg = f"{name}: `{SIZE}` is {sorted(set(sizes.tolist()))}; wanted one size above 0: patches of a slide are squares of one size."
        raise InputError(msg)
    _, first, count = np.unique(origins, axis=0, return_index=True, return_counts=True)
    if (count > 1).any():
        corner = origins[first[count > 1][0]]
        twice = [str(line) for line, origin in zip(lines, origins, strict=True) if (origin == corner).all()]
        msg = f"{name}: the patch at y0 {corner[0]}, x0 {corner[1]} stands in lines {', '.join(twice)}; wanted it once. Remove the others."
        raise InputError(msg)
    return origins, int(sizes[0])


def there(paths: Sequence[Path | None], *, what: str, fix: str) -> list[Path | None]:
    """The same paths, all of whose files are there; :class:`FileMissingError` names those that are not."""
    check_files([path for path in paths if path is not None], what=what, fix=f"{_WHOLE}, or {fix}.", folders=False)
    return list(paths)


def read_vectors(paths: Sequence[Path | None]) -> NDArray[np.float32]:
    """Embeddings ``(n, d)`` of the patches, NaN where there is no file.

    Raises
    ------
    InputError
        If a file holds anything but finite numbers (or NaN) in one row, or another number of them than the others.
    """
    vectors = [None if path is None else _vector(path) for path in paths]
    given = {path: len(vector) for path, vector in zip(paths, vectors, strict=True) if path and vector is not None}
    lengths = sorted(set(given.values()))
    if len(lengths) > 1:
        odd = next(path for path, length in given.items() if length != next(iter(given.values())))
        msg = f"{str(odd)!r} holds {given[odd]} numbers, others {lengths}; wanted embeddings of one width, by one autoencoder."
        raise InputError(msg)
    return np.stack([np.full(lengths[0], np.nan, np.float32) if vector is None else vector for vector in vectors])


def _vector(path: Path) -> NDArray[np.float32]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f"{str(path)!r} cannot be read as numbers ({error}); wanted the embedding of a patch, as `numpy.save` writes it. {_WHOLE} again."
        raise InputError(msg) from error
    if not isinstance(found, np.ndarray) or found.ndim != 1 or not len(found) or found.dtype.kind not in "fiu":
        shape = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        msg = f"{str(path)!r} holds {shape}; wanted the embedding of a patch, numbers (d,). Encode the cells again."
        raise InputError(msg)
    if np.isinf(found).any():
        msg = f"{str(path)!r} holds {int(np.isinf(found).sum())} infinite values; wanted finite ones. Encode the cells again."
        raise InputError(msg)
    return found.astype(np.float32)


def picture_px(paths: Sequence[Path], size_l0: int) -> int:
    """Edge of the pictures of the patches, px; :class:`InputError` where one is no square, of another size, or finer than the slide."""
    edges = {path: _shape(path) for path in paths}
    first = next(iter(edges.values()))
    for path, (height, width) in edges.items():
        if height != width or (height, width) != first or height > size_l0:
            msg = (
                f"{str(path)!r} has {height} x {width} px (y, x); wanted squares of one size, {first[0]} px as the first, of at most the "
                f"{size_l0} px of the slide that a patch covers (`{SIZE}`). Export the pictures again, or pass `images=False`."
            )
            raise InputError(msg)
    return first[0]


def _shape(path: Path) -> tuple[int, int]:
    """Height and width of a picture, of which the head alone is read."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        msg = f"{str(path)!r} is no picture that can be read ({error}). {_WHOLE} again, or pass `images=False`."
        raise InputError(msg) from error
    return height, width


class Mosaic:
    """Picture of a slide ``(y, x, 3)`` uint8 in level-0 px, put together of those of its patches; white where none lies.

    Pictures of fewer px than their patch covers are enlarged px by px, so that reading a patch gives its picture back where the
    one is a multiple of the other. A picture is decoded when a window of it is asked for.

    Parameters
    ----------
    pictures
        File of each patch; None where there is none.
    origins
        Corners ``(n, 2)`` as y0, x0, level-0 px.
    size_l0
        Edge of a patch, level-0 px.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, pictures: Sequence[Path | None], origins: NDArray[np.int64], size_l0: int) -> None:
        self.pictures, self.origins, self.size_l0 = tuple(pictures), origins, size_l0
        height, width = (origins.max(axis=0) + size_l0).tolist()
        self.shape = (height, width, 3)

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Pixels of the window ``[y0:y1, x0:x1]``; a third slice takes channels."""
        bounds = [part.indices(edge)[:2] for part, edge in zip(window[:2], self.shape[:2], strict=True)]
        low, high = np.array(bounds).T
        out = np.full((*np.maximum(high - low, 0).tolist(), 3), WHITE, np.uint8)
        touched = (self.origins < high).all(axis=1) & (self.origins + self.size_l0 > low).all(axis=1)
        for row in np.flatnonzero(touched).tolist():
            if (path := self.pictures[row]) is not None:
                self._paste(out, low, high, self.origins[row], path)
        return out if len(window) < 3 else out[..., window[2]]

    def _paste(
        self,
        out: NDArray[np.uint8],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        origin: NDArray[np.int64],
        path: Path,
    ) -> None:
        picture = _decoded(str(path), path.stat().st_mtime_ns)
        first, last = np.maximum(origin, low), np.minimum(origin + self.size_l0, high)
        rows, columns = (
            (np.arange(a, b) - start) * len(picture) // self.size_l0
            for a, b, start in zip(first, last, origin, strict=True)
        )
        (y0, x0), (y1, x1) = first - low, last - low
        out[y0:y1, x0:x1] = picture[rows[:, None], columns]


@lru_cache(maxsize=_KEPT)
def _decoded(path: str, _changed: int) -> NDArray[np.uint8]:
    """Pixels of a picture, as long as its file is the same."""
    file = open_rgb(path)
    try:
        height, width = file.pixels.shape[:2]
        return file.levels[0][slice(0, height), slice(0, width)]
    finally:
        file.close()
