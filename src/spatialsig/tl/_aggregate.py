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
from spatialsig.data.embedding import check_one_embedding
from spatialsig.data.patch_table import patch_table
from spatialsig.data.slides import open_slides, require_obsm, require_params, slide_count
from spatialsig.stats.expression import library_size
from spatialsig.stats.grouped import group_sizes, grouped_mean
from spatialsig.tl._cell_columns import add_layers, add_obs, add_obsm, check_columns
from spatialsig.tl._statistics import PSEUDOBULK, STATISTICS, score_labels, standard_error, summarise
from spatialsig.tl._targets import Targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.slides import Data, Slide


def aggregate_patches(
    data: Data,
    *,
    stat: str = "mean",
    trim: float = 0.1,
    min_cells: int = 10,
    targets: Mapping[str, str | Sequence[str]] | None = None,
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
        parameters that ``score_cells`` kept. On sparse counts many patches share one median exactly. Also ``"sum"``,
        ``"fraction"`` (share of the values above 0) and ``"count"`` (number of values).
    trim
        Share of lowest and of highest scores left out by ``stat="trimmed_mean"``, from 0 to 0.5.
    min_cells
        Patches with fewer cells get NaN scores.
    targets
        What becomes the columns of the table instead of the scores, summarised by ``stat``: columns of the cells by where
        they lie, ``{"obs": "cell_type"}`` (a category becomes a column of 1 and 0, so that its mean is the share of the
        cells and its sum their number), ``{"obs": ["area", "n_nuclei"]}``, ``{"obsm": "X_pca"}``, ``{"layers": "X"}``
        (the counts of every gene) or ``{"layers": "lognorm", "genes": ["CD3D", "MS4A1"]}``. None takes the scores.
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
    Nothing; writes ``tables[key_added]``, one row per patch:

    - ``X`` float32, one column per signature or target; NaN where not measured, and in patches with too few cells;
    - ``layers["sem"]``: standard error of ``X`` for a mean, a sum or a fraction, 0 for a count, and that of the mean for
      the other statistics; NaN below two cells;
    - ``obs``: ``region``, ``patch_id``, ``sample``, ``patient``, ``fold``, ``n_cells``, ``n_counts`` (mean counts per
      cell), every numeric column of ``obs`` and its standard error ``<column>_sem`` (float64);
    - ``obsm``: ``spatial`` (patch centres, µm); ``use_rep`` and ``obsm`` float32; ``<column>_fraction``, a DataFrame with
      one column per category; ``<layer>_mean``, CSR ``(n_patches, n_genes)`` float32, its genes in
      ``uns["spatialsig"]["aggregate_patches"]["genes"]``; each with its standard error, named ``<key>_sem``,
      ``<column>_fraction_sem`` or ``<layer>_sem``;
    - ``var``: ``n_genes_panel``, ``n_genes_measured`` (not for ``targets``);
    - ``uns["spatialsig"]["aggregate_patches"]``: the parameters, and ``tie_fraction``, the share of patches on the most
      frequent value of each column; copies of what ``score_cells`` and ``embed_cells`` kept.

    NaN where a patch has no cells (zero in the averaged layers).

    Raises
    ------
    KeyMissingError
        If cells are not assigned, scored or embedded yet, or a column is not there.
    InputError
        If no patch of a slide has ``min_cells`` cells, a column holds neither numbers nor categories, or the embeddings
        of the slides were made by different autoencoders; for these nothing is written.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.make_patches(sdata, patch_px=112, um_per_px=1.0)
    >>> sp.pp.assign_cells(sdata)
    >>> sdata["table"].obs["cell_type"] = sdata["table"].obs["cell_type"].astype("category")
    >>> sp.tl.aggregate_patches(sdata, targets={"obs": "cell_type"}, use_rep=None, key_added="cell_types")
    >>> "T_cell" in sdata["cell_types"].var_names
    True
    """
    check_choice(stat, STATISTICS, name="stat")
    if not 0 <= trim <= 0.5:
        msg = f"`trim` must lie between 0 and 0.5; got {trim!r}."
        raise InputError(msg)
    chosen = None if targets is None else Targets.of(targets)
    if chosen is not None and stat == PSEUDOBULK:
        msg = "`stat='pseudobulk'` scores the summed counts of a patch; for `targets` use `stat='sum'`."
        raise InputError(msg)
    rep = () if use_rep is None else (use_rep,)
    wanted = _Wanted(stat, trim, min_cells, chosen, rep, tuple(obs), tuple(obsm), tuple(layers), patches_key, table_key)
    categories = _check_slides(data, wanted)
    for slide in track(open_slides(data), "label patches", total=slide_count(data), unit="slide"):
        slide.put(key_added, _aggregate(slide, wanted, categories))


@dataclass(frozen=True)
class _Wanted:
    stat: str
    trim: float
    min_cells: int
    targets: Targets | None
    rep: tuple[str, ...]
    obs: tuple[str, ...]
    obsm: tuple[str, ...]
    layers: tuple[str, ...]
    patches_key: str
    table_key: str


def _check_slides(data: Data, wanted: _Wanted) -> dict[str, list[str]]:
    """Refuse what would fail half way; categories of the targets over all slides, so that all tables have them."""
    records: dict[str, Mapping[str, Any]] = {}
    categories: dict[str, dict[str, None]] = {}
    for slide in open_slides(data):
        cells = slide.table(wanted.table_key)
        for key in wanted.rep:
            fix = "Call `sp.tl.embed_cells` first, or pass `use_rep=None`."
            require_obsm(cells, key, name="use_rep", slide=slide, fix=fix)
        check_columns(slide, cells, obs=wanted.obs, obsm=wanted.obsm, layers=wanted.layers)
        records[slide.name] = _embedding_record(slide, wanted)
        if wanted.targets is not None:
            wanted.targets.check(slide, cells)
            for column, names in wanted.targets.categories(cells).items():
                categories.setdefault(column, {}).update(dict.fromkeys(names))
    check_one_embedding(records)
    return {column: list(names) for column, names in categories.items()}


def _embedding_record(slide: Slide, wanted: _Wanted) -> dict[str, Any]:
    """What ``embed_cells`` kept, where it made the embedding that is used."""
    record = dict(slide.params(wanted.table_key).get("embed_cells", {}))
    return record if record.get("key") in wanted.rep else {}


def _aggregate(slide: Slide, wanted: _Wanted, categories: Mapping[str, Sequence[str]]) -> ad.AnnData:
    cells = slide.table(wanted.table_key)
    membership = _membership(slide, cells, wanted.patches_key)
    n_cells = group_sizes(membership)
    enough = n_cells >= wanted.min_cells
    if not enough.any():
        msg = f"slide {slide.name!r}: no patch has {wanted.min_cells} cells (the most is {n_cells.max(initial=0)})."
        raise InputError(msg)
    scored: Mapping[str, Any] = {}
    if wanted.targets is None:
        scored = require_params(slide, wanted.table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
        names, labels, sem = _of_scores(slide, cells, scored, membership, wanted)
    else:
        names, labels, sem = _of_targets(wanted.targets, cells, categories, membership, wanted)
    labels[~enough] = np.nan
    table = patch_table(slide, wanted.patches_key, labels, names, n_cells=n_cells)
    table.layers[_keys.SEM] = np.where(enough[:, None], sem, np.nan).astype(np.float32)
    library = library_size(counts_of(slide, wanted.table_key))
    table.obs[_keys.N_COUNTS] = grouped_mean(library[:, None], membership)[:, 0]
    for column in (_keys.N_GENES_PANEL, _keys.N_GENES_MEASURED) if scored else ():
        table.var[column] = np.asarray(scored[column])
    add_obs(table, cells, membership, wanted.obs)
    add_obsm(table, cells, membership, (*wanted.rep, *wanted.obsm))
    add_layers(table, cells, membership, wanted.layers)
    table.uns[_keys.NAMESPACE] = {
        "aggregate_patches": _record(wanted, cells, labels[enough]),
        "score_cells": dict(scored),
        "embed_cells": _embedding_record(slide, wanted),
    }
    return table


def _of_scores(
    slide: Slide, cells: ad.AnnData, scored: Mapping[str, Any], membership: sparse.csr_matrix, wanted: _Wanted
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    scores = cells.obsm[scored["key"]]
    counts = counts_of(slide, wanted.table_key, list(scored["genes"])) if wanted.stat == PSEUDOBULK else None
    labels = score_labels(scored, counts, membership, stat=wanted.stat, trim=wanted.trim, scores=scores)
    return list(scored["names"]), labels, standard_error(scores, membership, stat=wanted.stat)


def _of_targets(
    targets: Targets,
    cells: ad.AnnData,
    categories: Mapping[str, Sequence[str]],
    membership: sparse.csr_matrix,
    wanted: _Wanted,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    names, labels, errors = [], [], []
    for found, values in targets.blocks(cells, categories):
        names += found
        labels.append(summarise(values, membership, stat=wanted.stat, trim=wanted.trim))
        errors.append(standard_error(values, membership, stat=wanted.stat))
    return names, np.concatenate(labels, axis=1), np.concatenate(errors, axis=1)


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


def _record(wanted: _Wanted, cells: ad.AnnData, labels: NDArray[np.float64]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "stat": wanted.stat,
        "min_cells": wanted.min_cells,
        "patches_key": wanted.patches_key,
        "n_labelled": len(labels),
        "tie_fraction": _tie_fraction(labels),
    }
    if wanted.targets is not None:
        record["targets"] = wanted.targets.record()
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
