"""Ids, centroids and pixel size read from ``cells.zarr.zip``, whose checksums make it the copy to check others by.

Floor 7, above evaluation. Used by io/_xenium, io/xenium/polygons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.io.xenium.bundle import BYTE_IDS, CELLS_ZARR, INTEGER_IDS, TEXT_IDS
from spatialsig.io.xenium.zipped import open_zip

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CENTROID = ("x_centroid", "y_centroid")
_SUMMARY = {
    "x_centroid": "cell_centroid_x",
    "y_centroid": "cell_centroid_y",
    "cell_area": "cell_area",
    "nucleus_area": "nucleus_area",
    "nucleus_count": "nucleus_count",
}  # column of cells.parquet -> column of the summary
_METHOD = "segmentation_method"
_SAME = 1e-3  # um, um2: both files hold the same numbers
_SAME_PIXEL_SIZE = 1e-5  # relative; the transform is stored in single precision
_HINT = " Without `boundaries`, `transcripts` and `morphology` it may also be left out."


@dataclass(frozen=True)
class Segmentation:
    """Content of ``cells.zarr.zip``."""

    path: Path
    generation: str  # XOA versions that write it so, see :class:`Layout`
    cell_ids: NDArray[np.str_]  # (n_cells,)
    summary: pd.DataFrame  # columns named as in ``cells.parquet``, one row per cell
    pixel_size: float | None  # um per morphology px
    methods: frozenset[str]  # how cells can have been segmented; empty where the file does not say


def read_segmentation(path: Path) -> Segmentation | None:
    """Read the small arrays of ``cells.zarr.zip``; None without the file, :class:`InputError` if it is damaged."""
    file = path / CELLS_ZARR
    if not file.exists():
        return None
    with open_zip(file, hint=_HINT) as group:
        return _read(file, group)


def _read(file: Path, group: Any) -> Segmentation:
    raw = np.asarray(group["cell_id"][...])
    columns = list(group["cell_summary"].attrs["column_names"]) if "cell_summary" in group else []
    values = np.asarray(group["cell_summary"][...]) if columns else np.empty((len(raw), 0))
    scale = np.asarray(group["masks/homogeneous_transform"][...]) if "masks/homogeneous_transform" in group else None
    methods = frozenset(map(str, group.attrs.get("segmentation_methods", ())))
    generation = TEXT_IDS if "polygon_sets" in group else BYTE_IDS if "seg_mask_value" in group else INTEGER_IDS
    if generation == INTEGER_IDS and raw.ndim == 2 and raw.shape[1] == 2:
        generation = BYTE_IDS  # pairs of numbers are ids as text
    frame = pd.DataFrame(values, columns=columns)
    columns_there = {ours: frame[theirs] for ours, theirs in _SUMMARY.items() if theirs in frame}
    summary = pd.DataFrame(columns_there, index=range(len(raw)))
    pixel_size = None if scale is None else _pixel_size(scale)
    return Segmentation(file, generation, cell_names(raw), summary, pixel_size, methods)


def cell_names(raw: NDArray[Any]) -> NDArray[np.str_]:
    """``(n,)`` numbers as they are, ``(n, 2)`` as XOA writes them: eight letters a-p and the number of the dataset."""
    if raw.ndim == 1 or raw.shape[1] == 1:
        return raw.reshape(-1).astype(str)
    shifts = np.arange(28, -1, -4, dtype=np.uint32)
    letters = ((raw[:, :1].astype(np.uint32) >> shifts) & 15).astype(np.uint8) + ord("a")
    names = np.ascontiguousarray(letters).view("S8").ravel().astype(str)
    ids: NDArray[np.str_] = np.char.add(np.char.add(names, "-"), raw[:, 1].astype(str))
    return ids


def _pixel_size(scale: NDArray[Any]) -> float:
    with np.errstate(divide="ignore"):
        return float(1 / np.float64(scale[0, 0]))


def check_pixel_size(segmentation: Segmentation, pixel_size: float, *, specs: Path) -> None:
    """Raise :class:`InputError` if the bundle contradicts itself on the size of a morphology px."""
    in_zip = segmentation.pixel_size
    if in_zip is None or np.isclose(in_zip, pixel_size, rtol=_SAME_PIXEL_SIZE, atol=0):
        return
    msg = (
        f"`pixel_size` in {str(specs)!r} is {pixel_size!r} um, but masks/homogeneous_transform in "
        f"{str(segmentation.path)!r} means {in_zip:.6g} um: restore the original file."
    )
    raise InputError(msg)


def check_cells(segmentation: Segmentation, cells: pd.DataFrame, *, name: str, needed: bool) -> None:
    """Compare ids, centroids and areas of the zip with the frame that :func:`read_cells` took from the file ``name``.

    Where they differ it raises :class:`InputError` if ``needed``, because elements are read that rest on the zip;
    otherwise it warns.
    """
    ids, complaints = pd.Index(segmentation.cell_ids), []
    each = np.flatnonzero(~ids.duplicated())
    if len(each) < len(ids):
        complaints.append(f"{len(ids) - len(each)} ids stand there twice")
    place = ids[each].get_indexer(pd.Index(cells["cell_id"]))
    rows = np.where(place >= 0, each[place], -1)
    if (rows < 0).any() or len(segmentation.cell_ids) != len(cells):
        missing, extra = int((rows < 0).sum()), len(segmentation.cell_ids) - int((rows >= 0).sum())
        complaints.append(f"{missing} of its {len(cells)} cells are missing there and {extra} are only there")
    ours, theirs = cells[rows >= 0], segmentation.summary.iloc[rows[rows >= 0]]
    for column in [column for column in theirs if column in ours]:
        one, two = (np.nan_to_num(frame[column].to_numpy(float), posinf=0, neginf=0) for frame in (ours, theirs))
        differ = ~np.isclose(one, two, rtol=1e-6, atol=_SAME)
        if column in CENTROID:  # cells without a position are counted where they are dropped
            differ &= np.isfinite(ours[column].to_numpy(float))
        if differ.any():
            first = int(np.flatnonzero(differ)[0])
            example = f"{one[first]:g} against {two[first]:g} for {ours['cell_id'].iloc[first]!r}"
            complaints.append(f"{column} differs for {int(differ.sum())} cells, as {example}")
    if not complaints:
        _check_methods(segmentation, cells, name=name)
        return
    msg = (
        f"{name!r} and {str(segmentation.path)!r} are not of one run: {'; '.join(complaints)}. Take both files from one "
        f"bundle."
    )
    if needed:
        raise InputError(msg)
    warn(msg)


def _check_methods(segmentation: Segmentation, cells: pd.DataFrame, *, name: str) -> None:
    if _METHOD not in cells or not segmentation.methods:
        return
    unknown = cells.loc[~cells[_METHOD].astype(str).isin(segmentation.methods), _METHOD]
    if len(unknown):
        msg = (
            f"{_METHOD} in {name!r} is {unknown.iloc[0]!r} for {len(unknown)} cells, which {str(segmentation.path)!r} does "
            f"not list: {sorted(segmentation.methods)}. Take both files from one bundle."
        )
        warn(msg)
