"""Scores of the patches of a slide in the order of its patches, and pairs of measured and predicted ones.

Floor 7, above evaluation. Used by 10 modules of pl, report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import ACCENT, canvas
from spatialsig.pl.drawing.slide_panels import series_colour
from spatialsig.slide.slides import open_slides
from spatialsig.slide.table_rows import aligned, scores_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Data, Slide

HOW_TO_MEASURE = "Call `sp.tl.aggregate_patches` first."
HOW_TO_PREDICT = "Call `sp.tl.predict` first."
Pair: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.float64]]"  # measured, predicted
Pairs: TypeAlias = "dict[str, Pair]"  # slide -> its pair
PANEL_IN = 3.1
MAX_COLUMNS = 3
MAX_NAMED = 6  # slides in a legend


def signature_table(slide: Slide, table_key: str, *, name: str) -> ad.AnnData:
    """Table of measured or predicted scores; the error names the slide, what exists, and the function that makes it."""
    fix = HOW_TO_PREDICT if name == "predictions_key" else HOW_TO_MEASURE
    return slide.table(table_key, name=name, fix=fix)


def shown_values(patches: Patches, name: str, table_key: str) -> NDArray[np.float64]:
    """Values that colour the patches, ``(n_patches,)``: a signature, a numeric column of its table, or one of the patches.

    The error where nothing numeric has that name lists what has.
    """
    slide = patches.slide
    columns = patches.shapes.drop(columns="geometry").select_dtypes(["number", "bool"])
    if name in columns:
        shown: NDArray[np.float64] = columns[name].to_numpy(np.float64)
        return shown
    if table_key not in slide.sdata.tables:
        predicted = table_key == _keys.SIGNATURES and _keys.SIGNATURES_PRED in slide.sdata.tables
        how = f"pass `table_key={_keys.SIGNATURES_PRED!r}` for predicted scores" if predicted else HOW_TO_MEASURE
        available = f"columns of {patches.key!r}, and there is no table {table_key!r} ({how})"
        check_key(list(columns), name, name="signature", where=f"slide {slide.name!r}: {available}")
    table = slide.sdata.tables[table_key]
    numeric = table.obs.select_dtypes(["number", "bool"])
    if name in table.var_names:
        return patch_values(patches, table_key, name, name="signatures_key")
    where = f"the signatures and numeric columns of slide {slide.name!r}"
    check_key([*table.var_names, *numeric, *columns], name, name="signature", where=where)
    _check_annotates(patches, table_key)
    return patches.column(table_key, name)


def patch_values(
    patches: Patches, table_key: str, signature: str, *, name: str, fold: int | None = None
) -> NDArray[np.float64]:
    """One signature, ``(n_patches,)`` in the order of the patches; NaN where there is none.

    With ``fold``, patches of any other fold are NaN too. ``name`` is the argument that named the table.
    """
    table = signature_table(patches.slide, table_key, name=name)
    matrix = scores_of(patches.slide, table_key)
    where = f"table {table_key!r} of slide {patches.slide.name!r}"
    check_key(list(table.var_names), signature, name="signature", where=where)
    _check_annotates(patches, table_key)
    column = matrix[:, [table.var_names.get_loc(signature)]]
    values = aligned(column, patches.rows_in(table_key), np.float64)[:, 0]
    if fold is not None:
        check_key(list(table.obs), _keys.FOLD, name="obs", where=where, fix="Call `sp.pp.split` first.")
        values[patches.column(table_key, _keys.FOLD) != fold] = np.nan
    return values


def _check_annotates(patches: Patches, table_key: str) -> None:
    """Refuse a table none of whose rows describes one of the patches."""
    if not (patches.rows_in(table_key) >= 0).any():
        region = patches.slide.table(table_key).uns.get("spatialdata_attrs", {}).get("region")
        msg = f"table {table_key!r} of slide {patches.slide.name!r} annotates {region!r}, not `patches_key={patches.key!r}`."
        raise InputError(msg)


@dataclass(frozen=True)
class ScoreTables:
    """Where measured and predicted scores of the same patches stand; those of all folds when ``fold`` is None."""

    signatures_key: str = _keys.SIGNATURES
    predictions_key: str = _keys.SIGNATURES_PRED
    patches_key: str = _keys.PATCHES
    fold: int | None = None

    def names(self, slide: Slide) -> list[str]:
        """Signatures that both tables hold."""
        measured = signature_table(slide, self.signatures_key, name="signatures_key").var_names
        predicted = signature_table(slide, self.predictions_key, name="predictions_key").var_names
        return [name for name in measured if name in set(predicted)]

    def read(self, patches: Patches, signature: str) -> Pair:
        """Measured and predicted scores of every patch, NaN where there are none."""
        measured = patch_values(patches, self.signatures_key, signature, name="signatures_key", fold=self.fold)
        predicted = patch_values(patches, self.predictions_key, signature, name="predictions_key", fold=self.fold)
        return measured, predicted


def collect_pairs(data: Data, signature: str | Sequence[str] | None, tables: ScoreTables) -> dict[str, Pairs]:
    """Pairs of every slide by signature; patches that lack either score are left out; an error where none is left."""
    signatures = [signature] if isinstance(signature, str) else signature
    pairs: dict[str, Pairs] = {}
    for slide in open_slides(data):
        for name, pair in slide_pairs(slide, signatures, tables).items():
            pairs.setdefault(name, {})[slide.name] = pair
    if not pairs:
        msg = (
            f"no patch has both a measured and a predicted score (signatures {signatures or 'all'}, "
            f"`fold={tables.fold}`)."
        )
        raise InputError(msg)
    return pairs


def slide_pairs(slide: Slide, signatures: Sequence[str] | None, tables: ScoreTables) -> dict[str, Pair]:
    """Pairs of one slide by signature, all that both tables hold when None; none without a common patch."""
    patches = slide.patches(tables.patches_key)
    names = tables.names(slide)
    pairs = {}
    for signature in names if signatures is None else signatures:
        measured, predicted = tables.read(patches, signature)
        both = np.isfinite(measured) & np.isfinite(predicted)
        if both.any():
            pairs[signature] = measured[both], predicted[both]
    return pairs


def panel_grid(n_panels: int, figure: Figure | None, *, xlabel: str, ylabel: str) -> tuple[Figure, NDArray[Any]]:
    """A figure and its axes ``(n_rows, n_columns)`` with shared labels; unused axes are invisible."""
    columns = min(MAX_COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    drawing = canvas(figure, width_in=PANEL_IN * columns + 0.3, height_in=PANEL_IN * rows + 0.3)
    axes: NDArray[Any] = drawing.subplots(rows, columns, squeeze=False)
    for unused in axes.flat[n_panels:]:
        unused.set_visible(False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.set_box_aspect(1)
    drawing.supxlabel(xlabel, fontsize=10)
    drawing.supylabel(ylabel, fontsize=10)
    return drawing, axes


def slide_colour(index: int, n_slides: int) -> str:
    """Colour of one slide among others; the same for all where there are too many to tell apart."""
    return series_colour(index) if n_slides <= MAX_NAMED else ACCENT
