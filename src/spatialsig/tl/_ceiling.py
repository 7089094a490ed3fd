"""Largest correlation that any model could reach, given the depth of the counts.

Floor 7, above evaluation. Called as sp.tl.noise_ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Seed, checked
from spatialsig._checks import check_key
from spatialsig.evaluation.ceiling import N_REPEATS, slide_ceiling
from spatialsig.slide.each import map_slides
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide, recorded_slides


@checked
@needs_cells
def noise_ceiling(
    data: Data,
    *,
    n_repeats: Count = N_REPEATS,
    seed: Seed = 0,
    samples: Annotated[Sequence[str], Field(min_length=1)] | None = None,
    table_key: Key = _keys.TABLE,
    signatures_key: Key = _keys.SIGNATURES,
) -> pd.DataFrame:
    """Estimate the largest correlation that a perfect predictor could have with the labels of each slide.

    Each transcript is assigned at random to one of two halves [3]_; both halves are scored and summarised over patches as
    the labels were: by the same scorer under the same parameters, and the same statistic. From their correlation ``r``
    over the patches, the reliability of the full labels is ``2 r / (1 + r)`` (Spearman-Brown [1]_ [2]_), and the
    ceiling its square root. That step is exact where labels are sums over molecules. On Poisson counts of 0.15
    molecules per gene and cell it came within 0.03 of the correlation of independent measurements for means of every
    scorer, for medians and sums, and within 0.06 for other statistics; with more molecules it comes nearer.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    n_repeats
        Number of random deals whose correlations are averaged.
    seed
        Of the deals.
    samples
        Slides whose ceiling is wanted; all when None.
    table_key, signatures_key
        Table of the cells, and of the labels.

    Returns
    -------
    One row per slide and signature: ``sample``, ``signature``, ``ceiling`` (NaN where the signature is not measured, and
    for labels that are no scores).

    References
    ----------
    .. [1] Spearman C. Correlation calculated from faulty data. British Journal of Psychology 3, 271-295 (1910).
       https://doi.org/10.1111/j.2044-8295.1910.tb00206.x
    .. [2] Brown W. Some experimental results in the correlation of mental abilities. British Journal of Psychology 3,
       296-322 (1910). https://doi.org/10.1111/j.2044-8295.1910.tb00207.x
    .. [3] Neufeld A, Gao LL, Popp J, Battle A, Witten D. Inference after latent variable estimation for single-cell RNA
       sequencing data. Biostatistics 25, 270-287 (2024). https://doi.org/10.1093/biostatistics/kxac047

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> ceiling = sp.tl.noise_ceiling(sdata, n_repeats=1)
    >>> ceiling.columns.tolist()
    ['sample', 'signature', 'ceiling']
    """
    names = [slide.name for slide in recorded_slides(data)] if samples else []
    for sample in samples or ():
        check_key(names, sample, name="samples", where="the slides of `data`")
    options = {"table_key": table_key, "signatures_key": signatures_key, "seed": seed, "n_repeats": n_repeats}
    work = partial(_ceiling, samples=None if samples is None else tuple(samples), options=options)
    ceilings = map_slides(data, work, "noise ceiling")
    return pd.concat([ceiling for ceiling in ceilings if ceiling is not None], ignore_index=True)


def _ceiling(slide: Slide, *, samples: tuple[str, ...] | None, options: dict[str, Any]) -> pd.DataFrame | None:
    return slide_ceiling(slide, **options) if samples is None or slide.name in samples else None
