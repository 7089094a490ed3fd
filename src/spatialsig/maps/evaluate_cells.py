"""Predicted scores of cells against their measured ones, beside the ceiling and what the patch alone would say.

Floor 8, above io, pl, pp, tl. Called as sp.tl.evaluate_cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Micrometres, Natural, Seed, checked
from spatialsig._checks import first_few, warn
from spatialsig.errors import InputError
from spatialsig.evaluation.ceiling import N_REPEATS, scored_halves
from spatialsig.inference.held_out import check_judged
from spatialsig.maps.cell_values import PATCH
from spatialsig.maps.measured_cells import REACH_UM, measured_rows
from spatialsig.slide.coordinates import positions
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.counts import count_blocks
from spatialsig.slide.each import map_slides
from spatialsig.slide.folds import folds_of
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.stats.agreement import ceiling_from_halves, pearson

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

MIN_GAIN = 0.01  # of r, below which a value per cell says no more than that of its patch
COLUMNS = ("sample", "signature", "scale", "n", "r", "ceiling", "share_of_ceiling", "r_patch", "gain", "better")


@checked
@needs_cells
def evaluate_cells(
    data: Data,
    *,
    test_fold: Natural | None = 0,
    bin_um: Micrometres = 20.0,
    n_repeats: Count = N_REPEATS,
    seed: Seed = 0,
    table_key: Key = _keys.TABLE,
    cells_key: Key = _keys.CELLS_PRED,
) -> pd.DataFrame:
    """Compare predicted scores of cells with their measured ones: cell by cell, and in bins of a few cells.

    Within each slide, over cells and over the means of the cells in squares of ``bin_um``: Pearson r with the cells' own
    scores (:func:`score_cells`); the largest r that a perfect prediction could have, given how few molecules a cell has; and the r
    that the score of the whole patch has, given to each of its cells. The ceiling is that of :func:`noise_ceiling`, of cells and bins
    in place of patches: molecules are dealt to two halves, both are scored, and their correlation is stepped up by
    Spearman-Brown. It counts the noise of counting alone. What differs between cells of one kind (overdispersion) or comes from
    neighbours counts as signal: on the synthetic tissue the measured scores of cells agree with the planted ones by r = .82 to .95
    where the ceiling says .93 to .99, and no image tells more than the former.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    test_fold
        Fold that is judged, which model and head have left out; slides without cells in it are passed over. None takes all cells, of
        slides that neither learned from.
    bin_um
        Edge of a bin, µm.
    n_repeats
        Number of random deals of the molecules.
    seed
        Of the deals.
    table_key
        Table of the cells, scored.
    cells_key
        Table of :func:`predict_cells`. Its cells are those of ``table_key`` by ``cell_id`` where the ids are the same; nuclei of
        another segmentation go to the nearest cell within 5 µm. Where several nuclei are of one cell, their mean counts.

    Returns
    -------
    One row per slide, signature and scale: ``sample``, ``signature``, ``scale`` (``"cell"`` or e.g. ``"20 um"``), ``n`` (cells or bins),
    ``r``, ``ceiling``, ``share_of_ceiling``, ``r_patch``, ``gain`` (``r - r_patch``) and ``better``: whether the gain is at
    least .01. NaN where a signature is not measured.

    Raises
    ------
    KeyMissingError
        If there is no such table, or the cells were not scored.
    InputError
        If no predicted cell is one of the measured cells, or ``test_fold`` holds none.
    LeakageError
        If model or head learned from what is judged.

    Warns
    -----
    SpatialsigWarning
        If a signature of single cells is predicted no better than by the score of their patch.

    Examples
    --------
    >>> import warnings
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> outcome = sp.tl.predict_cells(sdata, sp.datasets.toy_model(sdata))
    >>> with warnings.catch_warnings(action="ignore"):  # an untrained model sees no single cells
    ...     found = sp.tl.evaluate_cells(sdata, n_repeats=1)
    >>> found["scale"].unique().tolist()
    ['cell', '20 um']
    """
    refuse_leaks(data, [] if test_fold is None else [test_fold])
    options: dict[str, Any] = {
        "test_fold": test_fold,
        "bin_um": bin_um,
        "n_repeats": n_repeats,
        "seed": seed,
        "table_key": table_key,
        "cells_key": cells_key,
    }
    by_slide = [one for one in map_slides(data, partial(_judge, **options), "judge cells") if len(one)]
    if not by_slide:
        msg = f"`test_fold={test_fold}` holds no cell of these slides; give the fold that was held out, or None for slides that nothing learned from."
        raise InputError(msg)
    found = pd.concat(by_slide, ignore_index=True)
    _warn_of_no_gain(found)
    return found


def _judge(
    slide: Slide, *, test_fold: int | None, bin_um: float, n_repeats: int, seed: int, table_key: str, cells_key: str
) -> pd.DataFrame:
    predicted = slide.table(cells_key, name="cells_key", fix="Call `sp.tl.predict_cells` first.")
    if PATCH not in predicted.layers:
        msg = f"slide {slide.name!r}: table {cells_key!r} has no layer {PATCH!r}; wanted one of `sp.tl.predict_cells`."
        raise InputError(msg)
    slide.table(table_key)
    scored = slide.step(table_key, "score_cells", fix="Call `sp.tl.score_cells` first.")
    measured = np.asarray(slide.obsm(table_key, scored["key"], name="key", fix="Call `sp.tl.score_cells` first."))
    xy = positions(slide, table_key)
    chosen = np.ones(len(xy), bool) if test_fold is None else folds_of(slide, xy) == test_fold
    if not chosen.any():
        return pd.DataFrame(columns=list(COLUMNS))
    made = slide.params(cells_key).get("predict_cells", {})
    check_judged(slide, made, test_fold, labels_key=table_key, what="sp.tl.evaluate_cells")
    values, of_patch = _of_cells(slide, predicted, table_key, xy)
    names = [str(name) for name in predicted.var_names if str(name) in set(map(str, scored["names"]))]
    columns, own = (
        [list(map(str, scored["names"])).index(name) for name in names],
        predicted.var_names.get_indexer(names),
    )
    # of one set of cells, whatever is compared
    known = (
        chosen
        & np.isfinite(xy).all(axis=1)
        & np.isfinite(values[:, own]).all(axis=1)
        & np.isfinite(of_patch[:, own]).all(axis=1)
    )
    halves = _halves(slide, table_key, scored, n_repeats, seed)
    bins = np.unique(np.floor(xy[known] / bin_um), axis=0, return_inverse=True)[1].reshape(-1)
    rows = []
    for scale, group in (("cell", np.arange(int(known.sum()))), (f"{bin_um:g} um", bins)):
        means = partial(_means, group=group)
        truth, ours, patch = (means(part[known]) for part in (measured[:, columns], values[:, own], of_patch[:, own]))
        split = [pearson(means(one[known][:, columns]), means(other[known][:, columns])) for one, other in halves]
        ceiling = ceiling_from_halves(np.mean(split, axis=0))
        r, r_patch = pearson(truth, ours), pearson(truth, patch)
        for k, name in enumerate(names):
            share = r[k] / ceiling[k] if ceiling[k] > 0 else np.nan
            gain = r[k] - r_patch[k]
            better = bool(gain >= MIN_GAIN)
            rows.append((slide.name, name, scale, len(truth), r[k], ceiling[k], share, r_patch[k], gain, better))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _halves(
    slide: Slide, table_key: str, scored: dict[str, Any], n_repeats: int, seed: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Scores of the cells from either half of their molecules, for every deal."""
    deals = []
    for repeat in range(n_repeats):
        blocks = count_blocks(slide, table_key, list(scored["genes"]))
        one, other = scored_halves(blocks, scored, None, "mean", seed=seed + repeat)
        deals.append((one, other))
    return deals


def _of_cells(
    slide: Slide, predicted: ad.AnnData, table_key: str, xy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of the measured cells, and those of their patches, ``(n_cells, n_signatures)`` each; NaN where none is predicted."""
    ids, places = np.asarray(predicted.obs[_keys.CELL_ID]).astype(str), np.asarray(predicted.obsm[_keys.SPATIAL])
    rows = measured_rows(slide, table_key, xy, ids=ids, xy_um=places)
    there = rows >= 0
    if not there.any():
        msg = (
            f"slide {slide.name!r}: none of {predicted.n_obs} predicted cells is one of the {len(xy)} cells of table {table_key!r}, by "
            f"id or within {REACH_UM:g} µm; are they of another slide, or is the H&E misplaced?"
        )
        raise InputError(msg)
    blocks = []
    for part in (predicted.X, predicted.layers[PATCH]):
        found = np.asarray(part, np.float64)[there]
        total, n = np.zeros((len(xy), found.shape[1])), np.zeros(len(xy))
        np.add.at(total, rows[there], found)
        np.add.at(n, rows[there], 1)
        with np.errstate(invalid="ignore"):
            blocks.append(total / np.where(n > 0, n, np.nan)[:, None])
    return blocks[0], blocks[1]


def _means(values: NDArray[Any], *, group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of rows ``(n, k)`` by group."""
    n = np.bincount(group)
    sums = [np.bincount(group, column, minlength=len(n)) for column in np.asarray(values, np.float64).T]
    return np.stack(sums, axis=1) / n[:, None]


def _warn_of_no_gain(found: pd.DataFrame) -> None:
    cells = found[(found["scale"] == "cell") & found["gain"].notna()]
    mean = cells.groupby("signature", sort=False)[["r", "r_patch", "gain"]].mean()
    no_better = mean[mean["gain"] < MIN_GAIN]
    if len(no_better):
        listed = first_few(
            [f"{name} ({row.r:.3f} against {row.r_patch:.3f})" for name, row in no_better.iterrows()], n=10
        )
        warn(
            f"single cells of {len(no_better)} of {len(mean)} signatures are predicted no better (by r of .01) than by the score of their "
            f"whole patch: {listed}. Read these by patch, `sp.tl.predict`."
        )
