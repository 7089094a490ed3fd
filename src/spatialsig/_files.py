"""Text and JSON files: replaced whole or not at all, and read with errors that name the file."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace a file by another content: a reader sees the old one or the new one, whole; its directory must exist."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_entry(path.parent)


def flush_entry(path: Path) -> None:
    """Bring a file, or the entries of a directory (the renames in it), to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path, kind: type | None = None, *, fix: str, max_bytes: int | None = None) -> Any:
    """Value of a JSON file that is there.

    Raises :class:`InputError`, whose text ends with ``fix``, for a file of more than ``max_bytes`` (left unread), one
    that is not JSON, and a value that is no ``kind``.
    """
    if max_bytes is not None and (size := path.stat().st_size) > max_bytes:
        msg = f"{path} has {size} bytes; at most {max_bytes} are read. {fix}"
        raise InputError(msg)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not JSON: {error}. {fix}"
        raise InputError(msg) from error
    if kind is not None and not isinstance(value, kind):
        msg = f"{path} holds a {type(value).__name__}; wanted a {kind.__name__}. {fix}"
        raise InputError(msg)
    return value


def object_or_empty(path: Path) -> dict[str, Any]:
    """Object of a JSON file; empty where the file is missing, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
