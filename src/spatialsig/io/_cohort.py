"""Tables that list slides, read and checked.

Floor 7, above evaluation. Used by 9 modules of cli, cohort, io, pipeline, whole_slides.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._checks import MAX_NAME, check_files, first_few, number_in, warn
from spatialsig._known import what_is
from spatialsig._paths import local_path
from spatialsig._text import (
    MISSING,
    as_name,
    check_alike,
    csv_rows,
    decoded,
    is_mangled,
    near_misses,
    say_commented,
    trimmed,
)
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

BUNDLE, HE_IMAGE, HE_ALIGNMENT, UM_PER_PX, ROLE = "bundle", "he_image", "he_alignment", "um_per_px", "role"
RECORDED = (_keys.SAMPLE, _keys.PATIENT, BUNDLE, HE_IMAGE, HE_ALIGNMENT)  # by the store that is made of a row
COLUMNS = (*RECORDED, UM_PER_PX, ROLE)
MEASURED, PREDICT = "measured", "predict"  # roles: with cells, an H&E alone
MAX_UM_PER_PX = 1000.0
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IDENTITY = "identity"
_LINES = "lines"  # of the file, in the attributes of a frame that was read from it


def read_csv(
    file: Path, *, needed: tuple[str, ...], known: Collection[str] = COLUMNS, exact: bool = False
) -> pd.DataFrame:
    """Read a csv of text; raise :class:`InputError` unless its ``needed`` columns are there and filled.

    Columns that are nearly ``known`` ones are refused, others are said to be unused. With ``exact`` only an empty field is
    missing (files that we wrote); otherwise also ``NA``, ``None``, ``nan``, ...
    """
    text = decoded(file)
    try:
        header, lines = csv_rows(text)
    except ValueError as error:
        msg = f"{str(file)!r} cannot be read as csv ({error}); wanted a header with {list(needed or known)}."
        raise InputError(msg) from error
    say_commented(text, where=repr(str(file)))
    rows = pd.DataFrame(list(lines.values()), columns=pd.Index(header, dtype=object), dtype=object)
    rows = without_blanks(rows, () if exact else MISSING)
    rows.attrs[_LINES] = list(lines)
    check_columns(rows, needed, known, name=str(file), hint=what_is(file))
    return rows


def without_blanks(rows: pd.DataFrame, missing: Collection[str] = ()) -> pd.DataFrame:
    """The same rows, their texts without blanks at the ends; empty ones and ``missing`` words are missing."""

    def text(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = trimmed(value)
        return np.nan if not value or value in missing else value

    return rows.astype(object).map(text)


def check_columns(
    rows: pd.DataFrame, needed: tuple[str, ...], known: Collection[str], *, name: str, hint: str = ""
) -> None:
    """Raise :class:`InputError` unless the ``needed`` columns are there and filled, and none is nearly a known one.

    ``hint`` is a sentence on what has no such columns.
    """
    near = near_misses(map(str, rows.columns), known)
    if near:
        listed = ", ".join(f"{column!r} (did you mean {meant!r}?)" for column, meant in near.items())
        msg = f"{name!r} has column(s) {listed}; write them as one of {list(known)}, or rename what is something else."
        raise InputError(msg)
    missing = [column for column in needed if column not in rows]
    if missing:
        msg = f"{name!r} has no column(s) {missing}; it has {rows.columns.tolist()}. Wanted a header with {list(needed)}.{hint}"
        raise InputError(msg)
    for column in needed:
        empty = np.flatnonzero(rows[column].isna()).tolist()
        if empty:
            msg = f"column {column!r} of {name!r} is empty in {first_few([each_row(rows)[row] for row in empty], n=5)}; fill it in."
            raise InputError(msg)
    unused = [str(column) for column in rows.columns if column not in known]
    if unused:
        msg = f"column(s) {unused} of {name!r} are not used; known are {list(known)}."
        warn(msg)


def each_row(rows: pd.DataFrame) -> list[str]:
    """What a message calls each row: by its line in the file that it was read from, otherwise by its number from 0."""
    lines = rows.attrs.get(_LINES)
    return [f"row {row}" for row in range(len(rows))] if lines is None else [f"line {line}" for line in lines]


def check_samples(samples: Sequence[str], *, where: str = "", holders: Sequence[str] = ()) -> None:
    """Raise :class:`InputError` unless the names are unique and can name files.

    ``where`` names what lists them, ``holders`` what it calls the place of each, such as ``"line 3"``.
    """
    of = f" of {where}" if where else ""

    def at(wrong: Collection[str]) -> str:
        places = [place for sample, place in zip(samples, holders, strict=True) if sample in wrong] if holders else []
        return f" ({first_few(places, n=5)})" if places else ""

    repeated = sorted({sample for sample in samples if samples.count(sample) > 1})
    if repeated:
        msg = f"sample name(s) {repeated}{of}{at(repeated)} occur more than once; give every slide a name of its own."
        raise InputError(msg)
    folded: dict[str, str] = {}
    for sample in samples:
        other = folded.setdefault(sample.casefold(), sample)
        if other != sample:
            msg = (
                f"sample names {[other, sample]}{of}{at([other, sample])} differ in upper and lower case only, and some disks "
                f"store both as one. Rename one of the two, such as {sample!r} to {f'{sample}_2'!r}; list a slide that stands "
                "there twice only once."
            )
            raise InputError(msg)
    unsafe = [sample for sample in samples if _SAFE_NAME.fullmatch(sample) is None or len(sample) > MAX_NAME]
    if unsafe:
        msg = f"sample name(s) {unsafe}{of}{at(unsafe)} cannot name a file; use up to {MAX_NAME} letters A-Z or a-z, digits, '_', '-' and '.'."
        raise InputError(msg)


def check_listed(rows: pd.DataFrame, *, where: str) -> None:
    """:func:`check_samples` of the rows of a cohort, whose lines are then forgotten."""
    check_samples(rows[_keys.SAMPLE].tolist(), where=where, holders=each_row(rows) if rows.attrs else ())
    rows.attrs.clear()


def read_manifest(manifest: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Read a manifest into one row per slide with absolute paths; None in empty fields."""
    needed = (_keys.SAMPLE,)  # and one of bundle and image, by row
    called, name, hint = "manifest", "the manifest", ""
    if isinstance(manifest, pd.DataFrame):
        rows, base = without_blanks(manifest.reset_index(drop=True)), Path()
        check_columns(rows, needed, COLUMNS, name=called)
    else:
        file = at_home(manifest)
        check_files([file], what="manifest", fix=f"Write a csv with columns {list(COLUMNS)}.")
        if file.is_dir():
            msg = f"manifest {str(file)!r} is a directory; wanted a csv with columns {list(COLUMNS)}.{what_is(file)}"
            raise InputError(msg)
        rows, base = read_csv(file, needed=needed), file.parent
        called, name, hint = str(file), repr(str(file)), what_is(file)
    if BUNDLE not in rows and HE_IMAGE not in rows:
        check_columns(rows, (*needed, BUNDLE), COLUMNS, name=called, hint=hint)
    places = each_row(rows)
    rows.attrs.clear()
    rows = rows.reindex(columns=list(COLUMNS)).astype(object)
    # where pandas infers text, a column keeps NaN in place of None
    given = {name: [value if is_given(value) else None for value in rows[name]] for name in COLUMNS}
    rows = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in given.items()})
    for column in (_keys.SAMPLE, _keys.PATIENT):
        odd = [value for value in rows[column] if isinstance(value, bytes | list | tuple | dict | set)]
        if odd:
            msg = f"column {column!r} of {name} holds {odd[0]!r}, a {type(odd[0]).__name__}; wanted names as text."
            raise InputError(msg)
        rows[column] = [None if value is None else as_name(value) for value in rows[column]]
    if rows.empty:
        msg = f"{name} has no rows; wanted one per slide."
        raise InputError(msg)
    check_samples(rows[_keys.SAMPLE].tolist(), where=name, holders=places)
    _check_patients(rows, places, name)
    _check_roles(rows, places, name)
    for column in (BUNDLE, HE_IMAGE, HE_ALIGNMENT):
        rows[column] = pd.Series([_absolute(base, value) for value in rows[column]], dtype=object)
    _check_bundles(rows, name)
    unknown = rows.loc[rows[_keys.PATIENT].isna(), _keys.SAMPLE].tolist()
    if unknown:
        msg = (
            f"no patient is given for {unknown} in {name}: each counts as a patient of its own. Slides of one patient that are "
            f"split between training and test leak; add a column `patient`."
        )
        warn(msg)
    rows[_keys.PATIENT] = [
        str(sample if patient is None else patient)
        for sample, patient in zip(rows[_keys.SAMPLE], rows[_keys.PATIENT], strict=True)
    ]
    return rows


def _check_roles(rows: pd.DataFrame, places: Sequence[str], name: str) -> None:
    """Refuse a slide that is neither a bundle nor an H&E alone, or whose role says otherwise; read the size of pixels."""
    sizes: list[float | None] = []
    for place, each in zip(places, rows.to_dict("records"), strict=True):
        at = f"{name}, {place}, slide {each[_keys.SAMPLE]!r}"
        alone = each[BUNDLE] is None
        if alone and each[HE_IMAGE] is None:
            msg = f"{at}: neither `bundle` nor `he_image` is given; wanted the folder of a bundle, or the image of an H&E alone."
            raise InputError(msg)
        role = PREDICT if alone else MEASURED
        if each[ROLE] not in (None, role):
            known = "without a bundle it is an H&E alone" if alone else "of an H&E alone leave `bundle` empty"
            msg = f"{at}: `role` is {each[ROLE]!r}; wanted {role!r}: {known}."
            raise InputError(msg)
        of_other = HE_ALIGNMENT if alone else UM_PER_PX
        if each[of_other] is not None:
            why = (
                "places the image on a bundle" if alone else "is for an H&E alone; a bundle takes it from the alignment"
            )
            msg = f"{at}: `{of_other}` {why}. Leave it empty."
            raise InputError(msg)
        sizes.append(None if each[UM_PER_PX] is None else pixel_size(each[UM_PER_PX], at))
    rows[UM_PER_PX] = pd.Series(sizes, dtype=object)


def pixel_size(value: Any, at: str) -> float:
    """Size of a px that a manifest states ``at`` a place, µm."""
    try:
        size = number_in(str(value).replace(",", "."))
    except ValueError:
        size = 0.0
    if not 0 < size < MAX_UM_PER_PX:
        msg = f"{at}: `um_per_px` is {value!r}; wanted the µm per px of the image, such as 0.25."
        raise InputError(msg)
    return size


def is_given(value: Any) -> bool:
    """Whether a field holds something, and not one of the marks of a missing value."""
    return not (value is None or value is pd.NA or (isinstance(value, float) and value != value))


def _absolute(base: Path, value: str | Path | None) -> str | Path | None:
    """Path as seen from the manifest; None and the word for an image that needs no alignment stay."""
    return value if value is None or value == _IDENTITY else at_home(base / at_home(value)).resolve()


def at_home(path: str | Path) -> Path:
    """Path with ``~`` as the home of the user; :class:`InputError` for one that is not of this machine."""
    try:
        return Path(local_path(str(path)))
    except ValueError as error:
        msg = f"path {str(path)!r} must be {error}."
        raise InputError(msg) from None


def _check_patients(rows: pd.DataFrame, places: Sequence[str], name: str) -> None:
    """Names of patients that no spreadsheet has spoilt, and none like another."""
    patients = rows[_keys.PATIENT].dropna()
    mangled = {
        sample: patient
        for sample, patient in zip(rows[_keys.SAMPLE], rows[_keys.PATIENT], strict=True)
        if patient in set(filter(is_mangled, patients))
    }
    if mangled:
        msg = (
            f"{name}: patients {mangled} of these samples are a date, a truth value or an error that a spreadsheet put in their place; "
            "write the names back, and import the column as text."
        )
        raise InputError(msg)
    held = [f"{places[row]}, slide {rows[_keys.SAMPLE][row]!r}" for row in patients.index]
    fix = f"write them the same way in column {_keys.PATIENT!r}"
    check_alike(patients, what=f"patients of {name}:", holders=held, fix=fix)


def _check_bundles(rows: pd.DataFrame, name: str) -> None:
    """A slide under two names would be in training and test at once."""
    for bundle, group in rows.groupby(BUNDLE, sort=False):
        if len(group) > 1:
            msg = (
                f"{name}: slides {group[_keys.SAMPLE].tolist()} are of one bundle, {str(bundle)!r}: list it once, or the same cells "
                f"are in training and test."
            )
            raise InputError(msg)
    # several slides may lie on one image, each by an alignment of its own
    for column, others in ((HE_ALIGNMENT, []), (HE_IMAGE, [HE_ALIGNMENT])):
        given = rows[rows[column].notna() & (rows[column] != _IDENTITY) & rows[others].isna().all(axis=1)]
        for file, group in given.groupby(column, sort=False):
            if len(group) > 1:
                msg = f"slides {group[_keys.SAMPLE].tolist()} share one `{column}`, {str(file)!r}: check {name}."
                warn(msg)
