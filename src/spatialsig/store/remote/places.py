"""A store of another machine as a place that files are fetched from; whatever a backend raises names the address and the fix.

No backend of fsspec has the renames and locks that our commits rest on, so that nothing is ever written to an address.

Floor 1, above the ground floor. Used by io/_store, store/remote/pixels, store/remote/reading.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from spatialsig.errors import FileMissingError, InputError, SpatialsigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REQUESTS = 16  # at a time: a request waits for the network, not for a processor
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class Place:
    """Where a store of another machine is."""

    address: str  # with a scheme, without a slash at its end
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of the backend: keys, endpoint

    def __post_init__(self) -> None:
        if "?" in self.address or "#" in self.address:
            msg = (
                f"address {self.name!r} holds a '?' or a '#', behind which no file of a store can be named; wanted the address "
                "of its folder alone: give what opens it as `storage_options`."
            )
            raise InputError(msg)

    @property
    def scheme(self) -> str:
        """What stands before the colon."""
        return self.address.partition(":")[0]

    @property
    def name(self) -> str:
        """Address without a password, for messages."""
        return re.sub(r"//[^/@]*@", "//***@", self.address)

    def fetch(self, file: str) -> bytes | None:
        """Content of a file of the store; None where there is none."""
        with reaching(self):
            files, root = _connected(self, os.getpid())
        with reaching(self, file):
            path = f"{root}/{quote(file) if self.scheme in ('http', 'https') else file}"
            try:
                return bytes(files.cat_file(path))
            except _NO_FILE:
                return None

    def fetch_all(self, files: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """As :meth:`fetch`, of many files at once, in their order."""
        files = list(files)
        with ThreadPoolExecutor(REQUESTS) as pool:
            yield from zip(files, pool.map(self.fetch, files), strict=True)


@lru_cache(maxsize=16)
def _connected(place: Place, _pid: int) -> tuple[Any, str]:
    """File system of fsspec, and the path of the store in it: connections do not survive a fork."""
    import fsspec

    files, root = fsspec.url_to_fs(place.address, **place.options)
    return files, str(root).rstrip("/")


@contextmanager
def reaching(place: Place, part: str = "") -> Iterator[None]:
    """Read from a place inside; an error of its backend becomes one that names the address, the part and what to do."""
    where = f"{place.name}/{part}" if part else place.name
    try:
        yield
    except (SpatialsigError, *_NO_FILE) as error:
        if isinstance(error, SpatialsigError):
            raise
        msg = f"{where!r} is not there (any more): check the address, or copy the store to that place again."
        raise FileMissingError(msg) from error
    except Exception as error:
        msg = f"{where!r} cannot be read: {_why(place, error)}"
        raise StoreError(msg) from error


def _why(place: Place, error: Exception) -> str:
    said = re.sub(r"//[^/@\s]*@", "//***@", str(error)).splitlines()
    what = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
    if isinstance(error, ImportError):
        package = _PACKAGES.get(place.scheme)
        install = "pip install 'spatialsig[remote]'" if package in ("aiohttp", "s3fs") else f"pip install {package}"
        fix = f"{install}." if package else f"install what fsspec needs for {place.scheme}://."
        return f"addresses with {place.scheme}:// need a package that is not installed ({what}): {fix}"
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        return f"fsspec knows no {place.scheme}://; use one of s3://, gs://, https://, or a path of this machine."
    if isinstance(error, TypeError) and "keyword argument" in what and place.options:
        return f"{what}. `storage_options` are {sorted(place.options)}; give those that the backend of {place.scheme}:// takes, or none."
    if isinstance(error, PermissionError) or "credentials" in what.lower():
        return f"access is refused ({what}). Give keys as `storage_options` ({{'anon': True}} for an open bucket of S3), or in fsspec's own configuration."
    return (
        f"{what}. Check the address and the connection, and try again; if it stays so, what lies there is damaged: copy the "
        "store to that place again, or to this machine."
    )
