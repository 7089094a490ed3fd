"""Gene sets in any usual form read into ``{name: [genes]}``."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from spatialsig._text import check_alike, decoded, delimiter_of, describe_mangled, trimmed
from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning

Source = str | Path | Mapping[str, Sequence[str]]


def builtin_names() -> list[str]:
    """Names of the sets that ship with spatialsig."""
    files = resources.files("spatialsig.signatures").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def read_signatures(source: Source) -> dict[str, list[str]]:
    """Read gene signatures from a mapping, a built-in set or a file into ``{name: [genes]}``.

    Parameters
    ----------
    source
        A mapping of names to genes; the name of a built-in set (``"seed"``, ``"tumour_microenvironment"``); or a file:
        ``.gmt`` (name, description, genes; tab separated [1]_), ``.csv`` (columns ``signature`` and ``gene``, between
        commas, semicolons or tabs), ``.json`` or ``.yaml`` (name to list of genes, or the layout of the built-in sets).

    Returns
    -------
    Genes of each signature, duplicates removed, order kept.

    Raises
    ------
    FileMissingError
        If ``source`` is neither a built-in set nor a file.
    InputError
        If a signature is empty, a name stands there twice or differs from another in case or blanks only, or the file does
        not have the layout of its ending.

    Warns
    -----
    SpatialsigWarning
        If a spreadsheet has turned genes into dates (``1-Mar``).

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
        return _clean(source, where="the given mapping")
    if str(source) in builtin_names():
        text = (resources.files("spatialsig.signatures") / f"{source}.json").read_text(encoding="utf-8")
        return _clean(_flat(json.loads(text)), where=str(source))
    path = Path(source)
    if not path.is_file():
        msg = f"signatures {str(source)!r}: no such file, and the built-in sets are {builtin_names()}."
        raise FileMissingError(msg)
    ending = path.suffix.lower()
    if ending not in _READERS:
        msg = f"signatures {path}: cannot read {path.suffix!r} files; use one of {sorted(_READERS)}."
        raise InputError(msg)
    text = decoded(path)
    try:
        sets = _READERS[ending](text)
    except (ValueError, KeyError, IndexError, StopIteration, yaml.YAMLError, AttributeError, TypeError) as error:
        msg = f"signatures {path}: not the layout of a {ending} file of gene sets ({error})."
        raise InputError(msg) from error
    return _clean(sets, where=str(path))


def _clean(sets: Mapping[str, Sequence[str]], *, where: str) -> dict[str, list[str]]:
    cleaned: dict[str, list[str]] = {}
    for raw_name, genes in sets.items():
        name = trimmed(str(raw_name))
        if name in cleaned:
            msg = f"{where} holds signature {name!r} twice; give each a name of its own, or join their genes."
            raise InputError(msg)
        if isinstance(genes, str) or not all(isinstance(gene, str) for gene in genes):
            msg = f"signature {name!r} of {where}: wanted a list of gene names, got {genes!r}."
            raise InputError(msg)
        cleaned[name] = list(dict.fromkeys(trimmed(gene) for gene in genes if trimmed(gene)))
        if not cleaned[name]:
            msg = f"signature {name!r} of {where} has no genes."
            raise InputError(msg)
    if not cleaned:
        msg = f"{where} holds no signatures."
        raise InputError(msg)
    check_alike(cleaned, what=f"signatures of {where}:")
    for name, genes in cleaned.items():
        if mangled := describe_mangled(genes):
            warnings.warn(f"signature {name!r} of {where}: {mangled}", SpatialsigWarning, stacklevel=3)
    return cleaned


def _flat(loaded: Mapping[str, Any]) -> dict[str, list[str]]:
    sets = loaded.get("signatures", loaded)
    return {name: entry["genes"] if isinstance(entry, Mapping) else entry for name, entry in sets.items()}


def _read_gmt(text: str) -> dict[str, list[str]]:
    return _distinct((row[0], row[2:]) for row in (line.split("\t") for line in text.splitlines() if trimmed(line)))


def _read_csv(text: str) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    rows = csv.reader(text.splitlines(), delimiter=delimiter_of(text))
    columns = [trimmed(column).lower() for column in next(rows)]
    signature, gene = columns.index("signature"), columns.index("gene")
    for row in (row for row in rows if any(map(trimmed, row))):
        sets.setdefault(trimmed(row[signature]), []).append(row[gene])
    return sets


def _read_json(text: str) -> dict[str, list[str]]:
    return _flat(json.loads(text, object_pairs_hook=_distinct))


def _read_yaml(text: str) -> dict[str, list[str]]:
    return _flat(yaml.load(text, _StrictLoader))


_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, for which a name given twice is an error and not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Mapping of a node whose own keys are distinct; those that it merges in may stand in it again."""
        _distinct((self.construct_object(key, deep=True), None) for key, _ in node.value if key.tag != _MERGE)
        return super().construct_mapping(node, deep)


def _distinct(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for name, value in pairs:
        if name in mapping:
            msg = f"{name!r} stands there twice"
            raise ValueError(msg)
        mapping[name] = value
    return mapping


_READERS = {".gmt": _read_gmt, ".csv": _read_csv, ".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
