"""Paths: those of this machine, and what the links in them lead to.

Ground floor. Used by 11 modules of _arguments, _files, cli, io, models, store, whole_slides.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from pathlib import Path
from typing import TypeVar

from spatialsig.errors import FileMissingError, StoreError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two characters at least: `C:/` is a disk
_PathLike = TypeVar("_PathLike", bound=str | Path)


def local_path(path: _PathLike) -> _PathLike:
    """Path of this machine that is meant: ``~`` is the home of the user, and ``file://`` before it goes.

    Raises ``ValueError`` with what is wrong and what is wanted for the address of another machine, a name that is not
    UTF-8, and a link that leads back to itself; :class:`FileMissingError` where the folder of work was deleted, or a folder is a
    link to what is not there.
    """
    text = _here(str(path))
    if "\0" in text:
        msg = "a path without a zero byte, which no name can hold"
        raise ValueError(msg)
    home = os.path.expanduser(text)
    if (
        home == text
        and re.match(r"~[^/\\]+[/\\]", text)
        and not os.path.exists(re.split(r"[/\\]", text, maxsplit=1)[0])
    ):
        msg = "a path that exists: there is no user of that name, whose home `~` would be; write the folder out"
        raise ValueError(msg)
    try:
        whole = os.path.abspath(home)
        whole.encode()
        os.stat(whole)
    except UnicodeEncodeError:
        msg = (
            "a path whose every part is UTF-8, as stores, tables and models keep no others: rename that file or folder"
        )
        raise ValueError(msg) from None
    except FileNotFoundError as error:
        if error.filename is None:  # of `getcwd`
            msg = "the folder that Python works in no longer exists; change to another, for example with `os.chdir`."
            raise FileMissingError(msg) from error
        lost = [place for place in Path(whole).parents if place.is_symlink() and not place.exists()]
        if lost:  # writing would make what it led to, and the folders above it
            raise FileMissingError(_lost(lost[0])) from error
        home = _as_it_lies(whole) or home
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = "a path that leads somewhere: it is a link that leads back to itself; remove or mend the link"
            raise ValueError(msg) from error
        if error.errno == errno.ENAMETOOLONG:
            msg = "a path whose every part has at most 255 bytes, as file systems want it: choose a shorter name"
            raise ValueError(msg) from error
    return path if home == str(path) else type(path)(home)


def _as_it_lies(path: str) -> str:
    """A path that is there in another form of its characters (an accent of its own, or part of its letter); empty without one."""
    place = Path(path)
    found = Path(place.anchor)
    for part in place.parts[1:] if not path.isascii() else ():
        if not (found / part).exists():
            plain = unicodedata.normalize("NFC", part)
            names = os.listdir(found) if found.is_dir() and not part.isascii() else []
            part = next((name for name in names if unicodedata.normalize("NFC", name) == plain), part)
        found /= part
    return str(found) if found.exists() and not path.isascii() else ""


def _here(text: str) -> str:
    """Path without ``file://``; refuses the address of another machine."""
    found = _ADDRESS.match(text)
    if found is None:
        return text
    scheme = found[1].lower()
    if scheme == "file":
        from urllib.parse import urlsplit
        from urllib.request import url2pathname  # takes longer to import than all else here

        address = urlsplit(text)  # a `Path` has lost one slash, which makes no difference here
        if address.netloc in ("", "localhost"):
            return url2pathname(address.path)
    msg = (
        f"a path of this machine, and {scheme}:// is an address: copy the data here, or mount the place as a folder; "
        "the store of a slide is read from there by `sp.io.read`, what is made of it stays in memory, and `sp.io.write` "
        "saves it in a store of this machine"
    )
    raise ValueError(msg)


def as_address(path: str | Path) -> str | None:
    """Address of another machine with both its slashes, of which a ``Path`` keeps one; None for a path of this machine."""
    found = _ADDRESS.match(str(path))
    if found is None or found[1].lower() == "file":
        return None
    return f"{found[1].lower()}://{str(path)[found.end() :].strip('/')}"


def behind_links(path: Path) -> Path:
    """The file or folder that is meant, which is written while the links that lead to it stay.

    Raises :class:`StoreError` for a link that leads nowhere: what it led to may be on a disk that is not mounted.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a circle of links is a `RuntimeError` up to Python 3.12
        raise StoreError(_lost(path)) from error


def _lost(link: Path) -> str:
    return f"{str(link)!r} is a link to {os.readlink(link)!r}, which is not there: mount its disk, or mend or remove the link."
