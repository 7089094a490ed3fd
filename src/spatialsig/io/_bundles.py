"""Bundles of a manifest read into stores, one each, and stores compared with what lists say about them.

Floor 7, above evaluation. Used by cohort.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from spatialsig import _keys
from spatialsig._checks import check_files, first_few, warn
from spatialsig._known import what_is
from spatialsig._progress import say
from spatialsig._text import as_name, check_alike
from spatialsig._workers import Outcome, attempt_each
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.io._cohort import MEASURED, PREDICT, RECORDED, ROLE, at_home, check_listed, read_csv
from spatialsig.slide.roles import without_cells
from spatialsig.slide.slides import on_slide
from spatialsig.store.metadata import elements_on_disk, read_attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from spatialsig._arguments import AnyPath

T = TypeVar("T")

MANIFEST = "cohort.csv"
PATH = "path"


def read_slides(
    rows: pd.DataFrame, out: Path, read: Callable[[pd.Series[Any], Path], T], *, on_done: Callable[[Outcome[T]], None]
) -> dict[str, str]:
    """Call ``read(row, store)`` for every row of a manifest; returns why some failed, by sample.

    Raises :class:`InputError` if all of them do, and warns of fewer.
    """
    items = {str(row[_keys.SAMPLE]): row for _, row in rows.iterrows()}
    work = partial(_read_row, out=out, read=read)
    outcomes = attempt_each(work, items, "reading bundles", shared=out, on_done=on_done)
    failures = {each.name: f"{type(each.error).__name__}: {each.error}" for each in outcomes if each.error is not None}
    _report(failures, len(rows))
    return failures


def _read_row(row: pd.Series[Any], *, out: Path, read: Callable[[pd.Series[Any], Path], T]) -> T:
    sample = str(row[_keys.SAMPLE])
    with on_slide(sample):
        return read(row, out / f"{sample}.zarr")


def check_same(row: pd.Series[Any], path: Path) -> None:
    """Raise unless the store is whole and holds what the row describes."""
    ours = recorded_in(path)
    source = found if isinstance(found := ours.get("source"), dict) else {}
    stored = source | {name: ours.get(name) for name in (_keys.SAMPLE, _keys.PATIENT)}
    described = {name: str(row[name]) for name in RECORDED if row[name] is not None}
    different = [
        f"{name} {stored.get(name)!r}, now {value!r}" for name, value in described.items() if stored.get(name) != value
    ]
    unfinished = [f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if not finished]
    if different or unfinished:
        what = f"was read from {'; '.join(different)}" if different else f"has unfinished elements {unfinished}"
        msg = f"store {str(path)!r} {what}. Pass `overwrite=True` to read the slide again, or move the store away."
        raise StoreError(msg)


def _report(failures: dict[str, str], total: int) -> None:
    if not failures:
        return
    listed = "\n".join(f"  {sample}: {why}" for sample, why in failures.items())
    if len(failures) == total:
        msg = f"none of {total} slides could be read:\n{listed}"
        raise InputError(msg)
    warn(f"{len(failures)} of {total} slides could not be read (see `cohort.failures`):\n{listed}")


def list_slides(source: AnyPath | Mapping[str, AnyPath], failures: dict[str, str]) -> pd.DataFrame:
    """One row per slide: sample, patient, absolute path; indexed by sample. A damaged store is named in ``failures``."""
    if isinstance(source, Mapping):
        paths = [at_home(path) for path in source.values()]
        rows = pd.DataFrame({_keys.SAMPLE: list(source), PATH: paths}, dtype=object)
    else:
        rows = _rows_on_disk(at_home(source))
    check_listed(rows, where="the mapping" if isinstance(source, Mapping) else repr(str(source)))
    samples, paths = rows[_keys.SAMPLE].tolist(), rows[PATH].tolist()
    listed = [None if pd.isna(patient) else patient for patient in rows.get(_keys.PATIENT, [None] * len(rows))]
    recorded = recorded_each(samples, paths, listed, failures)
    patients = [patient_of(*of_row) for of_row in zip(samples, paths, listed, recorded, strict=True)]
    check_each_once(samples, paths)
    check_own_names(samples, paths, recorded)
    rows[_keys.PATIENT] = pd.Series(patients, index=rows.index, dtype=object)
    check_patients(rows[_keys.PATIENT], samples, paths)
    rows.index = pd.Index(rows[_keys.SAMPLE].to_numpy(object), dtype=object)
    alone = without_cells(dict(zip(samples, paths, strict=True)))
    rows[ROLE] = pd.Series(
        [PREDICT if sample in alone else MEASURED for sample in samples], index=rows.index, dtype=object
    )
    return rows[[_keys.SAMPLE, _keys.PATIENT, PATH, ROLE]]


def _rows_on_disk(source: Path) -> pd.DataFrame:
    check_files([source], what="cohort", fix="Give a directory of stores, or make one with `Cohort.from_bundles`.")
    if (source / "zarr.json").is_file():
        msg = f"{str(source)!r} is the store of one slide, which functions take as it is; for a cohort of one give `sp.Cohort({{{source.stem!r}: ...}})`."
        raise InputError(msg)
    file = source / MANIFEST if source.is_dir() else source
    if file.exists():
        rows = read_csv(file, needed=(_keys.SAMPLE, PATH), known=(_keys.SAMPLE, _keys.PATIENT, PATH), exact=True)
        rows[PATH] = pd.Series([at_home(file.parent / at_home(path)) for path in rows[PATH]], dtype=object)
        if source.is_dir():
            _say_unlisted(source, {path.resolve() for path in rows[PATH]})
        return rows
    stores = sorted(path for path in source.glob("*.zarr") if path.is_dir())
    if not stores:
        msg = f"directory {str(source)!r} holds neither {MANIFEST} nor stores *.zarr; make them with `Cohort.from_bundles`.{what_is(source)}"
        raise FileMissingError(msg)
    return pd.DataFrame({_keys.SAMPLE: [path.stem for path in stores], PATH: stores}, dtype=object)


def _say_unlisted(folder: Path, listed: Collection[Path]) -> None:
    """Say which stores lie in the folder of a cohort whose list leaves them out."""
    others = sorted(path.name for path in folder.glob("*.zarr") if path.is_dir() and path.resolve() not in listed)
    if others:
        _say_once(
            f"{first_few(others)} in {str(folder)!r} are no part of the cohort: {MANIFEST} there does not list them."
        )


@cache
def _say_once(text: str) -> None:
    say(text)


def recorded_in(store: Path) -> dict[str, Any]:
    """What a store says about its slide; empty without a store, which is named with all other missing ones."""
    recorded: dict[str, Any] = read_attrs(store).get(_keys.NAMESPACE, {}) if store.exists() else {}
    return recorded


def recorded_each(
    samples: Sequence[str], stores: Sequence[Path], patients: Sequence[str | None], failures: dict[str, str]
) -> list[dict[str, Any]]:
    """What each store says about its slide; of a damaged one, which leaves the others alone, the patient that is listed.

    Raises
    ------
    StoreError
        If all are damaged.
    """
    found: list[dict[str, Any]] = []
    for sample, store, patient in zip(samples, stores, patients, strict=True):
        try:
            found.append(recorded_in(store))
        except StoreError as error:
            failures[str(sample)] = str(error)
            if len(failures) == len(stores):
                raise
            found.append({_keys.PATIENT: patient})
    return found


def check_own_names(samples: Sequence[str], stores: Sequence[Path], recorded: Sequence[Mapping[str, Any]]) -> None:
    """Refuse stores whose own names say that slides were exchanged, or that one was copied."""
    for sample, store, own in zip(samples, stores, recorded, strict=True):
        name = str(own.get(_keys.SAMPLE) or sample)
        if name != sample and name in samples:
            msg = (
                f"slide {sample!r}: its store {str(store)!r} names itself {name!r}, the name of another slide of the cohort. Correct "
                "the list, or set sdata.attrs['spatialsig']['sample'] in a store that was copied or renamed."
            )
            raise InputError(msg)


def patient_of(sample: str, store: Path, listed: str | None, recorded: Mapping[str, Any]) -> str:
    """Patient of a slide: what its store says, by which folds are made; the sample where nothing does.

    Raises
    ------
    InputError
        If the list of a cohort says another patient than the store.
    """
    if not store.exists():
        return as_name(listed or sample)
    patient = recorded.get(_keys.PATIENT)
    own = None if not patient or patient != patient else as_name(patient)
    if listed is not None and as_name(listed) != (own or sample):
        msg = (
            f"slide {sample!r}: the list of the cohort says patient {as_name(listed)!r}, its store {str(store)!r} "
            f"{'none' if own is None else repr(own)}, and folds are made by what stores say. Correct the list, or the store: "
            f"sdata = sp.io.read({str(store)!r}); sdata.attrs['spatialsig']['patient'] = {as_name(listed)!r}; "
            "sdata.write_attrs()."
        )
        raise InputError(msg)
    return own or sample


def check_patients(patients: Iterable[str], samples: Iterable[str], stores: Iterable[Path]) -> None:
    """Refuse patients of a cohort whose names look alike: their slides would be held out apart."""
    held = [f"of slide {sample!r}, store {str(store)!r}" for sample, store in zip(samples, stores, strict=True)]
    fix = "write them the same way: sdata.attrs['spatialsig']['patient'] = ... of one store, then sdata.write_attrs(), and in the list"
    check_alike(patients, what="patients of the cohort:", holders=held, fix=fix)


def check_each_once(samples: Iterable[str], stores: Iterable[Path]) -> None:
    """Refuse one store under two names: its cells would count twice."""
    known: dict[Path, str] = {}
    for sample, store in zip(samples, stores, strict=True):
        first = known.setdefault(store.resolve(), sample)
        if first != sample:
            msg = f"slides {first!r} and {sample!r} are one store, {str(store)!r}: leave one of them out."
            raise InputError(msg)
