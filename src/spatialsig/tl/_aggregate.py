"""From cells to patch labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.counts import counts_of
from spatialsig.data.patch_table import patch_table
from spatialsig.data.slides import open_slides, require_obsm, require_params, slide_count
from spatialsig.stats.expression import library_size
from spatialsig.stats.grouped import (
    group_sizes,
    grouped_mean,
    grouped_median,
    grouped_sem,
    grouped_trimmed_mean,
    pseudobulk,
)
from spatialsig.tl._cell_columns import add_layers, add_obs, add_obsm, check_columns
from spatialsig.tl._score_methods import scores_under

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.slides import Data, Slide

STATISTICS = ("mean", "median", "trimmed_mean", "pseudobulk")


def aggregate_patches(
    data: Data,
    *,
    stat: str = "mean",
    trim: float = 0.1,
    min_cells: int = 10,
    use_rep: str | None = _keys.X_AE,
    obs: Sequence[str] = (),
    obsm: Sequence[str] = (),
    layers: Sequence[str] = (),
    patches_key: str = _keys.PATCHES,
    table_key: str = _keys.TABLE,
    key_added: str = _keys.SIGNATURES,
) -> None:
    """Summarise the cells of each patch: signature scores, embedding, number of cells, and whatever else is asked for.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    stat
        How the scores of the cells become the label: ``"mean"`` (default), ``"median"``, ``"trimmed_mean"``, or
        ``"pseudobulk"``: the counts of the cells are added up and the patch is scored like one large cell, under the
        parameters that ``score_cells`` kept. On sparse counts many patches share one median exactly.
    trim
        Share of lowest and of highest scores left out by ``stat="trimmed_mean"``, from 0 to 0.5.
    min_cells
        Patches with fewer cells get NaN scores.
    use_rep
        Embedding in ``tables[table_key].obsm`` whose mean goes to ``obsm`` of the new table; ``None`` for none.
    obs
        Columns of the cells: numbers and booleans are averaged, categories become shares.
    obsm
        More arrays of the cells to average.
    layers
        Layers to average, ``"X"`` for the counts; cells without a count are zeros.
    patches_key, table_key
        Shapes element of the patches, table of the cells.
    key_added
        Name of the new table; a table of that name is replaced.

    Returns
    -------
    Nothing; writes ``tables[key_added]``, one row per patch: ``X`` scores float32 (NaN where not measured),
    ``layers["sem"]`` (standard error of the mean of the cell scores), ``obs``: ``region``, ``patch_id``, ``sample``,
    ``patient``, ``fold``, ``n_cells``, ``n_counts`` (mean counts per cell), every numeric column of ``obs`` (float64);
    ``obsm["spatial"]`` patch centres (µm), ``obsm[use_rep]`` and ``obsm`` float32, ``obsm["<column>_fraction"]`` a
    DataFrame with one column per category, ``obsm["<layer>_mean"]`` CSR ``(n_patches, n_genes)`` float32, its genes in
    ``uns["spatialsig"]["aggregate_patches"]["genes"]``; ``var``: ``n_genes_panel``, ``n_genes_measured``;
    ``uns["spatialsig"]["aggregate_patches"]`` with the share of patches that tie with another in each signature.
    NaN where a patch has no cells (zero in the averaged layers).

    Raises
    ------
    KeyMissingError
        If cells are not assigned, scored or embedded yet, or a column is not there.
    InputError
        If no patch of a slide has ``min_cells`` cells, or a column holds neither numbers nor categories.
    """
    check_choice(stat, STATISTICS, name="stat")
    if not 0 <= trim <= 0.5:
        msg = f"`trim` must lie between 0 and 0.5; got {trim!r}."
        raise InputError(msg)
    rep = () if use_rep is None else (use_rep,)
    wanted = _Wanted(stat, trim, min_cells, rep, tuple(obs), tuple(obsm), tuple(layers), patches_key, table_key)
    for slide in track(open_slides(data), "label patches", total=slide_count(data), unit="slide"):
        slide.put(key_added, _aggregate(slide, wanted))


@dataclass(frozen=True)
class _Wanted:
    stat: str
    trim: float
    min_cells: int
    rep: tuple[str, ...]
    obs: tuple[str, ...]
    obsm: tuple[str, ...]
    layers: tuple[str, ...]
    patches_key: str
    table_key: str


def _aggregate(slide: Slide, wanted: _Wanted) -> ad.AnnData:
    cells = slide.table(wanted.table_key)
    scored = require_params(slide, wanted.table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
    membership = _membership(slide, cells, wanted.patches_key)
    for key in wanted.rep:
        fix = "Call `sp.tl.embed_cells` first, or pass `use_rep=None`."
        require_obsm(cells, key, name="use_rep", slide=slide, fix=fix)
    check_columns(slide, cells, obs=wanted.obs, obsm=wanted.obsm, layers=wanted.layers)
    n_cells = group_sizes(membership)
    enough = n_cells >= wanted.min_cells
    if not enough.any():
        msg = f"slide {slide.name!r}: no patch has {wanted.min_cells} cells (the most is {n_cells.max(initial=0)})."
        raise InputError(msg)

    labels = _labels(slide, cells, scored, membership, wanted)
    labels[~enough] = np.nan
    table = patch_table(slide, wanted.patches_key, labels, list(scored["names"]), n_cells=n_cells)
    sem = grouped_sem(cells.obsm[scored["key"]], membership)
    table.layers[_keys.SEM] = np.where(enough[:, None], sem, np.nan).astype(np.float32)
    library = library_size(counts_of(slide, wanted.table_key))
    table.obs[_keys.N_COUNTS] = grouped_mean(library[:, None], membership)[:, 0]
    for column in (_keys.N_GENES_PANEL, _keys.N_GENES_MEASURED):
        table.var[column] = np.asarray(scored[column])
    add_obs(table, cells, membership, wanted.obs)
    add_obsm(table, cells, membership, (*wanted.rep, *wanted.obsm))
    add_layers(table, cells, membership, wanted.layers)
    table.uns[_keys.NAMESPACE] = {
        "aggregate_patches": _record(wanted, cells, labels[enough]),
        "score_cells": dict(scored),
        "embed_cells": dict(slide.params(wanted.table_key).get("embed_cells", {})) if wanted.rep else {},
    }
    return table


def _membership(slide: Slide, cells: ad.AnnData, patches_key: str) -> sparse.csr_matrix:
    fix = "Call `sp.pp.assign_cells` first."
    membership = require_obsm(cells, _keys.MEMBERSHIP, name="key", slide=slide, fix=fix)
    if membership.shape[1] != len(slide.sdata.shapes[patches_key]):
        msg = (
            f"slide {slide.name!r}: cells are assigned to {membership.shape[1]} patches, but {patches_key!r} holds "
            f"{len(slide.sdata.shapes[patches_key])}; call `sp.pp.assign_cells` again."
        )
        raise InputError(msg)
    return membership


def _labels(
    slide: Slide, cells: ad.AnnData, scored: Mapping[str, Any], membership: sparse.csr_matrix, wanted: _Wanted
) -> NDArray[np.float64]:
    if wanted.stat == "pseudobulk":
        counts = counts_of(slide, wanted.table_key, list(scored["genes"]))
        return scores_under(scored, pseudobulk(counts, membership)).astype(np.float64)
    scores = cells.obsm[scored["key"]]
    if wanted.stat == "median":
        return grouped_median(scores, membership)
    if wanted.stat == "trimmed_mean":
        return grouped_trimmed_mean(scores, membership, trim=wanted.trim)
    return grouped_mean(scores, membership)


def _record(wanted: _Wanted, cells: ad.AnnData, labels: NDArray[np.float64]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "stat": wanted.stat,
        "min_cells": wanted.min_cells,
        "patches_key": wanted.patches_key,
        "n_labelled": len(labels),
        "tie_fraction": _tie_fraction(labels),
    }
    if wanted.stat == "trimmed_mean":
        record["trim"] = wanted.trim
    if wanted.layers:
        record["genes"] = list(cells.var_names)
    return record


def _tie_fraction(labels: np.ndarray) -> np.ndarray:
    """Share of patches that lie on the most frequent value of each column."""
    share = [
        np.unique(column, return_counts=True)[1].max() / len(column) if np.isfinite(column).all() else np.nan
        for column in labels.T
    ]
    return np.array(share)
