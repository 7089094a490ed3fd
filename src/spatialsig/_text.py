"""Text that people write in other programs: decoded, trimmed, split into columns, and names that look alike refused.

Ground floor. Used by 24 modules of 12 rooms.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import re
import unicodedata
from io import StringIO
from typing import TYPE_CHECKING, Any

from spatialsig._checks import first_few, plain_name
from spatialsig._files import content_hint
from spatialsig._progress import say
from spatialsig.errors import InputError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

# words that programs write for what is missing, as pandas takes them
MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|NaT|None|n/a|nan|null".split("|")
)
# byte order mark, spaces of no width, soft hyphen, marks and embeddings of the direction of writing
_INVISIBLE = (
    "\ufeff\u200b\u200c\u200d\u2060\u00ad\u061c\u180e\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_UNSEEN = dict.fromkeys(map(ord, _INVISIBLE))
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what Excel calls "Unicode text"
_HEAD = 1000  # bytes by which text is told
_LINE_END = re.compile("\r\n?|\n")
_DELIMITERS = (",", ";", "\t")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
# short names of months as Excel writes them in German, French, Spanish, Italian, Portuguese, Dutch, Polish and Scandinavian
_OTHER_MONTHS = (
    "Mrz|Mär|Mai|Okt|Dez|janv|févr|mars|avr|juin|juil|août|sept|déc|ene|abr|ago|dic|gen|mag|giu|lug|set|ott|fev|out|mrt|mei"
    "|sty|lut|kwi|maj|cze|lip|sie|wrz|paź|lis|gru|des"
)
# what Excel makes of gene names such as MARCH1, SEPT2 and 2310009E13
_MANGLED = re.compile(
    rf"\d{{1,2}}[-/. ]({_MONTHS})([-/. ]\d{{2,4}})?|({_MONTHS})[-/. ]\d{{1,4}}|\d{{4}}-\d\d-\d\d( .*)?"
    rf"|\d{{1,2}}(-|/|\. ?)({_MONTHS}|{_OTHER_MONTHS})\.?([-/. ]\d{{2,4}})?|(\d{{4}}年)?\d{{1,2}}月\d{{1,2}}日"
    r"|\d{1,2}(?P<sign>[/.])\d{1,2}(?P=sign)\d{2,4}|\d[.,]\d+E\+\d+|#[^\s!?]+[!?]|#N/?[ADV]"
    r"|TRUE|FALSE|(?-i:WAHR|FALSCH|VRAI|FAUX|VERDADERO|FALSO|VERO|VERDADEIRO|WAAR|ONWAAR)",
    re.I,
)
_NUMBER = re.compile(r"0*(\d+)(\.0*)?")  # of which a spreadsheet drops and adds zeros
_SEPARATOR = re.compile(r'"?sep=(.)"?')  # first line by which Excel says what stands between columns


def decoded(path: Path | zipfile.Path) -> str:
    """Text of a file, also of one in a zip, without its byte order mark.

    Raises
    ------
    InputError
        If it is neither UTF-8 nor UTF-16, or a directory.
    """
    if path.is_dir():
        msg = f"{str(path)!r} is a directory; give the path of a text file."
        raise InputError(msg)
    data = path.read_bytes()
    try:
        if (unmarked := _unmarked_utf16(data)) is not None:
            return unmarked
        # two bytes can begin anything: text in a table has at least one plain letter
        wide = data.startswith(_UTF16) and any(map(str.isascii, data.decode("utf-16", "ignore")))
        text = data.decode("utf-16" if wide else "utf-8-sig")
        _refuse_zeros(text)
    except ValueError as error:  # of which what a codec raises is one
        hint = content_hint(path, by_name=False) or " Save it as UTF-8 (in Excel: 'CSV UTF-8')."
        msg = f"{str(path)!r} is not UTF-8 text ({error}).{hint}"
        raise InputError(msg) from error
    return text


def _refuse_zeros(text: str) -> None:
    if (place := text.find("\0")) >= 0:
        msg = f"byte {place} is 0, as in a file that was not written to its end"
        raise ValueError(msg)


def _unmarked_utf16(data: bytes) -> str | None:
    """Text in UTF-16 that no mark announces: of plain letters, every second byte is 0."""
    head = data[:_HEAD]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 3 < len(head) or not head:
        return None
    text = data.decode("utf-16-le" if odd > even else "utf-16-be")
    plain = text[:_HEAD].replace("\r", "").replace("\n", "").replace("\t", "")
    return text if plain.isprintable() else None


def counted(n: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "slide"), counted(3, "slide")
    ('1 slide', '3 slides')
    """
    return f"{n} {noun}{'' if n == 1 else 's'}"


def composed(text: str) -> str:
    r"""Text in which an accent is part of its letter, as most programs write it; macOS and some others keep two characters.

    >>> len("e\u0301"), len(composed("e\u0301"))
    (2, 1)
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def trimmed(text: str) -> str:
    """Text without blanks at its ends, those that are not seen included, and with accents as part of their letters."""
    before, text = None, composed(text)
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
    """Character between the columns of a csv: as its first line ``sep=;`` says, or by its header, a comma unless there is none."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    if said := _SEPARATOR.fullmatch(header.strip()):
        return said[1]
    fields = {delimiter: len(next(csv.reader([header], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: fields[delimiter])


def csv_rows(text: str) -> tuple[list[str], dict[int, list[str]]]:
    """Header of a csv, and its rows by the number of their line; lines and columns that are all empty are left out.

    Raises :class:`ValueError` naming the lines that have another number of fields than the header, and columns of one name.
    """
    text = without_comments(text, quoted=True)
    reader = csv.reader(StringIO(text), delimiter=delimiter_of(text), strict=True)
    try:
        rows = dict((reader.line_num, [trimmed(field) for field in row]) for row in reader)  # noqa: C402
    except csv.Error as error:
        msg = f"line {reader.line_num}: {error}"
        raise ValueError(msg) from error
    rows = {line: row for line, row in rows.items() if any(row)}
    if rows and _SEPARATOR.fullmatch(text.lstrip().partition("\n")[0].strip()):
        del rows[min(rows)]
    if not rows:
        msg = "it is empty"
        raise ValueError(msg)
    header = _without_end(rows.pop(min(rows)))
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        msg = f"column(s) {repeated} stand there twice; give each a name of its own"
        raise ValueError(msg)
    ragged = [line for line, row in rows.items() if not len(_without_end(row)) <= len(header) <= len(row)]
    if ragged:
        msg = f"line(s) {ragged[:5]} have {len(rows[ragged[0]])} field(s), the header has {len(header)}; complete them"
        raise ValueError(msg)
    names = [name or f"column {place}" for place, name in enumerate(header, 1)]
    return names, {line: row[: len(names)] for line, row in rows.items()}


def without_comments(text: str, *, quoted: bool = False) -> str:
    """The same lines, empty where they are comments: those that begin with ``#``, but with no error of a spreadsheet.

    With ``quoted``, as in csv, a line that begins within a field in quotes is part of it.
    """
    return "\n".join("" if is_comment else line for line, is_comment in _marked(text, quoted=quoted))


def say_commented(text: str, *, where: str, table: bool = True) -> None:
    """Say how many comments are a row but for the ``#``: with as many fields as the header of a table, or those of a set in a GMT."""
    marked, mark = list(_marked(text, quoted=table)), delimiter_of(text) if table else "\t"
    first = next((line for line, is_comment in marked if line.strip() and not is_comment), "")
    fewest, most = (max(2, n := _n_fields(first, mark)), n) if table else (3, len(text))
    if n := sum(is_comment and fewest <= _n_fields(line, mark) <= most for line, is_comment in marked):
        say(f"{where}: {counted(n, 'row')} commented out with '#', left out")


def _n_fields(line: str, mark: str) -> int:
    return len(next(csv.reader([line], delimiter=mark), []))


def _marked(text: str, *, quoted: bool) -> Iterator[tuple[str, bool]]:
    """Lines, and whether each is a comment."""
    mark, within = delimiter_of(text), False
    for line in _LINE_END.split(text):  # `splitlines` would also cut a field at signs that csv keeps
        is_comment = not within and _is_comment(line, mark)
        yield line, is_comment
        if quoted and not is_comment:
            within = _ends_within(line, mark, within=within)


def _ends_within(line: str, mark: str, *, within: bool) -> bool:
    """Whether a line ends in a field in quotes that goes on in the next; quotes count where a field begins with one."""
    begins = True
    for sign in line:
        if sign == '"' and (within or begins):
            within = not within
            begins = True  # two quotes stand for one, and the field goes on
        else:
            begins = not within and sign == mark
    return within


def _is_comment(line: str, mark: str) -> bool:
    first = trimmed(line.partition(mark)[0].partition("\t")[0])
    return first.startswith("#") and not is_mangled(first)


def _without_end(row: list[str]) -> list[str]:
    """The same fields without the empty ones at the end."""
    return row[: max((place for place, field in enumerate(row, 1) if field), default=0)]


def distinct(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Mapping of pairs, as readers of JSON find them; :class:`ValueError` where a name stands there twice and the last would win."""
    mapping: dict[Any, Any] = {}
    for name, value in pairs:
        if name in mapping:
            msg = f"{name!r} stands there twice"
            raise ValueError(msg)
        mapping[name] = value
    return mapping


def near_misses(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Names that are a known one but for case, blanks and signs, or nearly one that is not there: name -> the known one."""
    names = list(names)
    plain = {plain_name(name): name for name in known}
    absent = {key: name for key, name in plain.items() if name not in names}
    near = {}
    for name in (name for name in names if name not in known):
        key = plain_name(name)
        close = difflib.get_close_matches(key, absent, n=1, cutoff=0.8)
        if key in plain or close:
            near[name] = plain[key if key in plain else close[0]]
    return near


def check_alike(
    names: Iterable[str], *, what: str, holders: Sequence[str] = (), fix: str = "write them the same way"
) -> None:
    """Raise :class:`InputError` naming two of the names that look the same but for case, blanks, or zeros of a number.

    ``holders`` says what has each of them, such as ``"line 3"``; ``fix`` what to do where the two are one.
    """
    names = list(names)
    seen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        key = _as_seen(unicodedata.normalize("NFKC", name))
        number = _NUMBER.fullmatch(key)
        other = seen.setdefault(number[1] if number else key, name)
        if other != name:
            how = "are one number" if number else "differ in upper and lower case or in blanks only"
            if not number and _as_seen(name) != _as_seen(other):
                how += f", or in characters that look alike ({other!a}, {name!a})"
            held = f" ({holders[names.index(other)]} and {holders[names.index(name)]})" if holders else ""
            msg = f"{what} {[other, name]}{held} {how}. If they are one, {fix}; if not, give them names that cannot be confused."
            raise InputError(msg)


def _as_seen(name: str) -> str:
    """Name without case and blanks."""
    return "".join(name.casefold().translate(_UNSEEN).split())


def is_mangled(name: str) -> bool:
    """Whether a spreadsheet turned a name into a date, a number with an exponent, a truth value or an error."""
    return _MANGLED.fullmatch(name) is not None


def describe_mangled(names: Iterable[str]) -> str:
    """Sentence that names genes which a spreadsheet turned into dates or numbers, and the fix; empty where there are none."""
    mangled = [name for name in names if is_mangled(name) or name.isdecimal()]  # 44256: a date as a number
    if not mangled:
        return ""
    return (
        f"{len(mangled)} gene name(s) were turned into dates or numbers by a spreadsheet: {first_few(mangled)} (1-Mar was "
        "MARCHF1 or MTARC1, 2-Sep SEPTIN2). Write them back, and import such columns as text."
    )
