"""What the patches of a slide show in an atlas: scores, their intervals and what else is known of each patch.

Floor 8, above io, pl, pp, tl. Used by atlas/page.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key, first_few
from spatialsig.errors import InputError
from spatialsig.inference.domain import outside_in_words
from spatialsig.pl.drawing.maps import learnt, made_by
from spatialsig.slide.table_rows import aligned, dense

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide

MEASURED, PREDICTED, INTERVAL, STD = "measured", "predicted", "interval", "std"
NONE = 65535  # stands for a patch without a value
_NO_VALUES = {_keys.X0, _keys.Y0, _keys.FOLD, _keys.PATCH_ID, _keys.ROW, _keys.COL}  # numbers that are places or names


@dataclass(frozen=True)
class Tables:
    """Names of the elements of every slide."""

    signatures: str
    predictions: str


@dataclass
class SlideValues:
    """Everything that can colour the patches of a slide; the slide itself is not held."""

    notes: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)  # those of the notes that say why not to trust what is shown
    scores: dict[str, dict[str, NDArray[np.float32]]] = field(
        default_factory=dict
    )  # layer -> signature -> (n_patches,)
    columns: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # what is known of each patch beside scores

    @property
    def failed(self) -> NDArray[np.bool_] | np.bool_:
        """Which patches fail quality control; False where it was not measured."""
        return self.columns[_keys.QC_PASS] == 0 if _keys.QC_PASS in self.columns else np.False_

    @property
    def signatures(self) -> list[str]:
        """Signatures of any layer, in the order of the tables."""
        return list(dict.fromkeys(name for layer in self.scores.values() for name in layer))


def values_of(patches: Patches, tables: Tables, signatures: Sequence[str] | None) -> SlideValues:
    """Gather one slide; a table that is not there is left out, but one of them must be."""
    slide, found = patches.slide, SlideValues()
    there = [key for key in (tables.signatures, tables.predictions) if key in slide.sdata.tables]
    if not there:
        msg = (
            f"slide {slide.name!r} has neither measured scores ({tables.signatures!r}) nor predicted ones ({tables.predictions!r}); "
            f"available tables: {first_few(list(slide.sdata.tables)) or 'none'}. Call `sp.tl.aggregate_patches` or `sp.tl.predict` first."
        )
        raise InputError(msg)
    for layer, key in ((MEASURED, tables.signatures), (PREDICTED, tables.predictions)):
        if key in there:
            matrix = patches.matrix(key, name="signatures_key" if layer == MEASURED else "predictions_key")
            found.scores[layer] = dict(zip(matrix.names, matrix.values.T, strict=True))
            _add_columns(found, slide.table(key).obs, patches.rows_in(key))
    if tables.predictions in there:
        _add_uncertainty(found, patches, tables.predictions)
        found.cautions = _cautions(slide, tables.predictions)
        found.notes += [*_notes(slide, tables.predictions), *found.cautions]
    _add_columns(found, patches.shapes.drop(columns="geometry"), np.arange(len(patches)))
    if signatures is not None:
        for name in signatures:
            check_key(found.signatures, name, name="signatures", where=f"slide {slide.name!r}")
        found.scores = {
            layer: {name: of_layer[name] for name in signatures if name in of_layer}
            for layer, of_layer in found.scores.items()
        }
    return found


def _add_uncertainty(found: SlideValues, patches: Patches, key: str) -> None:
    """Width of the intervals, and standard deviations, where the predictions have them."""
    table, rows = patches.slide.table(key), patches.rows_in(key)
    layers = {
        name: aligned(dense(table.layers[name]), rows, np.float32)
        for name in (_keys.LOWER, _keys.UPPER, _keys.STD)
        if name in table.layers
    }
    names = list(map(str, table.var_names))
    if {_keys.LOWER, _keys.UPPER} <= set(layers):
        found.scores[INTERVAL] = dict(zip(names, (layers[_keys.UPPER] - layers[_keys.LOWER]).T, strict=True))
    if _keys.STD in layers:
        found.scores[STD] = dict(zip(names, layers[_keys.STD].T, strict=True))


def _add_columns(found: SlideValues, frame: pd.DataFrame, rows: NDArray[np.int64]) -> None:
    """Numeric columns of a frame, of which ``rows`` describe the patches."""
    for name in frame.select_dtypes(["number", "bool"]):
        if name not in _NO_VALUES and name not in found.columns:
            found.columns[str(name)] = aligned(frame[[name]], rows)[:, 0]


def _notes(slide: Slide, key: str) -> list[str]:
    inputs = str(made_by(slide, key).get("inputs", ""))
    return [f"predicted from {inputs}"] if inputs else []


def _cautions(slide: Slide, key: str) -> list[str]:
    cautions = []
    if said := learnt(slide, key):
        cautions.append(f"model {said}: its agreement here says nothing about new slides")
    if outside := outside_in_words(made_by(slide, key).get(_keys.OOD, {})):
        cautions.append(outside)
    return cautions


def quantised(values: NDArray[np.float32]) -> dict[str, Any]:
    """Values as 16-bit steps between their lowest and highest one, as text; what is not finite as ``NONE``."""
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    steps = np.full(len(values), NONE, "<u2")
    width = (high - low) or 1.0
    steps[finite] = np.rint((values[finite].astype(np.float64) - low) / width * (NONE - 1)).astype("<u2")
    return {"low": low, "high": high, "steps": as_text(steps)}


def as_text(values: NDArray[Any]) -> str:
    """Bytes of an array, base64."""
    return base64.b64encode(values.tobytes()).decode("ascii")


def joined(slides: Sequence[SlideValues], layers: Sequence[str], name: str) -> list[NDArray[np.float64]]:
    """Values of a signature on all slides, of these layers, of patches that did not fail quality control."""
    return [
        np.where(slide.failed, np.nan, slide.scores[layer][name].astype(np.float64))
        for slide in slides
        for layer in layers
        if name in slide.scores.get(layer, {})
    ]


def columns_of(slides: Sequence[SlideValues]) -> Mapping[str, list[NDArray[np.float64]]]:
    """Values of every column on all slides that have it."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for slide in slides:
        for name, values in slide.columns.items():
            if np.isfinite(values).any():
                found.setdefault(name, []).append(values.astype(np.float64))
    return found
