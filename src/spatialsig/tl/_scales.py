"""Which scale predictions can be trusted at.

Floor 7, above evaluation. Called as sp.tl.scales; used by cli/judging_commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import Key, Micrometres, Natural, Seed, checked
from spatialsig.evaluation.scales import Request, Scales, judge_scales
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data

SCALES_UM = (28.0, 56.0, 112.0, 224.0)


@checked
@needs_cells
def scales(
    data: Data,
    *,
    scales_um: Annotated[Sequence[Micrometres], Field(min_length=1)] = SCALES_UM,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    test_fold: Natural = 0,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
) -> Scales:
    """Judge the same predictions at several scales, each with its own noise ceiling, controls and coverage of intervals.

    The slide is laid out in squares of each size, side by side. Labels are made anew from the cells in them, by the scorer and the
    statistic of the labels; predictions are means of the patches, by the area they share with a square: of patches that tile where
    squares are larger, of all that lie over it where they are smaller. Ridge regressions on nuclear density and on colour see the pixels
    of the squares themselves, and learn from the training slides.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with folds, labels, and predictions on the held-out slides; not modified.
    scales_um
        Edges of the squares; those below the step between patches are left out, with a warning.
    predictions_key
        Table of predictions.
    test_fold
        Fold judged.
    seed
        Of the noise ceilings.
    patches_key, signatures_key, table_key
        Patches, labels, cells.

    Returns
    -------
    Tables and a sentence on the finest scale at which predictions beat density and colour, see
    :class:`spatialsig.evaluation.scales.Scales`. ``coverage`` is the share of labels within the means of the ends of the intervals of
    the patches, as if their errors went together: larger squares are then held more often than promised, smaller ones less.

    Raises
    ------
    KeyMissingError
        If folds, labels or predictions are missing.
    LeakageError
        If the model learned from a slide that is judged.
    InputError
        If all scales are finer than the step between patches, a scale holds no held-out square, or labels are no scores of cells.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> found = sp.tl.scales(sdata, scales_um=[56.0, 84.0])
    >>> found.summary["scale_um"].tolist()
    [56.0, 84.0]
    """
    refuse_leaks(data, [test_fold])
    names = (predictions_key, patches_key, signatures_key, table_key)
    return judge_scales(data, Request(tuple(sorted(set(scales_um))), test_fold, seed, *names))
