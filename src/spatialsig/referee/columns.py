"""What the columns of a table of predictions are: ids, places, and values.

Floor 11, above report. Used by referee/doubts, referee/laid, referee/places, referee/reading, referee/scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

from spatialsig import _keys
from spatialsig._checks import comma_hint, first_few, warn
from spatialsig.errors import InputError
from spatialsig.slide.table_rows import dense

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

PATCH, CELL = "patch", "cell"
UM, PX = "um", "px"
LARGEST = 1e100  # of a prediction whose square can still be summed
# columns that hold the middle of a square or a cell, as tools name them: x, y, frame (None: the column does not say)
_PLACES = (
    ("x_um", "y_um", UM), ("x_px", "y_px", PX), ("x_centroid", "y_centroid", UM), ("x_pixel", "y_pixel", PX),
    ("pixel_x", "pixel_y", PX), ("pxl_col_in_fullres", "pxl_row_in_fullres", PX), ("x", "y", None),
)  # fmt: skip
_CORNERS = (("x0_px", "y0_px"), (_keys.X0, _keys.Y0))  # top left, px of the H&E
_SIZES = ("size_px", "size_um")
_IDS = ((_keys.PATCH_ID, PATCH), (_keys.CELL_ID, CELL))
_OTHERS = {
    _keys.SAMPLE, _keys.PATIENT, _keys.FOLD, _keys.REGION_KEY, _keys.N_CELLS, _keys.N_COUNTS, _keys.ROW, _keys.COL, "tile_id",
    _keys.TISSUE_FRACTION, _keys.FOCUS, _keys.WHITE_SHARE, _keys.PEN_SHARE, _keys.FOLD_SHARE, _keys.STAIN_OUTLIER, _keys.QC_PASS,
    "array_row", "array_col", "in_tissue", "barcode",
}  # fmt: skip
_LAYERS = tuple(f" {name}" for name in (_keys.STD, _keys.LOWER, _keys.UPPER, _keys.SEM, "blended"))


@dataclass(frozen=True)
class Outside:
    """Predictions of one slide as they came."""

    where: str  # the source, for messages
    sample: str
    values: NDArray[np.float64]  # (n, k)
    names: list[str]  # of the columns: signatures or genes
    ids: pd.Index | None = None  # of the rows
    kind: str | None = None  # what the ids are of: patches or cells
    xy: NDArray[np.float64] | None = None  # (n, 2) middle of each row
    frame: str | None = None  # unit of the places; None where nothing says it
    corners: bool = False  # whether the places are top left corners
    size: float | None = None  # edge of their squares, in the unit of the places

    def with_values(self, values: NDArray[np.float64], names: list[str]) -> Outside:
        """The same rows with other values."""
        return replace(self, values=values, names=names)


def of_frame(frame: pd.DataFrame, *, where: str, sample: str) -> Outside:
    """Rows of a frame: numbers that are neither ids nor places nor known notes are predictions."""
    names = list(map(str, frame.columns))
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        msg = f"{where}: columns {first_few(repeated)} stand there twice; give each a name of its own."
        raise InputError(msg)
    frame = frame.set_axis(names, axis=1)
    if frame.index.name in dict(_IDS) and frame.index.name not in frame:
        frame = frame.reset_index()
    notes = _notes(frame)
    kept = [
        name for name in names if name not in notes and not name.endswith(_LAYERS) and not name.startswith("Unnamed")
    ]
    text = [name for name in kept if not is_numeric_dtype(frame[name])]
    commas = [name for name in text if frame[name].notna().any() and comma_hint(frame[name].dropna().iloc[0])]
    if commas:
        msg = f"{where}: column {commas[0]!r} holds {frame[commas[0]].dropna().iloc[0]!r}; save the table with decimal points."
        raise InputError(msg)
    kept = [name for name in kept if name not in text and not is_bool_dtype(frame[name])]
    if unreal := [name for name in kept if is_complex_dtype(frame[name])]:
        msg = f"{where}: columns {first_few(unreal)} hold complex numbers; wanted scores."
        raise InputError(msg)
    if text and kept:
        warn(f"{where}: columns {first_few(text)} hold text, no numbers, and are not judged.")
    if not kept:
        msg = f"{where}: no column holds predicted numbers; its columns are {first_few(names)}."
        raise InputError(msg)
    return _checked(_described(frame, where, sample), frame[kept].to_numpy(np.float64), kept)


def of_anndata(table: ad.AnnData, *, where: str, sample: str) -> Outside:
    """Rows of an AnnData, whose ``X`` are the predictions; places by columns of ``obs``, else ``obsm['spatial']``."""
    if table.X is None:
        msg = f"{where}: the table has no X; wanted the predictions there, one column per gene or signature."
        raise InputError(msg)
    obs = table.obs.copy()
    if obs.index.name in dict(_IDS) and obs.index.name not in obs:
        obs = obs.reset_index()
    found = _described(obs, where, sample)
    if found.xy is None and _keys.SPATIAL in table.obsm:
        xy = np.asarray(table.obsm[_keys.SPATIAL], np.float64)[:, :2]
        found = replace(found, xy=xy, frame=UM if _keys.NAMESPACE in table.uns else None)
    if found.ids is None and found.xy is None:
        found = replace(found, ids=table.obs_names)
    return _checked(found, dense(table.X).astype(np.float64), list(map(str, table.var_names)))


def _notes(frame: pd.DataFrame) -> set[str]:
    """Columns that are no predictions."""
    places = {name for x, y, _ in _PLACES if {x, y} <= set(frame) for name in (x, y)}
    corners = {name for pair in _CORNERS if set(pair) <= set(frame) for name in pair}
    return places | corners | set(_SIZES) | set(dict(_IDS)) | _OTHERS


def _described(frame: pd.DataFrame, where: str, sample: str) -> Outside:
    """Ids and places of the rows."""
    found = Outside(where, sample, np.empty((len(frame), 0)), [])
    for column, kind in _IDS:
        if column in frame:
            found = replace(found, ids=pd.Index(frame[column]), kind=kind)
            break
    for x, y in _CORNERS:
        if {x, y} <= set(frame):
            size = _size(frame, "size_px")
            return replace(found, xy=_numbers(frame, [x, y], where), frame=PX, corners=True, size=size)
    for x, y, unit in _PLACES:
        if {x, y} <= set(frame):
            size = _size(frame, f"size_{unit}") if unit else None
            return replace(found, xy=_numbers(frame, [x, y], where), frame=unit, size=size)
    if found.ids is None and not isinstance(frame.index, pd.RangeIndex):
        return replace(found, ids=frame.index)
    return found


def _size(frame: pd.DataFrame, column: str) -> float | None:
    return float(frame[column].median()) if column in frame else None


def _numbers(frame: pd.DataFrame, columns: list[str], where: str) -> NDArray[np.float64]:
    if not all(is_numeric_dtype(frame[column]) for column in columns):
        msg = f"{where}: columns {columns} are no numbers; wanted places."
        raise InputError(msg)
    return frame[columns].to_numpy(np.float64)


def _checked(found: Outside, values: NDArray[Any], names: list[str]) -> Outside:
    huge = int((np.abs(values) > LARGEST).sum())
    if huge:
        msg = (
            f"{found.where}: {huge} of {values.size} predictions are infinite or beyond {LARGEST:.0e} (column "
            f"{names[int((np.abs(values) > LARGEST).any(axis=0).argmax())]!r}); make them missing (NaN)."
        )
        raise InputError(msg)
    lost = 0 if found.xy is None else int((~np.isfinite(found.xy)).any(axis=1).sum())
    if lost:
        msg = f"{found.where}: {lost} of {len(values)} rows have a place that is missing or infinite; leave these rows out."
        raise InputError(msg)
    empty = [name for name, column in zip(names, values.T, strict=True) if np.isnan(column).all()]
    if empty and len(empty) < len(names):
        warn(f"{found.where}: columns {first_few(empty)} hold no number, and are not judged.")
        kept = [k for k, name in enumerate(names) if name not in empty]
        values, names = values[:, kept], [names[k] for k in kept]
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        msg = f"{found.where}: several columns are named {first_few(repeated)}; wanted one each."
        raise InputError(msg)
    if found.ids is None and found.xy is None:
        msg = (
            f"{found.where}: nothing says where a row belongs, and their order is not trusted. Add a column "
            f"{_keys.PATCH_ID!r} or {_keys.CELL_ID!r}, or places: x_um and y_um (µm of the cells), or x_px and y_px (px of the H&E)."
        )
        raise InputError(msg)
    return found.with_values(values, names)
