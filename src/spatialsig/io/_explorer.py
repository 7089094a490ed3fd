"""Cells in groups by their predicted scores, for Xenium Explorer.

Floor 7, above evaluation. Called as sp.io.export_explorer_groups; used by cli/project_commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, NotNegative, checked
from spatialsig._files import check_target, replaced
from spatialsig.errors import InputError
from spatialsig.io._scored_cells import ScoredCells, scored_cells
from spatialsig.slide.slides import Data

NONE = "none"  # group of cells of no signature
MARGIN = 1.0  # standard deviations


@checked
def export_explorer_groups(
    data: Data,
    path: AnyPath,
    signature: Key | None = None,
    *,
    n_groups: Annotated[int, Field(ge=2, le=100)] = 4,
    margin: NotNegative = MARGIN,
    table_key: Key = _keys.CELLS_PRED,
) -> int:
    """Write the cells in groups by their predicted scores, as Xenium Explorer reads them.

    In Xenium Explorer: Cells, Add cell categorization, and this file. Ids are those of the bundle where the cells are its own
    (``sp.tl.predict_cells`` of the table or of ``"nucleus_boundaries"``).

    Parameters
    ----------
    data
        One slide: SpatialData or path of its store; not modified.
    path
        File to write, ``*.csv``.
    signature
        Score whose quantiles are the groups, ``"<signature> Q1"`` (lowest) to ``Q<n_groups>``; None groups every cell by the
        signature that is highest in it, each in standard deviations above its mean over the cells, and as ``"none"`` where none is
        ``margin`` above it: every cell has a highest score, and most cells of a tissue are none of the types that were asked for.
    margin
        Standard deviations that a signature must lie above its mean over the cells to name one; without ``signature``.
    n_groups
        Number of quantiles.
    table_key
        Table of :func:`spatialsig.tl.predict_cells`.

    Returns
    -------
    Number of cells in the file, which has the columns ``cell_id`` and ``group``. Cells without a score are left out; a cell of
    several nuclei has the mean of their scores.

    Raises
    ------
    KeyMissingError
        If table or signature do not exist.
    InputError
        If ``data`` is several slides, no cell has a score or all have the same, or ``path`` does not end with ``.csv`` or lies in a
        Zarr store.

    Examples
    --------
    >>> import tempfile
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> outcome = sp.tl.predict_cells(sdata, sp.datasets.toy_model(sdata))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sp.io.export_explorer_groups(sdata, f"{folder}/groups.csv", "Immune_T") > 1000
    True
    """
    check_target(Path(path), (".csv",))
    cells = scored_cells(data, table_key)
    names = list(map(str, cells.table.var_names)) if signature is None else [signature]
    scores = pd.DataFrame({name: cells.values(name) for name in names}).groupby(cells.ids, sort=False).mean()
    scores = scores.dropna(how="all")
    if not len(scores):
        msg = f"{cells.where} has no score of {names} in any of {cells.table.n_obs} cells; there is nothing to export."
        raise InputError(msg)
    if scores.nunique().max() < 2:
        msg = f"{cells.where}: the scores of {names} are equal in all of {len(scores)} cells with one; they make no groups."
        raise InputError(msg)
    groups = _highest(scores, cells, margin) if signature is None else _quantiles(scores[signature], n_groups)
    with replaced(Path(path)) as partial:
        pd.DataFrame({_keys.CELL_ID: scores.index, "group": groups}).to_csv(partial, index=False)
    return len(scores)


def _quantiles(scores: pd.Series, n_groups: int) -> list[str]:
    edges = np.quantile(scores, np.linspace(0, 1, n_groups + 1)[1:-1])
    number = np.searchsorted(edges, scores, side="right") + 1
    width = len(str(n_groups))  # so that they stand in order in a list by name
    return [f"{scores.name} Q{one:0{width}d}" for one in number]


def _highest(scores: pd.DataFrame, cells: ScoredCells, margin: float) -> list[str]:
    known = scores.dropna(axis=1, how="all")
    if known.shape[1] < 2:
        msg = f"{cells.where} has scores of {list(known)} only: give `signature=`, whose quantiles are then the groups."
        raise InputError(msg)
    standard = (known - known.mean()) / known.std().replace(0, 1)
    return list(map(str, standard.idxmax(axis=1).where(standard.max(axis=1) >= margin, NONE)))
