"""Bundles of a manifest read into stores, one after another; one that fails leaves the others alone.

Floor 7. Used by cohort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._checks import warn
from spatialsig._progress import progress_bar
from spatialsig.errors import InputError, StoreError
from spatialsig.io._cohort import COLUMNS
from spatialsig.slide.slides import SLIDE_ERRORS, on_slide
from spatialsig.store.metadata import elements_on_disk, read_attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd


def read_slides(rows: pd.DataFrame, out: Path, read: Callable[[pd.Series[Any], Path], None]) -> dict[str, str]:
    """Call ``read(row, store)`` for every row of a manifest; returns why some failed, by sample.

    Raises :class:`InputError` if all of them do, and warns of fewer.
    """
    failures: dict[str, str] = {}
    with progress_bar("reading bundles", total=len(rows), unit="slides") as bar:
        for row in (row for _, row in rows.iterrows()):
            bar.note(str(row[_keys.SAMPLE]))
            try:
                with on_slide(str(row[_keys.SAMPLE])):
                    read(row, out / f"{row[_keys.SAMPLE]}.zarr")
            except SLIDE_ERRORS as error:
                failures[str(row[_keys.SAMPLE])] = f"{type(error).__name__}: {error}"
            bar.advance()
    _report(failures, len(rows))
    return failures


def check_same(row: pd.Series[Any], path: Path) -> None:
    """Raise unless the store is whole and holds what the row describes."""
    ours = read_attrs(path).get(_keys.NAMESPACE, {})
    source = found if isinstance(found := ours.get("source"), dict) else {}
    stored = source | {name: ours.get(name) for name in (_keys.SAMPLE, _keys.PATIENT)}
    described = {name: str(row[name]) for name in COLUMNS if row[name] is not None}
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
