"""Gene panels of slides, read and compared.

Floor 7, above evaluation. Used by cohort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import zarr
from anndata.io import read_elem

from spatialsig._checks import check_key
from spatialsig._files import DECODING_ERRORS
from spatialsig._hashing import content_hash
from spatialsig.errors import StoreError
from spatialsig.store.stored.damage import decoding
from spatialsig.store.stored.documents import FILE, what_to_do

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HASH_LENGTH = 12
_IDS = "gene_ids"


def read_panels(stores: Mapping[str, Path], *, table_key: str) -> dict[str, pd.DataFrame]:
    """Read ``var`` of one table of every slide; the errors name the slide."""
    return {sample: _read_var(sample, path, table_key) for sample, path in stores.items()}


def _read_var(sample: str, path: Path, table_key: str) -> pd.DataFrame:
    tables = sorted(entry.parent.name for entry in (path / "tables").glob("*/zarr.json"))
    check_key(tables, table_key, name="table_key", where=f"the tables of slide {sample!r}")
    table = path / "tables" / table_key
    try:
        with decoding(lambda: [table / "var"]):
            var: pd.DataFrame = read_elem(zarr.open_group(table, mode="r")["var"])
    except StoreError as error:
        msg = f"genes of slide {sample!r}: {error}"
        raise StoreError(msg) from error
    except DECODING_ERRORS as error:
        msg = f"genes of slide {sample!r} in {str(path)!r} cannot be read ({error}). {what_to_do(table / FILE)}"
        raise StoreError(msg) from error
    return var


def compare_panels(panels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare panels, one row per slide; fields as in :meth:`spatialsig.Cohort.panels`."""
    names = {sample: set(var.index) for sample, var in panels.items()}
    shared = set.intersection(*names.values()) if names else set()
    every = set().union(*names.values())
    reference = next(iter(panels.values()), None)
    rows = {
        sample: {
            "n_genes": len(own),
            "n_shared": len(shared),
            "n_missing": len(every - own),
            "n_other_ids": _n_other_ids(panels[sample], reference),
            "panel": panel_hash(own),
        }
        for sample, own in names.items()
    }
    columns = ["n_genes", "n_shared", "n_missing", "n_other_ids", "panel"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def panel_hash(genes: set[str]) -> str:
    """Short name of a set of genes, the same whatever their order."""
    return content_hash(["\n".join(sorted(genes))])[:_HASH_LENGTH]


def _n_other_ids(var: pd.DataFrame, reference: pd.DataFrame | None) -> int:
    """Genes of one symbol that have another identifier on the first slide."""
    if reference is None or _IDS not in var or _IDS not in reference:
        return 0
    both = var.index.intersection(reference.index)
    return int((var.loc[both, _IDS].astype(str) != reference.loc[both, _IDS].astype(str)).sum())


def genes_of(panels: Mapping[str, pd.DataFrame], *, how: str) -> list[str]:
    """Genes that every slide measures (``intersection``) or any (``union``), in the order of the slides."""
    genes = dict.fromkeys(gene for var in panels.values() for gene in var.index)
    if how == "union":
        return list(genes)
    sets = [set(var.index) for var in panels.values()]
    return [gene for gene in genes if all(gene in own for own in sets)]


def difference(table: pd.DataFrame) -> str | None:
    """Say which slides of :func:`compare_panels` have which panel; None if all have one."""
    groups = [rows for _, rows in table.groupby("panel", sort=False)]
    other_ids = table.index[table["n_other_ids"] > 0].tolist()
    parts = []
    if len(groups) > 1:
        listed = "; ".join(f"{', '.join(rows.index)}: {rows['n_genes'].iloc[0]}" for rows in groups)
        parts.append(f"the slides measure different genes ({listed}; {table['n_shared'].iloc[0]} in all of them)")
    if other_ids:
        parts.append(f"symbols stand for other gene ids on {other_ids} than on {table.index[0]!r}")
    if not parts:
        return None
    hint = "see `cohort.panels()` and `cohort.genes()`; what is learned across slides rests on the shared genes"
    return f"{' and '.join(parts)}: {hint}."
