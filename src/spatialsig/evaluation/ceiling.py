"""Noise ceiling of the labels of a slide, from halves of the molecules that made them.

Floor 6, above expression, inference, labels. Used by 5 modules of evaluation, maps, tl.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._progress import track
from spatialsig.labels.scorers import scores_under
from spatialsig.labels.statistics import PSEUDOBULK, score_labels
from spatialsig.slide.counts import count_blocks
from spatialsig.stats.agreement import ceiling_from_halves, pearson, split_counts
from spatialsig.stats.grouped import pseudobulk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.slide.slides import Slide

N_REPEATS = 3


def slide_ceiling(
    slide: Slide, *, n_repeats: int = N_REPEATS, seed: int, table_key: str, signatures_key: str
) -> pd.DataFrame:
    """Ceiling of every signature on one slide: columns ``sample``, ``signature``, ``ceiling``."""
    labels = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
    record = slide.step(signatures_key, "aggregate_patches", fix="Call `sp.tl.aggregate_patches` again.")
    scored = slide.params(signatures_key).get("score_cells") or {}
    ceiling = pd.Series(np.nan, labels.var_names)
    if "weights" in scored:
        patches = slide.patches(str(record.get("patches_key", _keys.PATCHES)))
        labelled = patches.labels(signatures_key).measured
        options: dict[str, Any] = {"n_repeats": n_repeats, "seed": seed, "table_key": table_key}
        found = ceiling_of(slide, patches.membership(table_key), scored, record, labelled, **options)
        # columns may have been left out since, or stand in another order
        ceiling = pd.Series(found, list(map(str, scored["names"]))).reindex(labels.var_names)
    return pd.DataFrame({"sample": slide.name, "signature": list(labels.var_names), "ceiling": ceiling.to_numpy()})


def ceiling_of(
    slide: Slide,
    membership: sparse.csr_matrix,
    scored: Mapping[str, Any],
    record: Mapping[str, Any],
    labelled: NDArray[np.bool_],
    *,
    n_repeats: int = N_REPEATS,
    seed: int,
    table_key: str,
) -> NDArray[np.float64]:
    """Ceiling of every score over the ``labelled`` ones of the patches (or other groups) that ``membership`` puts cells into."""
    cells = slide.table(table_key)
    stat, trim = str(record.get("stat", "mean")), float(record.get("trim", 0.0))
    centre = np.mean(cells.obsm[scored["key"]], axis=0, dtype=np.float64)
    rs = []
    for repeat in track(range(n_repeats), f"noise ceiling {slide.name}", unit="repeat"):
        blocks = count_blocks(slide, table_key, list(scored["genes"]))
        halves = []
        for half in scored_halves(blocks, scored, membership, stat, seed=seed + repeat):
            if stat == PSEUDOBULK:
                labels = half.astype(np.float64)
            else:
                # fewer counts move all scores, and a sum of them would then tell how many cells a patch has
                scores = half + (centre - half.mean(axis=0, dtype=np.float64)).astype(np.float32)
                labels = score_labels(scores, membership, stat=stat, trim=trim)
            halves.append(labels[labelled])
        rs.append(pearson(*halves))
    return ceiling_from_halves(np.mean(rs, axis=0))


def scored_halves(
    blocks: Iterable[tuple[slice, sparse.csr_matrix]],
    scored: Mapping[str, Any],
    membership: sparse.csr_matrix | None,
    stat: str,
    *,
    seed: int,
) -> list[NDArray[np.float32]]:
    """Scores of the cells, or (``stat`` a pseudobulk) of the summed counts of the patches, from either half of the molecules."""
    rng = np.random.default_rng(seed)  # drawn from in the order of the cells, however they are cut into blocks
    parts: tuple[list[Any], list[Any]] = ([], [])
    for rows, counts in blocks:
        for part, half in zip(parts, split_counts(counts, seed=rng), strict=True):
            part.append(
                pseudobulk(half, membership[rows])
                if stat == PSEUDOBULK and membership is not None
                else scores_under(scored, half)
            )
    if stat == PSEUDOBULK:
        return [scores_under(scored, reduce(add, part)) for part in parts]
    return [np.concatenate(part) for part in parts]
