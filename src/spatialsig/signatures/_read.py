"""Gene sets in any usual form read into ``{name: [genes]}``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from spatialsig.errors import FileMissingError, InputError

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
        ``.gmt`` (name, description, genes; tab separated [1]_), ``.csv`` (columns ``signature`` and ``gene``),
        ``.json`` or ``.yaml`` (name to list of genes, or the layout of the built-in sets).

    Returns
    -------
    Genes of each signature, duplicates removed, order kept.

    Raises
    ------
    FileMissingError
        If ``source`` is neither a built-in set nor a file.
    InputError
        If a signature is empty or the file does not have the layout of its ending.

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
    if path.suffix not in _READERS:
        msg = f"signatures {path}: cannot read {path.suffix!r} files; use one of {sorted(_READERS)}."
        raise InputError(msg)
    try:
        sets = _READERS[path.suffix](path)
    except (ValueError, KeyError, yaml.YAMLError, AttributeError, TypeError) as error:
        msg = f"signatures {path}: not the layout of a {path.suffix} file of gene sets ({error})."
        raise InputError(msg) from error
    return _clean(sets, where=str(path))


def _clean(sets: Mapping[str, Sequence[str]], *, where: str) -> dict[str, list[str]]:
    cleaned: dict[str, list[str]] = {}
    for name, genes in sets.items():
        if isinstance(genes, str) or not all(isinstance(gene, str) for gene in genes):
            msg = f"signature {name!r} of {where}: wanted a list of gene names, got {genes!r}."
            raise InputError(msg)
        cleaned[str(name)] = list(dict.fromkeys(gene.strip() for gene in genes if gene.strip()))
        if not cleaned[str(name)]:
            msg = f"signature {name!r} of {where} has no genes."
            raise InputError(msg)
    if not cleaned:
        msg = f"{where} holds no signatures."
        raise InputError(msg)
    return cleaned


def _flat(loaded: Mapping[str, Any]) -> dict[str, list[str]]:
    sets = loaded.get("signatures", loaded)
    return {name: entry["genes"] if isinstance(entry, Mapping) else entry for name, entry in sets.items()}


def _read_gmt(path: Path) -> dict[str, list[str]]:
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row[0]: row[2:] for row in rows}


def _read_csv(path: Path) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sets.setdefault(row["signature"], []).append(row["gene"])
    return sets


def _read_json(path: Path) -> dict[str, list[str]]:
    return _flat(json.loads(path.read_text(encoding="utf-8")))


def _read_yaml(path: Path) -> dict[str, list[str]]:
    return _flat(yaml.safe_load(path.read_text(encoding="utf-8")))


_READERS = {".gmt": _read_gmt, ".csv": _read_csv, ".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
