"""Genes of signatures by the names of a panel, and why some are missing there, with the fix.

Floor 1, above the ground floor. Used by expression, referee/scores, signatures/_read, tl/_score.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from spatialsig._checks import check_key, first_few
from spatialsig._text import trimmed
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from spatialsig.signatures._read import Genes

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")
_VERSION = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
_FAMILIES = {re.compile(r"MARCH(\d+)"): r"MARCHF\1", re.compile(r"SEPT(\d+)"): r"SEPTIN\1"}
# approved symbol -> its previous symbol, of genes that signatures use (HGNC)
_BEFORE = {
    "ACKR1": "DARC", "ADGRA2": "GPR124", "ADGRE1": "EMR1", "ADGRE2": "EMR2", "ADGRF5": "GPR116", "ADGRG1": "GPR56",
    "ADGRL2": "LPHN2", "ADGRL4": "ELTD1", "CAVIN1": "PTRF", "CAVIN2": "SDPR", "CCN1": "CYR61", "CCN2": "CTGF", "CCN3": "NOV",
    "CCN4": "WISP1", "CENPU": "MLF1IP", "CGAS": "MB21D1", "CXCL8": "IL8", "DIPK2B": "CXorf36", "FAM30A": "KIAA0125",
    "GASK1B": "FAM198B", "H4C3": "HIST1H4C", "JCAD": "KIAA1462", "KNL1": "CASC5", "NECTIN2": "PVRL2", "PCLAF": "KIAA0101",
    "PIMREG": "FAM64A", "PLPP3": "PPAP2B", "SGO1": "SGOL1", "STING1": "TMEM173", "TENT5C": "FAM46C", "VSIR": "C10orf54",
}  # fmt: skip
_AFTER = {before: now for now, before in _BEFORE.items()}


def in_panel_names(
    signatures: Mapping[str, Genes], panels: Mapping[str, pd.DataFrame], gene_symbols: str | None
) -> dict[str, Genes]:
    """Genes of each signature by the names (index) of the panels, whose column ``gene_symbols`` holds the symbols.

    ``panels`` is ``var`` of each slide. Genes that no panel has keep their name. Raises :class:`KeyMissingError` without the
    column, and :class:`InputError` where a symbol stands for several genes, or a gene has two names with different weights.
    """
    if gene_symbols is None:
        return dict(signatures)
    wanted = {gene for genes in signatures.values() for gene in genes}
    names: dict[str, str] = {}
    for slide, var in panels.items():
        check_key(list(var.columns), gene_symbols, name="gene_symbols", where=f"the var of slide {slide!r}")
        symbols = var[gene_symbols].astype(str)
        for name, symbol in symbols[symbols.isin(wanted)].items():
            if names.setdefault(symbol, str(name)) != name:
                msg = (
                    f"slide {slide!r}: symbol {symbol!r} of var[{gene_symbols!r}] stands for {names[symbol]!r} and {name!r}; "
                    "wanted one gene, the same on all slides: remove one, or name the gene by its id in the signature."
                )
                raise InputError(msg)
    return {name: _renamed(genes, names, name) for name, genes in signatures.items()}


def _renamed(genes: Genes, names: Mapping[str, str], signature: str) -> Genes:
    if not isinstance(genes, dict):
        return list(dict.fromkeys(names.get(gene, gene) for gene in genes))
    renamed: dict[str, float] = {}
    for gene, weight in genes.items():
        now = names.get(gene, gene)
        if renamed.setdefault(now, weight) != weight:
            msg = f"signature {signature!r}: {now!r} stands there by two names with the weights {renamed[now]:g} and {weight:g}."
            raise InputError(msg)
    return renamed


def describe_names(wanted: Iterable[str], var: pd.DataFrame) -> str:
    """Sentence that says under what names a panel has genes that are not found on it, and the fix; empty if it has none."""
    panel = set(map(str, var.index))
    missing = {gene for gene in wanted if gene not in panel}
    for sentence in (
        _in_form(missing, panel), _in_column(missing, var), _without_version(missing, panel), _in_case(missing, panel)
    ):  # fmt: skip
        if sentence:
            return sentence
    renamed = {gene: other for gene in sorted(missing) if (other := _other_name(gene)) in panel}
    if renamed:
        listed = first_few([f"{gene} is {other} there" for gene, other in renamed.items()])
        return f"Genes have other names on the panel ({listed}): write those into the signature, or rename `var_names`."
    n_ids = sum(ENSEMBL.fullmatch(name) is not None for name in panel)
    if missing and 2 * n_ids > len(panel) and not any(map(ENSEMBL.fullmatch, missing)):
        return "`var_names` are Ensembl ids, and no column of `var` holds symbols: add one and pass its name as `gene_symbols=`."
    return ""


def _in_column(missing: Collection[str], var: pd.DataFrame) -> str:
    """Sentence that names the column of symbols or ids that has the missing genes; empty without one."""
    text = [column for column in var if not pd.api.types.is_numeric_dtype(var[column])]
    found = {str(column): len(set(var[column].astype(str)) & set(missing)) for column in text}
    column = max(found, key=lambda name: found[name], default="")
    if not column or not found[column]:
        return ""
    return f"{found[column]} of the missing genes stand in var[{column!r}]: pass `gene_symbols={column!r}`."


def _in_form(missing: Collection[str], panel: Collection[str]) -> str:
    """Sentence that names genes which the panel has in other characters that look the same; empty without one."""
    plain = {trimmed(name): name for name in panel if not name.isascii() or name != name.strip()}
    found = [f"{gene!a} is {plain[gene]!a} there" for gene in sorted(missing) if gene in plain]
    fix = "`adata.var_names = adata.var_names.str.normalize('NFC').str.strip()`"
    return (
        f"Names stand on the panel in other characters that look the same ({first_few(found)}): {fix}." if found else ""
    )


def _without_version(missing: Collection[str], panel: Collection[str]) -> str:
    bare = {match[1]: match[0] for name in panel if (match := _VERSION.fullmatch(name))}
    dotted = {gene: match[1] for gene in missing if (match := _VERSION.fullmatch(gene))}
    found = [f"{gene} is {bare[gene]} there" for gene in sorted(missing) if gene in bare]
    if found:
        fix = "`adata.var_names = adata.var_names.str.split('.').str[0]`"
        return f"Ids carry versions on the panel ({first_few(found)}): {fix} takes them off."
    found = [f"{gene} is {name} there" for gene, name in sorted(dotted.items()) if name in panel]
    return f"Ids carry versions in the signature ({first_few(found)}): take them off." if found else ""


def _in_case(missing: Collection[str], panel: Collection[str]) -> str:
    folded = {name.casefold(): name for name in panel}
    found = [f"{gene} is {folded[gene.casefold()]} there" for gene in sorted(missing) if gene.casefold() in folded]
    if not found:
        return ""
    return (
        f"Names differ in case ({first_few(found)}): where the panel is of mouse, use a signature of mouse genes; else write "
        "both the same way."
    )


def _other_name(gene: str) -> str:
    """Symbol that the gene had before, or has now."""
    for family, now in _FAMILIES.items():
        if family.fullmatch(gene):
            return family.sub(now, gene)
    back = re.fullmatch(r"(MARCH)F(\d+)|(SEPT)IN(\d+)", gene)
    if back:
        return "".join(filter(None, back.groups()))
    return _BEFORE.get(gene) or _AFTER.get(gene, "")
