"""Attributes of a store, written all or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spatialsig.errors import InputError
from spatialsig.store.lock import writer_lock
from spatialsig.store.metadata import SPATIALDATA_ATTRS, root_document
from spatialsig.store.root_metadata import KeptRoot, replace_root, try_record_current
from spatialsig.store.staging import staging_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_attrs(path: Path, attrs: Mapping[str, Any]) -> None:
    """Set attributes of the store; those of other names stay.

    Parameters
    ----------
    path
        Store.
    attrs
        Name -> JSON-able value. ``spatialdata_attrs`` is spatialdata's own and is never replaced.

    Returns
    -------
    None; the root metadata are replaced as one file (attributes and the consolidated copy live in it).

    Raises
    ------
    InputError
        If a value cannot be stored as JSON; nothing is written then.
    StoreError
        If ``path`` is no store.
    """
    new = {key: value for key, value in attrs.items() if key != SPATIALDATA_ATTRS}
    check_json(new)
    root_document(path)
    with writer_lock(path, "writing attributes"):
        document = root_document(path)
        document["attributes"] |= new
        with staging_directory(path) as staging:
            staging.mkdir()
            kept = KeptRoot(path, staging)
            try:
                replace_root(path, document)
            except BaseException:
                kept.put_back()
                raise
        try_record_current(path)


def check_json(attrs: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` naming the first attribute that JSON cannot hold."""
    for key, value in attrs.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"attribute {key!r} cannot be stored as JSON ({error}); use str, int, finite float, list, dict."
            raise InputError(msg) from error
