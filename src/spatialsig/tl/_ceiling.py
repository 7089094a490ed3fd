"""How well any model could do, given the depth of the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._progress import track
from spatialsig.data.counts import counts_of
from spatialsig.data.slides import open_slides, require_params, slide_count
from spatialsig.stats.agreement import pearson
from spatialsig.stats.ceiling import ceiling_from_halves, split_counts
from spatialsig.stats.grouped import grouped_mean
from spatialsig.tl._score_methods import scores_under

if TYPE_CHECKING:
    from spatialsig.data.slides import Data, Slide


def noise_ceiling(
    data: Data,
    *,
    n_repeats: int = 3,
    seed: int = 0,
    table_key: str = _keys.TABLE,
    signatures_key: str = _keys.SIGNATURES,
) -> pd.DataFrame:
    """Largest correlation that a perfect predictor could have with the labels of each slide.

    Every molecule is dealt to one of two halves by a coin; both halves are scored and averaged over patches like the
    labels. From their correlation ``r`` over the patches, the reliability of the full labels is ``2 r / (1 + r)``
    (Spearman-Brown), and the ceiling its square root.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    n_repeats
        Number of random deals whose correlations are averaged.
    seed
        Of the deals.
    table_key, signatures_key
        Table of the cells, and of the labels.

    Returns
    -------
    One row per slide and signature: ``sample``, ``signature``, ``ceiling`` (NaN where the signature is not measured).
    """
    slides = track(open_slides(data), "noise ceiling", total=slide_count(data), unit="slide")
    return pd.concat([_slide_ceiling(s, n_repeats, seed, table_key, signatures_key) for s in slides], ignore_index=True)


def _slide_ceiling(slide: Slide, n_repeats: int, seed: int, table_key: str, signatures_key: str) -> pd.DataFrame:
    labels = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
    params = require_params(slide, signatures_key, "score_cells", fix="Call `sp.tl.aggregate_patches` again.")
    counts = counts_of(slide, table_key, list(params["genes"]))
    membership = slide.table(table_key).obsm[_keys.MEMBERSHIP]
    labelled = np.isfinite(labels.X).any(axis=1)
    rs = []
    for repeat in range(n_repeats):
        halves = [
            grouped_mean(scores_under(params, half), membership)[labelled]
            for half in split_counts(counts, seed=seed + repeat)
        ]
        rs.append(pearson(*halves))
    ceiling = ceiling_from_halves(np.mean(rs, axis=0))
    return pd.DataFrame({"sample": slide.name, "signature": list(labels.var_names), "ceiling": ceiling})
