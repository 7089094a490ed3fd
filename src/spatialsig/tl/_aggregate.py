"""From cells to patch labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.counts import counts_of
from spatialsig.data.patch_table import patch_table
from spatialsig.data.slides import open_slides, require_obsm, require_params, slide_count
from spatialsig.stats.expression import library_size
from spatialsig.stats.grouped import group_sizes, grouped_mean, grouped_median, grouped_sem

if TYPE_CHECKING:
    from spatialsig.data.slides import Data, Slide

STATISTICS = {"mean": grouped_mean, "median": grouped_median}


def aggregate_patches(
    data: Data,
    *,
    stat: str = "mean",
    min_cells: int = 10,
    use_rep: str | None = _keys.X_AE,
    patches_key: str = _keys.PATCHES,
    table_key: str = _keys.TABLE,
    key_added: str = _keys.SIGNATURES,
) -> None:
    """Summarise the cells of each patch: signature scores, embedding, number of cells.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    stat
        ``"mean"`` (default) or ``"median"`` of the scores. On sparse counts many patches share one median exactly.
    min_cells
        Patches with fewer cells get NaN scores.
    use_rep
        Embedding in ``tables[table_key].obsm`` whose mean goes to ``obsm`` of the new table; ``None`` for none.
    patches_key, table_key
        Shapes element of the patches, table of the cells.
    key_added
        Name of the new table; a table of that name is replaced.

    Returns
    -------
    Nothing; writes ``tables[key_added]``, one row per patch: ``X`` scores float32 (NaN where not measured),
    ``layers["sem"]``, ``obs``: ``region``, ``patch_id``, ``sample``, ``patient``, ``fold``, ``n_cells``, ``n_counts``
    (mean counts per cell); ``obsm["spatial"]`` patch centres (µm), ``obsm[use_rep]`` float32; ``var``:
    ``n_genes_panel``, ``n_genes_measured``; ``uns["spatialsig"]["aggregate_patches"]`` with the share of patches that
    tie with another in each signature.

    Raises
    ------
    KeyMissingError
        If cells are not assigned, scored or embedded yet.
    InputError
        If no patch of a slide has ``min_cells`` cells.
    """
    check_choice(stat, STATISTICS, name="stat")
    for slide in track(open_slides(data), "label patches", total=slide_count(data), unit="slide"):
        _aggregate(slide, stat, min_cells, use_rep, patches_key, table_key, key_added)


def _aggregate(
    slide: Slide, stat: str, min_cells: int, use_rep: str | None, patches_key: str, table_key: str, key_added: str
) -> None:
    cells = slide.table(table_key)
    scored = require_params(slide, table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
    fix = "Call `sp.pp.assign_cells` first."
    membership = require_obsm(cells, _keys.MEMBERSHIP, name="key", slide=slide, fix=fix)
    if membership.shape[1] != len(slide.sdata.shapes[patches_key]):
        msg = (
            f"slide {slide.name!r}: cells are assigned to {membership.shape[1]} patches, but {patches_key!r} holds "
            f"{len(slide.sdata.shapes[patches_key])}; call `sp.pp.assign_cells` again."
        )
        raise InputError(msg)
    n_cells = group_sizes(membership)
    enough = n_cells >= min_cells
    if not enough.any():
        msg = f"slide {slide.name!r}: no patch has {min_cells} cells (the most is {n_cells.max(initial=0)})."
        raise InputError(msg)

    scores = np.asarray(cells.obsm[scored["key"]], np.float64)
    labels = np.where(enough[:, None], STATISTICS[stat](scores, membership), np.nan)
    table = patch_table(slide, patches_key, labels, list(scored["names"]), n_cells=n_cells)
    table.layers[_keys.SEM] = np.where(enough[:, None], grouped_sem(scores, membership), np.nan).astype(np.float32)
    library = library_size(counts_of(slide, table_key))
    table.obs[_keys.N_COUNTS] = grouped_mean(library[:, None], membership)[:, 0]
    for column in (_keys.N_GENES_PANEL, _keys.N_GENES_MEASURED):
        table.var[column] = np.asarray(scored[column])
    if use_rep is not None:
        fix = "Call `sp.tl.embed_cells` first, or pass `use_rep=None`."
        embedding = require_obsm(cells, use_rep, name="use_rep", slide=slide, fix=fix)
        table.obsm[use_rep] = grouped_mean(embedding, membership).astype(np.float32)
    table.uns[_keys.NAMESPACE] = {
        "aggregate_patches": {
            "stat": stat,
            "min_cells": min_cells,
            "patches_key": patches_key,
            "n_labelled": int(enough.sum()),
            "tie_fraction": _tie_fraction(labels[enough]),
        },
        "score_cells": dict(scored),
        "embed_cells": dict(slide.params(table_key).get("embed_cells", {})) if use_rep is not None else {},
    }
    slide.put(key_added, table)


def _tie_fraction(labels: np.ndarray) -> np.ndarray:
    """Share of patches that lie on the most frequent value of each column."""
    share = [
        np.unique(column, return_counts=True)[1].max() / len(column) if np.isfinite(column).all() else np.nan
        for column in labels.T
    ]
    return np.array(share)
