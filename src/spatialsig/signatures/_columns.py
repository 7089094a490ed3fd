"""Further columns of a csv of signatures: signs and weights under another name are refused, others are named.

Floor 1, above the ground floor. Used by signatures/_read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig._checks import number_in
from spatialsig._text import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NEEDED = SIGNATURE, GENE = ("signature", "gene")
WEIGHT = "weight"
COLUMNS = (*NEEDED, WEIGHT)
_SIGN_NAMES = frozenset(("direction", "sign", "regulation", "effect", "change"))
_STRAND = frozenset(("strand", "orientation"))  # of the genome
MINUS = "-\u2212\u2013"  # of the keyboard, of mathematics, and the dash that text processors make of it
_SIGNS = (
    dict.fromkeys(("up", "+", "pos", "positive", "upregulated", "up-regulated", "increased", "high"), 1.0)
    | dict.fromkeys(("down", "dn", *MINUS, "neg", "negative", "downregulated", "down-regulated", "decreased", "low"), -1.0)
)  # fmt: skip


def other_columns(header: Sequence[str]) -> list[str]:
    """Names of columns that are not read."""
    return [name for name in header if name.lower() not in COLUMNS]


def check_other_columns(header: Sequence[str], rows: Mapping[int, Sequence[str]]) -> None:
    """Raise :class:`ValueError` where a column that is not read says that a gene counts as negative, which nothing else says."""
    columns = [name.lower() for name in header]
    for name in other_columns(header):
        place = header.index(name)
        signs = {line: _sign(row[place]) for line, row in rows.items() if row[place] and row[place] not in MISSING}
        if None in signs.values() or name.lower() in _STRAND or _says_nothing(name, rows, place):
            continue
        for line in (line for line, sign in signs.items() if sign is not None and sign < 0):
            gene = rows[line][columns.index(GENE)]
            weight = rows[line][columns.index(WEIGHT)] if WEIGHT in columns else ""
            if gene[-1:] not in MINUS and (_sign(weight) or 1) > 0:
                msg = (
                    f"column {name!r} holds signs or weights (line {line}: gene {gene!r}, {rows[line][place]!r}) and is not read, so "
                    f"that the gene would count as positive; call the column {WEIGHT!r}, with numbers such as 1 and -1, or remove it"
                )
                raise ValueError(msg)


def _says_nothing(name: str, rows: Mapping[int, Sequence[str]], place: int) -> bool:
    """Whether a column holds nothing but dashes, which mean that nothing is known, unless its name says otherwise."""
    return name.lower() not in _SIGN_NAMES and {row[place] for row in rows.values()} <= {"", *MINUS}


def _sign(text: str) -> float | None:
    """Number or sign that a field holds; None where it is another word."""
    found = _SIGNS.get(text.lower(), number(text))
    return None if isinstance(found, str) else found


def number(text: str) -> float | str:
    """Number that a field holds, with a point or a comma; or the field, which is then refused by name of its gene."""
    try:
        return number_in(text.replace(",", ".").replace("\u2212", "-"))
    except ValueError:
        return text
