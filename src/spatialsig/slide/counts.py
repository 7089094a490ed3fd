"""Raw counts of a slide on a given list of genes.

Floor 4, above train. Used by 19 modules of evaluation, expression, io, labels, maps, pp, referee, slide, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import zarr
from scipy import sparse

from spatialsig import _keys
from spatialsig._checks import first_few, warn
from spatialsig.errors import InputError
from spatialsig.stats.expression import value_range
from spatialsig.store.matrices import is_stored, row_blocks
from spatialsig.store.stored.table import StoredTable
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import anndata as ad
    from spatialdata import SpatialData

    from spatialsig.slide.slides import Slide

LARGEST = 2**24  # whole numbers up to here are exact in float32
LOST_ATTRS = (
    "`spatialdata.concatenate` and the repair of a lost root leave `attrs` out: use the slides as they were, each by itself or "
    "in a `sp.Cohort`."
)


def counts_of(slide: Slide, table_key: str, genes: Sequence[str] | None = None) -> sparse.csr_matrix:
    """Counts ``(n_cells, n_genes)`` as CSR, columns in the order of ``genes`` (all of them when None).

    Raises :class:`InputError` if ``X`` does not hold counts, the table holds no cells or those of several slides, or a
    gene is not measured on the slide (never filled with zeros).
    """
    blocks = [block for _, block in count_blocks(slide, table_key, genes)]
    return blocks[0] if len(blocks) == 1 else sparse.csr_matrix(sparse.vstack(blocks, format="csr"))


def count_blocks(
    slide: Slide, table_key: str, genes: Sequence[str] | None = None
) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Counts as :func:`counts_of` gives them, some rows at a time: which rows, and their counts.

    The blocks of a table are the same whether it lies in memory or in a store, where no more than one of them is read at a time.
    """
    table = slide.table(table_key)
    refuse_several(slide, table, table_key)
    columns = None
    if genes is not None and list(genes) != list(table.var_names):  # no copy where nothing changes
        columns = column_indices(table, genes, slide=slide)
    where, fix = f"slide {slide.name!r}: tables[{table_key!r}].X", "Put the counts into X."
    if not is_stored(table.X):
        _refuse_none(table.X, where=where, fix=fix)
    whole = (
        table.X if is_stored(table.X) or sparse.isspmatrix_csr(table.X) else as_counts(table.X, where=where, fix=fix)
    )
    for rows, block in row_blocks(whole):
        counts = as_counts(block, where=where, fix=fix)
        yield rows, counts if columns is None else counts[:, columns]


def as_counts(values: Any, *, where: str, fix: str) -> sparse.csr_matrix:
    """The same counts as CSR; :class:`InputError` saying ``where`` and ``fix`` if they are no counts, or none."""
    _refuse_none(values, where=where, fix=fix)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):  # which scipy or numba do not know
        values = values.astype(np.float64)
    counts = sparse.csr_matrix(values)
    whole, low, high = value_range(counts.data)
    if not (whole and low >= 0 and high <= LARGEST):
        missing = int(np.isnan(counts.data).sum()) if counts.data.dtype.kind == "f" else 0
        found = (
            f"{missing} of {counts.data.size} are missing (NaN)"
            if missing
            else f"found values from {low:g} to {high:g}"
        )
        msg = f"{where} must hold raw counts (whole numbers from 0 to {LARGEST:,}); {found}. {fix}"
        raise InputError(msg)
    return counts


def _refuse_none(values: Any, *, where: str, fix: str) -> None:
    masked = np.ma.isMaskedArray(values)
    if values is None or 0 in values.shape or values.dtype.kind not in "iuf" or masked:
        found = "empty" if values is None else "masked" if masked else f"{values.dtype} of shape {values.shape}"
        msg = f"{where} is {found}; wanted raw counts (n_cells, n_genes) of at least one cell and one gene. {fix}"
        raise InputError(msg)


def refuse_lazy(table: ad.AnnData, *, where: str) -> None:
    """Raise :class:`InputError` for a table that is not in memory: what was made from it could not be recorded.

    What we left in a store is known.
    """
    if isinstance(table, StoredTable):
        return
    if not isinstance(table.obs, pd.DataFrame) or table.isbacked:
        msg = f"{where} is not in memory: load it first, `sdata.tables[key] = table.to_memory()`."
        raise InputError(msg)
    if table.is_view:
        return
    parts = _parts(table)
    refuse_masked(table, where=where)
    lazy = [name for name, values in parts.items() if is_lazy(values)]
    if lazy:
        msg = f"{where}.{lazy[0]} is not in memory: load it first, `sdata.tables[key] = table.to_memory()`."
        raise InputError(msg)


def refuse_masked(table: ad.AnnData, *, where: str) -> None:
    """Raise :class:`InputError` for masks in a table, which most of what reads or writes arrays leaves out without a word."""
    masked = [] if isinstance(table, StoredTable) else [n for n, v in _parts(table).items() if np.ma.isMaskedArray(v)]
    if masked:
        msg = (
            f"{where}.{masked[0]} is masked, and what lies under the mask would count as a value: fill it in (`.filled(np.nan)` "
            "makes numbers missing), or leave these rows out."
        )
        raise InputError(msg)


def _parts(table: ad.AnnData) -> dict[str, Any]:
    """Arrays of a table by where they stand."""
    parts = {f"{name}[{key!r}]": values for name in ("layers", "obsm") for key, values in parts_of(table, name).items()}
    return {"X": table.X} | parts


def is_lazy(values: Any) -> bool:
    """Whether an array lies on disk, or is still to be computed."""
    return any(hasattr(values, name) for name in ("compute", "to_memory")) or isinstance(
        values, h5py.Dataset | zarr.Array
    )


def in_memory(values: Any) -> Any:
    """The same array in memory, whatever it was before."""
    if not is_lazy(values):
        return values
    load = getattr(values, "compute", getattr(values, "to_memory", None))
    return values[...] if load is None else load()


def named_genes(slide: Slide, table_key: str) -> pd.DataFrame:
    """``var`` of a table, which names its genes; :class:`InputError` where two genes have one name."""
    var: pd.DataFrame = slide.table(table_key).var
    check_unique(var.index, where=f"slide {slide.name!r}: tables[{table_key!r}].var_names")
    return var


def gene_names(slide: Slide, table_key: str) -> list[str]:
    """Names of the genes of a table, each its own."""
    return list(named_genes(slide, table_key).index)


def check_unique(names: pd.Index, *, where: str) -> None:
    """Raise :class:`InputError` unless every gene has a name of its own, by which it can be found."""
    if not names.is_unique:
        repeated = list(map(str, names[names.duplicated()].unique()))
        msg = (
            f"{where} hold {len(repeated)} name(s) of several genes: {first_few(repeated)}. Call `var_names_make_unique()` of "
            "the table, or name genes by their Ensembl ids."
        )
        raise InputError(msg)


def column_indices(table: ad.AnnData, genes: Sequence[str], *, slide: Slide) -> np.ndarray:
    """Columns of ``genes`` in a table."""
    check_unique(table.var_names, where=f"slide {slide.name!r}: var_names of the table")
    index = table.var_names.get_indexer(list(genes))
    if (index < 0).any():
        absent = [gene for gene, i in zip(genes, index, strict=True) if i < 0]
        msg = f"slide {slide.name!r} does not measure {len(absent)} of {len(genes)} genes: {absent[:10]}."
        raise InputError(msg)
    return np.asarray(index)


def common_genes(panels: Sequence[Sequence[str]]) -> list[str]:
    """Genes that all panels measure, in the order of the first."""
    shared = set(panels[0]).intersection(*panels[1:])
    return [gene for gene in panels[0] if gene in shared]


def without_attributes(sdata: SpatialData) -> list[str]:
    """Tables with results of ours, on an object that lost the attributes by which these are understood."""
    if sdata.attrs.get(_keys.NAMESPACE):
        return []
    return [name for name, table in sdata.tables.items() if _keys.NAMESPACE in table.uns]


def warn_without_attributes(sdata: SpatialData) -> None:
    """Warn of an object whose results nobody can place any more."""
    if made_here := without_attributes(sdata):
        warn(
            f"tables {first_few(made_here)} hold results of this package, but the object has none of its attributes (name and "
            f"patient of the slide, folds, how patches were cut, what was made from what). {LOST_ATTRS}"
        )


def refuse_several(slide: Slide, table: ad.AnnData, table_key: str) -> None:
    """Raise :class:`InputError` for a table of the cells of several slides, on an object that does not say whose it is."""
    if _keys.SAMPLE in slide.attrs:
        return
    region_key = table.uns.get("spatialdata_attrs", {}).get("region_key")
    for column in (_keys.SAMPLE, region_key):
        names = sorted(map(str, table.obs[column].dropna().unique())) if column in table.obs else []
        if len(names) > 1:
            msg = (
                f"tables[{table_key!r}] holds several slides: {column!r} is {first_few(names)}. Every function takes one slide "
                f"at a time, or a `sp.Cohort` of stores. {LOST_ATTRS}"
            )
            raise InputError(msg)
