"""Gene sets in any usual form read into ``{name: [genes]}``, or ``{name: {gene: weight}}`` where genes have signs or weights.

Floor 1, above the ground floor. Used by 8 modules of expression, pipeline, pl, report, signatures, tl.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from spatialsig._arguments import Key, checked
from spatialsig._checks import did_you_mean, first_few, warn
from spatialsig._known import what_is
from spatialsig._text import (
    check_alike,
    csv_rows,
    decoded,
    describe_mangled,
    distinct,
    near_misses,
    say_commented,
    trimmed,
    without_comments,
)
from spatialsig._yaml import read_yaml
from spatialsig.errors import FileMissingError, InputError
from spatialsig.signatures._columns import COLUMNS, MINUS, NEEDED, WEIGHT, check_other_columns, number, other_columns
from spatialsig.signatures._names import ENSEMBL

_SMALLEST = 1e-6  # weight; the largest is 1 / it
_SIGNED = re.compile(rf"(.*[^{MINUS}+])([{MINUS}+])")  # as in UCell: "CD3D+", "DCN-"
_GENE = re.compile(rf"(?!M\d)[A-Z][A-Z0-9]*(-[A-Z0-9]+)?(?<!\d{{5}})|{ENSEMBL.pattern}|[A-Z][a-z]{{1,5}}\d[a-z0-9]*")
_BETWEEN = frozenset(',;|"\t ')  # stand between genes, never in the name of one

Source: TypeAlias = Key | Path | Mapping[str, Sequence[str] | Mapping[str, Any]]
Genes: TypeAlias = list[str] | dict[str, float]


class _Told(dict[str, Genes]):
    """Sets that were read, whose spoilt names a warning has named: given to a function, they are not warned of again."""

    def __init__(self, sets: Mapping[str, Genes], told: Iterable[str]) -> None:
        super().__init__(sets)
        self.told = frozenset(told)


yaml.SafeDumper.add_representer(_Told, yaml.representer.SafeRepresenter.represent_dict)  # which knows plain dicts only


def builtin_names() -> list[str]:
    """Names of the sets that ship with spatialsig."""
    files = resources.files("spatialsig.signatures").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


@checked
def read_signatures(source: Source) -> dict[str, Genes]:
    """Read gene signatures from a mapping, a built-in set or a file into ``{name: [genes]}``.

    Genes that a signature lacks end in a minus (``"DCN-"``), others may end in a plus, as in UCell. Weights are given by a
    mapping, ``{"T cell": {"CD3D": 2, "DCN": -1}}``, or by the column ``weight`` of a csv. :func:`spatialsig.tl.score_cells`
    says which methods use them.

    Parameters
    ----------
    source
        A mapping of names to genes, or to weights by gene; the name of a built-in set (``"seed"``,
        ``"tumour_microenvironment"``); or a file: ``.gmt`` (name, description, genes; tab separated [1]_), ``.csv`` (columns
        ``signature`` and ``gene``, and ``weight`` where wanted, between commas, semicolons or tabs), ``.json`` or ``.yaml``
        (name to list of genes or to weights by gene, or the layout of the built-in sets).

    Returns
    -------
    Genes of each signature, duplicates removed, order kept: a list, or weights by gene where any has a sign or a weight.

    Raises
    ------
    FileMissingError
        If ``source`` is neither a built-in set nor a file.
    InputError
        If a signature is empty, a name stands there twice or differs from another in case or blanks only, a field holds
        several genes, a gene has two weights or one of 0, a GMT has genes where descriptions belong, or the file does not
        have the layout of its ending.

    Warns
    -----
    SpatialsigWarning
        If a spreadsheet has turned genes into dates (``1-Mar``), numbers or errors (``#NAME?``), or a csv has columns that
        are not read.

    References
    ----------
    .. [1] Broad Institute. GSEA data formats: gene matrix transposed (GMT).
       https://software.broadinstitute.org/cancer/software/gsea/wiki/index.php/Data_formats

    Examples
    --------
    >>> import spatialsig as sp
    >>> sp.io.read_signatures("seed")["Immune_B"]
    ['MS4A1', 'CD79A', 'CD79B', 'MZB1', 'BANK1']
    """
    if isinstance(source, Mapping):
        return _clean(source, where="the given mapping", told=getattr(source, "told", frozenset()))
    if str(source) in builtin_names():
        text = (resources.files("spatialsig.signatures") / f"{source}.json").read_text(encoding="utf-8")
        return _clean(_flat(json.loads(text)), where=str(source))
    path = Path(source)
    if not path.is_file():
        msg = f"signatures {str(source)!r}: no such file, and the built-in sets are {builtin_names()}.{did_you_mean(str(source), builtin_names())}"
        raise FileMissingError(msg)
    ending = path.suffix.lower()
    if ending not in _READERS:
        msg = f"signatures {path}: cannot read {path.suffix!r} files; use one of {sorted(_READERS)}.{what_is(path)}"
        raise InputError(msg)
    text = decoded(path)
    try:
        sets = _READERS[ending](text)
    except (ValueError, LookupError, StopIteration, yaml.YAMLError, AttributeError, TypeError, RecursionError) as error:
        msg = f"signatures {path}: not the layout of a {ending} file of gene sets ({error})."
        raise InputError(msg) from error
    if ending in (".csv", ".gmt"):
        say_commented(text, where=f"signatures {path}", table=ending == ".csv")
    if ending == ".csv" and (others := other_columns(csv_rows(text)[0])):
        warn(f"signatures {path}: columns {others} are not read; known are {[*COLUMNS]}.")
    return _clean(sets, where=str(path))


def _clean(sets: Mapping[Any, Any], *, where: str, told: frozenset[str] = frozenset()) -> dict[str, Genes]:
    cleaned: dict[str, Genes] = {}
    for raw_name, genes in sets.items():
        name = trimmed(str(raw_name))
        if not name or isinstance(raw_name, bool):
            named = (
                "has no name" if not name else f"is named {raw_name!r} (YAML reads NO, ON and YES so: put quotes there)"
            )
            msg = f"a signature of {where} {named}; give it one. Its genes: {genes!r}."
            raise InputError(msg)
        if name in cleaned:
            msg = f"{where} holds signature {name!r} twice; give each a name of its own, or join their genes."
            raise InputError(msg)
        listed = isinstance(genes, Iterable) and not isinstance(genes, str)
        if not (listed and all(isinstance(gene, str) for gene in genes)):
            truth = listed and any(isinstance(gene, bool) for gene in genes)
            hint = " YAML reads NO, ON and YES as true and false: put quotes around them." if truth else ""
            msg = f"signature {name!r} of {where}: wanted a list of gene names, or weights by gene name, got {genes!r}.{hint}"
            raise InputError(msg)
        try:
            cleaned[name] = _weighted(genes)
        except ValueError as error:
            msg = f"signature {name!r} of {where}: {error}."
            raise InputError(msg) from None
        joined = [gene for gene in cleaned[name] if set(gene) & _BETWEEN]
        if joined:
            msg = f"signature {name!r} of {where}: {joined[0]!r} holds several names; wanted one gene in each field."
            raise InputError(msg)
        if not cleaned[name]:
            msg = f"signature {name!r} of {where} has no genes."
            raise InputError(msg)
    if not cleaned:
        msg = f"{where} holds no signatures ({dict(sets)}); wanted at least one, with its genes."
        raise InputError(msg)
    check_alike(cleaned, what=f"signatures of {where}:")
    for name, genes in cleaned.items():
        if mangled := describe_mangled(gene for gene in genes if gene not in told):
            warn(f"signature {name!r} of {where}: {mangled}")
    return _Told(cleaned, [*told, *(gene for genes in cleaned.values() for gene in genes if describe_mangled([gene]))])


def _weighted(genes: Iterable[str] | Mapping[str, Any]) -> Genes:
    """Weights by gene where one has a sign or a weight, else the genes; raises :class:`ValueError` where they contradict."""
    pairs = genes.items() if isinstance(genes, Mapping) else [(gene, 1.0) for gene in genes]
    found: dict[str, float] = {}
    for text, given in pairs:
        gene, sign = match.groups() if (match := _SIGNED.fullmatch(trimmed(text))) else (trimmed(text), "")
        if not gene:
            continue
        if {gene[0], gene[-1]} & {"+", *MINUS}:
            msg = f"{gene!r} is no gene with a sign; wanted one such as 'DCN-'"
            raise ValueError(msg)
        if not _is_weight(given):
            msg = f"gene {gene!r} has the weight {given!r}; wanted a number from {_SMALLEST:g} to {1 / _SMALLEST:g}, or minus such a one"
            raise ValueError(msg)
        if sign and given != 1:
            msg = f"gene {text!r} has the sign {sign!r} and the weight {given:g}; write one of them"
            raise ValueError(msg)
        weight = -1.0 if sign and sign in MINUS else float(given)
        if found.setdefault(gene, weight) != weight:
            msg = f"gene {gene!r} has the weights {found[gene]:g} and {weight:g}; wanted one"
            raise ValueError(msg)
    return found if any(weight != 1 for weight in found.values()) else list(found)


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and _SMALLEST <= abs(float(value)) <= 1 / _SMALLEST


def _flat(loaded: Any) -> dict[str, Any]:
    sets = loaded.get("signatures", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(sets, Mapping):
        msg = f"it holds a {type(sets).__name__}; wanted names of signatures, each with its genes"
        raise ValueError(msg)
    return {name: _genes_in(entry) for name, entry in sets.items()}


def _genes_in(entry: Any) -> Any:
    """Genes of an entry of the built-in layout; another one is genes or weights itself."""
    genes = entry.get("genes") if isinstance(entry, Mapping) else None
    return entry if genes is None or isinstance(genes, Real) else genes


def _read_gmt(text: str) -> dict[str, Any]:
    lines = without_comments(text).splitlines()
    rows = [[_unquoted(field) for field in line.split("\t")] for line in lines if trimmed(line)]
    sets = distinct((row[0], row[2:]) for row in rows)
    _check_descriptions(rows)
    return sets


def _unquoted(field: str) -> str:
    """Field without the quotes that a spreadsheet puts around it."""
    field = trimmed(field)
    return trimmed(field[1:-1]) if len(field) > 1 and field[0] == field[-1] and field[0] in "\"'" else field


def _check_descriptions(rows: list[list[str]]) -> None:
    """The second field of a GMT describes the set; where it is a gene, that gene would be lost."""
    second = [row[1] for row in rows if len(row) > 1 and row[1] not in (row[0], "")]
    if len(set(second)) == 1 < len(rows):
        return  # one source of all
    genes = {gene for row in rows for gene in row[2:]} | _builtin_genes()
    alike = [field for field in second if _GENE.fullmatch(field)]
    # words in capitals, such as names of databases, have no digits; first genes of sets mostly do
    every = len(alike) == len(rows) and 2 * sum(any(map(str.isdigit, field)) for field in alike) >= len(rows)
    found = alike if every else [field for field in second if field in genes]
    if found:
        msg = (
            f"the second field of a set is its description, but {first_few(found)} is a gene: put `na` between the name and the "
            "genes of every set"
        )
        raise ValueError(msg)


@cache
def _builtin_genes() -> frozenset[str]:
    return frozenset(gene for name in builtin_names() for genes in read_signatures(name).values() for gene in genes)


def _read_csv(text: str) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    header, rows = csv_rows(text)
    columns = [column.lower() for column in header]
    if wanted := [column for column in NEEDED if column not in columns]:
        near = near_misses(columns, NEEDED)
        meant = "".join(f"; did you mean {right!r} by {name!r}?" for name, right in near.items())
        msg = f"there is no column {wanted[0]!r}, only {header}{meant}"
        raise ValueError(msg)
    if near := near_misses(columns, COLUMNS):
        name, right = next(iter(near.items()))
        msg = f"column {name!r} is not known; did you mean {right!r}?"
        raise ValueError(msg)
    check_other_columns(header, rows)
    places = [columns.index(column) for column in NEEDED]
    for line, row in rows.items():
        signature, gene = (row[place] for place in places)
        if not (signature and gene):
            msg = f"line {line} has no {'gene' if signature else 'signature'}"
            raise ValueError(msg)
        if WEIGHT not in columns:
            sets.setdefault(signature, []).append(gene)
            continue
        text = row[columns.index(WEIGHT)]
        weight = number(text)
        if repr(sets.setdefault(signature, {}).setdefault(gene, weight)) != repr(weight):
            msg = f"line {line} gives gene {gene!r} of {signature!r} another weight than a line before, {text!r}"
            raise ValueError(msg)
    return sets


def _read_json(text: str) -> dict[str, Any]:
    return _flat(json.loads(text, object_pairs_hook=distinct))


def _read_yaml(text: str) -> dict[str, Any]:
    return _flat(read_yaml(text))


_READERS = {".gmt": _read_gmt, ".csv": _read_csv, ".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
