"""Text that people write in other programs: decoded, trimmed, split into columns, and names that look alike refused."""

from __future__ import annotations

import codecs
import csv
import re
from typing import TYPE_CHECKING

from spatialsig._checks import first_few
from spatialsig.errors import InputError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterable
    from pathlib import Path

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"  # byte order mark, spaces of no width, soft hyphen
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what Excel calls "Unicode text"
_DELIMITERS = (",", ";", "\t")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
# what Excel makes of gene names such as MARCH1, SEPT2 and 2310009E13
_MANGLED = re.compile(
    rf"\d{{1,2}}[-/. ]({_MONTHS})|({_MONTHS})[-/. ]\d{{1,4}}|\d{{4}}-\d\d-\d\d( .*)?|\d\.\d+E\+\d+", re.I
)


def decoded(path: Path | zipfile.Path) -> str:
    """Text of a file, also of one in a zip, without its byte order mark.

    Raises
    ------
    InputError
        If it is neither UTF-8 nor marked UTF-16.
    """
    data = path.read_bytes()
    try:
        # two bytes can begin anything: text in a table has at least one plain letter
        wide = data.startswith(_UTF16) and any(map(str.isascii, data.decode("utf-16", "ignore")))
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{str(path)!r} is not UTF-8 text ({error}); save it as UTF-8 (in Excel: 'CSV UTF-8')."
        raise InputError(msg) from error


def trimmed(text: str) -> str:
    """Text without blanks at its ends, those that are not seen included."""
    before = None
    while text != before:
        before, text = text, text.strip().strip(_INVISIBLE)
    return text


def as_name(value: object) -> str:
    """Value of a table as the name it stands for: a whole number without the ``.0`` that missing numbers beside it cause.

    >>> as_name(7.0), as_name(" P1 ")
    ('7', 'P1')
    """
    return trimmed(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def delimiter_of(text: str) -> str:
    """Character between the columns of a csv, by its first line: a comma unless there is none."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    fields = {delimiter: len(next(csv.reader([header], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: fields[delimiter])


def check_alike(names: Iterable[str], *, what: str) -> None:
    """Raise :class:`InputError` naming two of the names that differ only in upper and lower case or in blanks."""
    seen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        other = seen.setdefault("".join(trimmed(name).casefold().split()), name)
        if other != name:
            msg = (
                f"{what} {[other, name]} differ in upper and lower case or in blanks only. If they are one, write them the "
                "same way; if not, give them names that cannot be confused."
            )
            raise InputError(msg)


def describe_mangled(names: Iterable[str]) -> str:
    """Sentence that names genes which a spreadsheet turned into dates or numbers, and the fix; empty where there are none."""
    mangled = [name for name in names if _MANGLED.fullmatch(name)]
    if not mangled:
        return ""
    return (
        f"{len(mangled)} gene name(s) were turned into dates or numbers by a spreadsheet: {first_few(mangled)} (1-Mar was "
        "MARCHF1 or MTARC1, 2-Sep SEPTIN2). Write them back, and import such columns as text."
    )
