"""The results of one slide as files: table, csv, GeoJSON, heat maps, and what the page of all slides shows.

Floor 11, above report. Used by whole_slides/guard, whole_slides/one_slide.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys, io, pl
from spatialsig._files import write_csv
from spatialsig._hashing import file_hash
from spatialsig.io._scores import scored_patches
from spatialsig.models.record import write_json
from spatialsig.slide.coordinates import full_resolution, image_of
from spatialsig.slide.slides import Slide
from spatialsig.stats.overlap import blended
from spatialsig.whole_slides.kept import FORMAT, RECORD
from spatialsig.whole_slides.overview import write_overview

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import anndata as ad
    from spatialdata import SpatialData

    from spatialsig.slide.patches import Patches

BLENDED = "blended"  # layer of a table, and table of the maps where patches overlap
X_UM, Y_UM, X0_PX, Y0_PX, SIZE_PX = "x_um", "y_um", "x0_px", "y0_px", "size_px"
_LAYERS = (_keys.STD, _keys.LOWER, _keys.UPPER, BLENDED)
_OF_SHAPES = (
    _keys.ROW, _keys.COL, _keys.TISSUE_FRACTION, _keys.FOCUS, _keys.WHITE_SHARE, _keys.PEN_SHARE, _keys.FOLD_SHARE,
    _keys.STAIN_OUTLIER, _keys.QC_PASS,
)  # fmt: skip
HEATMAPS, ATLAS = "heatmaps", "atlas.html"


@dataclass(frozen=True)
class Results:
    """A predicted slide, and the tables that are written of it."""

    sdata: SpatialData
    patches: Patches
    table: ad.AnnData
    maps_key: str  # table of what maps show: the predictions, or their means where patches overlap

    @property
    def name(self) -> str:
        """Sample name."""
        return self.patches.slide.name


def write_results(
    draft: Path, sdata: SpatialData, record: Mapping[str, Any], formats: tuple[str, ...], *, started: float
) -> dict[str, Any]:
    """Write the files of a slide into a folder, and the record of them; the number of patches, and how far the slide lies outside."""
    results = _results(sdata, record)
    for name in formats:
        WRITERS[name](draft, results)
    files = {
        str(path.relative_to(draft)): path.stat().st_size
        for path in sorted(draft.rglob("*"))
        if path.is_file() and not any(part.endswith(".zarr") for part in path.relative_to(draft).parts)
    }
    checksums = {name: file_hash(draft / name) for name in files}  # by which what was changed by hand is known
    facts = _facts(results) | {"seconds": round(time.perf_counter() - started, 2)}
    write_json(
        draft / RECORD,
        {"format": FORMAT, **record, **facts, "formats": list(formats), "files": files, "checksums": checksums},
    )
    return {name: facts[name] for name in ("n_patches", _keys.OOD)}


def _results(sdata: SpatialData, record: Mapping[str, Any]) -> Results:
    patches = Slide(sdata).patches()
    table, maps_key = sdata.tables[_keys.SIGNATURES_PRED].copy(), _keys.SIGNATURES_PRED
    spec, shapes = patches.spec, patches.shapes
    places: dict[str, Any] = {X_UM: patches.centres_um[:, 0], Y_UM: patches.centres_um[:, 1]}
    places |= {X0_PX: patches.origins[:, 1], Y0_PX: patches.origins[:, 0], SIZE_PX: spec.size_l0}
    places |= {name: shapes[name].to_numpy() for name in _OF_SHAPES if name in shapes}
    table.obs = table.obs.drop(columns=_keys.FOLD).assign(**places)
    if spec.stride_l0 < spec.size_l0:
        cell = shapes[[_keys.ROW, _keys.COL]].to_numpy(np.int64)
        table.layers[BLENDED] = blended(np.asarray(table.X), cell, size=spec.size_l0, stride=spec.stride_l0)
        maps_key = BLENDED
        blend = patches.table(table.layers[BLENDED], list(table.var_names), n_cells=None)
        blend.uns[_keys.NAMESPACE] = dict(table.uns[_keys.NAMESPACE])  # by which an atlas says what they were made by
        sdata[maps_key] = blend
    provenance = {name: record[name] for name in ("model", "image", "options")}
    table.uns[_keys.NAMESPACE] = _without_none(table.uns[_keys.NAMESPACE] | {"predict_files": provenance})
    return Results(sdata, patches, table, maps_key)


def _without_none(value: Any) -> Any:
    """The same mapping without entries that are None, which older AnnData cannot write."""
    if not isinstance(value, dict):
        return value
    return {name: _without_none(entry) for name, entry in value.items() if entry is not None}


def _facts(results: Results) -> dict[str, Any]:
    """What the page and the table of all slides say about one."""
    slide, spec = results.patches.slide, results.patches.spec
    full = full_resolution(image_of(slide, _keys.IMAGE))
    values = np.asarray(results.table.X, np.float64)
    tissue = results.sdata.shapes[_keys.TISSUE]
    passed = results.patches.shapes.get(_keys.QC_PASS)
    shown = values if passed is None else values[passed.to_numpy(bool)]
    return {
        "sample": slide.name,
        "patient": slide.patient,
        "spatialsig": version("spatialsig"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "um_per_px": spec.image_um_per_px,
        "size_px": [int(full.sizes["x"]), int(full.sizes["y"])],
        "patch_um": spec.patch_px * spec.um_per_px,
        "stride_um": spec.stride_l0 * spec.image_um_per_px,
        "tissue_mm2": float(tissue[_keys.AREA_UM2].sum() / 1e6),
        "n_patches": len(results.patches),
        "n_pass": None if passed is None else int(passed.sum()),
        **_outside(results.table),
        "means": dict(zip(results.table.var_names, shown.mean(axis=0).tolist(), strict=True)) if len(shown) else {},
    }


def _outside(table: ad.AnnData) -> dict[str, Any]:
    """How far the slide lies from what the model learned from, and in what; None where it does not know."""
    found = table.uns[_keys.NAMESPACE]["predict"].get(_keys.OOD)
    known = found is not None and np.isfinite(found["slide"])
    return {_keys.OOD: found["slide"] if known else None, _keys.OOD_REASON: found["reason"] if known else None}


def _h5ad(draft: Path, results: Results) -> None:
    results.table.write_h5ad(draft / f"{results.name}.h5ad", compression="gzip")


def _csv(draft: Path, results: Results) -> None:
    table, names = results.table, list(results.table.var_names)
    columns = [pd.DataFrame(np.asarray(table.X), columns=names, index=table.obs_names)]
    for layer in (name for name in _LAYERS if name in table.layers):
        values = np.asarray(table.layers[layer])
        columns.append(pd.DataFrame(values, columns=[f"{name} {layer}" for name in names], index=table.obs_names))
    obs = table.obs.drop(columns=_keys.REGION_KEY)
    write_csv(draft / f"{results.name}.csv", pd.concat([obs, *columns], axis=1))


def _geojson(draft: Path, results: Results) -> None:
    io.export_geojson(results.sdata, draft / f"{results.name}.geojson")


def _heatmaps(draft: Path, results: Results) -> None:
    for signature, name in file_names(list(results.table.var_names)).items():
        path = draft / HEATMAPS / f"{name}.ome.tif"
        io.export_heatmap(results.sdata, path, signature, table_key=results.maps_key)


def _html(draft: Path, results: Results) -> None:
    write_overview(draft, scored_patches(results.sdata, results.maps_key, _keys.PATCHES))


def _atlas(draft: Path, results: Results) -> None:
    pl.atlas(
        results.sdata, draft / ATLAS, predictions_key=results.maps_key, title=f"Signatures predicted on {results.name}"
    )


def file_names(signatures: list[str]) -> dict[str, str]:
    """Signature -> name of a file of it, no two the same in upper and lower case."""
    taken: dict[str, str] = {}
    for number, signature in enumerate(signatures):
        name = re.sub(r'[/\\:*?"<>|\x00-\x1f]+', "_", signature).strip(". ") or "signature"
        same = name.casefold() in {other.casefold() for other in taken.values()}
        taken[signature] = f"{name}_{number}" if same else name
    return taken


WRITERS: dict[str, Callable[[Path, Results], None]] = {
    "h5ad": _h5ad, "csv": _csv, "geojson": _geojson, "heatmap": _heatmaps, "html": _html, "atlas": _atlas,
}  # fmt: skip
