"""Files: replaced whole or not at all, and written and read with errors that name them.

Ground floor. Used by 63 modules of 19 rooms.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._paths import behind_links
from spatialsig.errors import InputError, SpatialsigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pandas as pd
    from torch import Tensor

FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG})
NOT_WRITABLE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM}
# what damaged bytes raise in numpy, zarr, tifffile, imagecodecs, openslide, and in networks that are built from wrong numbers
DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
)
_CODE = re.compile(r"os error (\d+)")  # in a message of Rust
_HDF5 = re.compile(r"\berrno = (\d+)")
_ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")  # a directory with one of these is a node of a store
_LOOKED_AT = 4096  # bytes
# beginning of a file, in small letters -> what it is, and the names under which it is at home
_CONTENT = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file: fetch the file with `git lfs pull`", ()),
    (b"<!doctype html", "a web page, as a failed download leaves it: download the file again", ()),
    (b"<html", "a web page, as a failed download leaves it: download the file again", ()),
    (b"\x1f\x8b", "compressed with gzip: unpack it", (".gz", ".tgz")),
    (b"bzh", "compressed with bzip2: unpack it", (".bz2",)),
    (b"\xfd7zxz", "compressed with xz: unpack it", (".xz",)),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it", (".zst",)),
    (b"pk\x03\x04\x14\0\x06\0", "a workbook of Excel: save its sheet as 'CSV UTF-8'", ()),
    (b"pk\x03\x04", "a zip (or a workbook of Excel: save its sheet as 'CSV UTF-8'): unpack it", (".zip",)),
    (b"\x89hdf", "an HDF5 file", (".h5", ".h5ad")),
    (b"par1", "a parquet file", (".parquet",)),
    (b"\xff\xd8\xff", "a JPEG: export the image, or give the file its right ending", (".jpg", ".jpeg")),
    (b"\x89png", "a PNG: export the image, or give the file its right ending", (".png",)),
    (b"%pdf", "a PDF: export the image", (".pdf",)),
)


def of_disk(error: BaseException | None) -> OSError | None:
    """What the disk said, where that made a library raise ``error``."""
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, SpatialsigError):
            said = _HDF5.search(str(error))
            if error.errno is not None or said is None:
                return error
            return OSError(int(said[1]), os.strerror(int(said[1])))
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def writing(target: str | os.PathLike[str], *, codes: Collection[int] = ()) -> Iterator[None]:
    """Turn what a full or read-only disk raises while ``target`` is written into a :class:`StoreError` that names it.

    With ``codes`` only errors of these numbers: where files are also read meanwhile, others have names of their own.
    """
    try:
        yield
    except SpatialsigError:
        raise
    except Exception as error:
        said = of_disk(error)
        # a library that was stopped by the disk may raise something else when it tidies up
        known = codes if codes or isinstance(error, OSError) else NOT_WRITABLE
        if said is None or (known and said.errno not in known):
            raise
        fix = "Free some space on the disk" if said.errno in FULL else "Choose a place that you may write to"
        where = f" ({said.filename!r})" if said.filename else ""
        msg = f"{os.fspath(target)!r} cannot be written: {said.strerror or said}{where}. {fix}; what was there before is kept."
        failure = StoreError(msg)
        failure.errno = said.errno
        raise failure from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give another path to write to, which takes the place of ``path`` once it is whole and on the disk.

    A link stays, and what it leads to is replaced. Raises :class:`StoreError` where something else than a file is there.
    """
    path = behind_links(path)
    if path.exists() and not path.is_file():
        what = "is a folder" if path.is_dir() else "is a pipe, a socket or a device"
        msg = f"{str(path)!r} {what}, which a file would replace; choose another name."
        raise StoreError(msg)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            flush_entry(partial)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        flush_entry(path.parent)


@contextmanager
def draft_beside(directory: Path) -> Iterator[Path]:
    """Directory beside another, gone afterwards whatever happens, with what lies in it then."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def clear_drafts(directory: Path) -> None:
    """Remove what a process that was killed in :func:`draft_beside` left; no other may be at work on ``directory``."""
    left = re.compile(rf"\.{re.escape(directory.name)}\.[a-z0-9_]{{8}}")  # as `mkdtemp` names them
    for place in directory.parent.iterdir() if directory.parent.is_dir() else ():
        if left.fullmatch(place.name) and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)


def check_begins(path: Path, start: bytes, *, what: str, fix: str) -> None:
    """Raise :class:`StoreError` where a file would take the place of another that does not begin as ``what`` does.

    ``fix`` follows on the advice to move what is there.
    """
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(start)) == start:
                return
    msg = f"{path} is not {what}, which would take its place: move it, {fix}."
    raise StoreError(msg)


def check_target(path: Path, endings: Collection[str], *, name: str = "path") -> None:
    """Refuse a file to write that has another ending, is a directory, or lies in a Zarr store, of which it would become a part.

    Raises
    ------
    InputError
        Naming the argument ``name``.
    """
    if path.is_dir():
        better = path / f"{path.name or 'result'}{next(iter(endings))}"
        msg = f"`{name}={str(path)!r}` is a directory; wanted the file to write, such as {str(better)!r}."
        raise InputError(msg)
    if not path.name.lower().endswith(tuple(endings)):
        msg = f"`{name}={str(path)!r}` ends with {path.suffix!r}; wanted *{', *'.join(endings)}."
        raise InputError(msg)
    for parent in behind_links(path).absolute().parents:
        if any((parent / mark).is_file() for mark in _ZARR):
            msg = f"`{name}={str(path)!r}` lies in the Zarr store {str(parent)!r}; write the file beside it."
            raise InputError(msg)


def write_text(path: Path, text: str) -> None:
    """Replace a file by another content: a reader sees the old one or the new one, whole."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame, *, index: bool = False) -> None:
    """Replace a csv file by a table."""
    with replaced(path) as partial:
        table.to_csv(partial, index=index)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whose own error of a disk is an ``OSError`` here as that of every other file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        code = _CODE.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def flush_entry(path: Path) -> None:
    """Bring a file, or the entries of a directory (the renames in it), to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_hint(path: Any, *, by_name: bool = True) -> str:
    """Sentence with a blank before it on what a file that cannot be read is instead; empty where its first bytes do not say.

    With ``by_name`` it is also empty where the name of the file says it: the file is as it should be.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
    except OSError:
        return ""
    if start and not any(start):
        return " It begins with zeros, as a copy does that was not finished."
    lower = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what, suffixes in _CONTENT:
        if lower.startswith(beginning) and not (by_name and path.name.lower().endswith(suffixes)):
            return f" It is {what}."
    return ""


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
