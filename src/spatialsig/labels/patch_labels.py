"""Labels of the patches of a slide: scores or other targets of their cells, embeddings, columns and layers.

Floor 5, above slide. Used by tl/_aggregate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.labels.statistics import PSEUDOBULK, pseudobulk_labels, score_labels, standard_error, statistic
from spatialsig.labels.targets import COUNTS, Targets, add_layers, add_obs, add_obsm, check_columns
from spatialsig.models.scalers import check_one_embedding
from spatialsig.slide.added import check_added
from spatialsig.slide.counts import count_blocks
from spatialsig.slide.each import try_slides
from spatialsig.slide.parts import members_of, obsm_of, place_of
from spatialsig.slide.slides import learn_from
from spatialsig.stats.expression import library_size
from spatialsig.stats.grouped import group_sizes, grouped_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.slide.slides import Data, Slide


@dataclass(frozen=True)
class LabelRequest:
    """Values to summarise over the cells of each patch, and the statistic."""

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

    def sources(self, slide: Slide) -> list[str]:
        """Parts of a slide that the labels are made from."""
        targets = Targets() if self.targets is None else self.targets
        scores = [str(slide.params(self.table_key)["score_cells"]["key"])] if self.targets is None else []
        obsm = [_keys.SPATIAL, *scores, *self.rep, *self.obsm, *targets.obsm]
        matrices = [*self.layers, *targets.layers, *([COUNTS] if self.stat == PSEUDOBULK else [])]
        entries = [f"obs/{key}" for key in (*self.obs, *targets.obs)]
        entries += [key if key == COUNTS else f"layers/{key}" for key in matrices]
        of_cells = [obsm_of(self.table_key, key) for key in obsm] + [f"{self.table_key}/{entry}" for entry in entries]
        place = place_of(slide.patches(self.patches_key).spec.image_key)
        return [self.patches_key, place, members_of(self.table_key, self.patches_key), *of_cells]


def categories_of(data: Data, request: LabelRequest, *, key_added: str) -> dict[str, list[str]]:
    """Categories of the targets over all slides that can be labelled, so that all tables have them.

    Raises
    ------
    InputError
        If the embeddings of these slides were made by different autoencoders.
    """
    found = try_slides(learn_from(data), partial(check_slide, request=request, key_added=key_added), "check slides")
    able = {outcome.name: outcome.value for outcome in found if outcome.value is not None}
    check_one_embedding({name: record for name, (record, _) in able.items()})
    categories: dict[str, dict[str, None]] = {}
    for _, of_slide in able.values():
        for column, names in of_slide.items():
            categories.setdefault(column, {}).update(dict.fromkeys(names))
    return {column: list(names) for column, names in categories.items()}


def check_slide(
    slide: Slide, *, request: LabelRequest, key_added: str
) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
    """Refuse what would fail half way; record of the embedding of a slide, and the categories of its targets."""
    check_added(slide, key_added, made_by="tl.aggregate_patches")
    cells = slide.table(request.table_key)
    for key in request.rep:
        fix = "Call `sp.tl.embed_cells` first, on all slides, or label without an embedding: `use_rep=None`."
        slide.obsm(request.table_key, key, name="use_rep", fix=fix)
    check_columns(slide, request.table_key, obs=request.obs, obsm=request.obsm, layers=request.layers)
    if request.targets is None:
        return _embedding_record(slide, request), {}
    request.targets.check(slide, request.table_key)
    return _embedding_record(slide, request), dict(request.targets.categories(cells))


def _embedding_record(slide: Slide, request: LabelRequest) -> dict[str, Any]:
    """Record of ``embed_cells``, where it made the embedding that is used."""
    record = dict(slide.params(request.table_key).get("embed_cells", {}))
    return record if record.get("key") in request.rep else {}


def patch_labels(slide: Slide, request: LabelRequest, categories: Mapping[str, Sequence[str]]) -> ad.AnnData:
    """Table of the patches of one slide with their labels."""
    cells, patches = slide.table(request.table_key), slide.patches(request.patches_key)
    membership = patches.membership(request.table_key)
    n_cells = group_sizes(membership)
    enough = n_cells >= request.min_cells
    if not enough.any():
        msg = f"slide {slide.name!r}: no patch has {request.min_cells} cells (the most is {n_cells.max(initial=0)})."
        raise InputError(msg)
    scored: Mapping[str, Any] = {}
    if request.targets is None:
        scored = slide.step(request.table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
        names, labels, sem = _of_scores(slide, cells, scored, membership, request)
    else:
        names, labels, sem = _of_targets(request.targets, cells, categories, membership, request)
    labels[~enough] = np.nan
    table = patches.table(labels, names, n_cells=n_cells)
    table.layers[_keys.SEM] = np.where(enough[:, None], sem, np.nan).astype(np.float32)
    library = np.concatenate([library_size(counts) for _, counts in count_blocks(slide, request.table_key)])
    table.obs[_keys.N_COUNTS] = grouped_mean(library[:, None], membership)[:, 0]
    for column in (_keys.N_GENES_PANEL, _keys.N_GENES_MEASURED) if scored else ():
        table.var[column] = np.asarray(scored[column])
    add_obs(table, cells, membership, request.obs)
    add_obsm(table, cells, membership, (*request.rep, *request.obsm))
    add_layers(table, cells, membership, request.layers)
    table.uns[_keys.NAMESPACE] = {
        "aggregate_patches": _record(request, cells, labels[enough], str(scored.get("unit", ""))),
        "score_cells": dict(scored),
        "embed_cells": _embedding_record(slide, request),
    }
    return table


def _of_scores(
    slide: Slide, cells: ad.AnnData, scored: Mapping[str, Any], membership: sparse.csr_matrix, request: LabelRequest
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    scores = slide.obsm(request.table_key, scored["key"], name="table_key", fix="Call `sp.tl.score_cells` first.")
    if request.stat == PSEUDOBULK:
        blocks = count_blocks(slide, request.table_key, list(scored["genes"]))
        labels = pseudobulk_labels(scored, blocks, membership)
    else:
        labels = score_labels(scores, membership, stat=request.stat, trim=request.trim)
    return list(scored["names"]), labels, standard_error(scores, membership, stat=request.stat)


def _of_targets(
    targets: Targets,
    cells: ad.AnnData,
    categories: Mapping[str, Sequence[str]],
    membership: sparse.csr_matrix,
    request: LabelRequest,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    names, labels, errors = [], [], []
    for columns, values in targets.blocks(cells, categories):
        names += columns
        labels.append(statistic(values, membership, stat=request.stat, trim=request.trim))
        errors.append(standard_error(values, membership, stat=request.stat))
    return names, np.concatenate(labels, axis=1), np.concatenate(errors, axis=1)


def _record(request: LabelRequest, cells: ad.AnnData, labels: NDArray[np.float64], unit: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "stat": request.stat,
        "min_cells": request.min_cells,
        "patches_key": request.patches_key,
        "n_labelled": len(labels),
        "tie_fraction": _tie_fraction(labels),
    }
    if unit and request.targets is None:
        record["unit"] = (
            f"{'score of the summed counts' if request.stat == PSEUDOBULK else request.stat.replace('_', ' ')} of the cells: {unit}"
        )
    if request.targets is not None:
        record["targets"] = request.targets.record()
    if request.stat == "trimmed_mean":
        record["trim"] = request.trim
    if request.layers:
        record["genes"] = list(cells.var_names)
    return record


def _tie_fraction(labels: np.ndarray) -> np.ndarray:
    """Share of patches that lie on the most frequent value of each column."""
    share = [
        np.unique(column, return_counts=True)[1].max() / len(column) if np.isfinite(column).all() else np.nan
        for column in labels.T
    ]
    return np.array(share)
