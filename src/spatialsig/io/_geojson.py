"""Scores of the patches or cells of one slide written as GeoJSON, for QuPath.

Floor 7, above evaluation. Called as sp.io.export_geojson; used by cli/project_commands, whole_slides/results.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._checks import check_choice
from spatialsig._files import check_target, replaced
from spatialsig.errors import InputError
from spatialsig.io._scored_cells import ScoredCells, is_of_cells, scored_cells
from spatialsig.io._scores import COLOURS, ScoredPatches, scored_patches
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


OBJECT_TYPES = ("tile", "annotation", "detection")  # as QuPath names them
CLASSES = 4
_NAMESPACE = uuid.UUID("5ba7d0e5-6a1f-4f0e-9d0c-7f0c2a4e61b1")  # ids of patches: the same patch, the same id


@checked
def export_geojson(
    data: Data,
    path: AnyPath,
    *,
    signatures: Sequence[str] | None = None,
    classify_by: Key | None = None,
    object_type: str | None = None,
    table_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
) -> int:
    """Write patches, or cells, and their scores as GeoJSON that QuPath opens over the same H&E.

    One feature after another is written, so that a slide of any number of patches or cells takes no more memory than its table.

    Parameters
    ----------
    data
        One slide: SpatialData or path of its store; not modified.
    path
        File to write, usually ``*.geojson``; an older one is replaced once the new one is whole.
    signatures
        Scores to write; all of the table when None.
    classify_by
        Signature whose quarters become QuPath classes with colours, ``"<signature> Q1"`` (lowest) to ``Q4``; None for no
        classes.
    object_type
        ``"tile"``, ``"annotation"`` or ``"detection"``: what QuPath makes of them; None takes tiles of patches and detections of
        cells.
    table_key, patches_key
        Table of scores, shapes element of the patches. A table of :func:`spatialsig.tl.predict_cells` gives the outlines of
        its cells.

    Returns
    -------
    Number of features. Each is a square (a cell: its outline, a circle where it has none) in px of the H&E at full resolution, with ``objectType``, ``name``
    (``patch_id`` or ``cell_id``), ``measurements`` (each signature, and ``std``, ``lower``, ``upper``, ``sem`` of it where the table has
    them, and ``ood``, how far it lies from what the model learned from; what was not measured is left out) and ``classification``.

    Raises
    ------
    KeyMissingError
        If table, patches or a signature do not exist.
    InputError
        If ``data`` is several slides, the table describes other patches or has no score, a deviation is below 0 or a lower
        bound above its upper one, or ``path`` does not end with ``.geojson`` or ``.json`` or lies in a Zarr store.
    """
    check_target(Path(path), (".geojson", ".json"))
    check_choice(object_type, (*OBJECT_TYPES, None), name="object_type")
    if is_of_cells(data, table_key):
        return _write_cells(scored_cells(data, table_key), Path(path), signatures, classify_by, object_type)
    patches = scored_patches(data, table_key, patches_key)
    names = list(patches.table.var_names if signatures is None else signatures)
    columns = {name: patches.values(name) for name in names}
    if not any(np.isfinite(values).any() for values in columns.values()):
        msg = (
            f"{patches.where} has no score of {names} on any of {len(patches.ids)} patches; there is nothing to export."
        )
        raise InputError(msg)
    for layer, block in patches.layers().items():
        columns |= {f"{name} {layer}": block[:, patches.table.var_names.get_loc(name)] for name in names}
    if _keys.OOD in patches.table.obs:
        columns[_keys.OOD] = np.asarray(patches.table.obs[_keys.OOD], np.float64)
    classes = None if classify_by is None else _classes(patches.values(classify_by), classify_by)
    _write(Path(path), _features(patches, columns, classes, object_type or "tile"))
    return len(patches.ids)


def _write(path: Path, features: Iterator[dict[str, Any]]) -> None:
    with replaced(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for row, feature in enumerate(features):
            file.write((",\n" if row else "\n") + json.dumps(feature, allow_nan=False, ensure_ascii=False))
        file.write("\n]}\n")


def _write_cells(
    cells: ScoredCells, path: Path, signatures: Sequence[str] | None, classify_by: str | None, object_type: str | None
) -> int:
    names = list(map(str, cells.table.var_names if signatures is None else signatures))
    columns = {name: cells.values(name) for name in names}
    if not any(np.isfinite(values).any() for values in columns.values()):
        msg = f"{cells.where} has no score of {names} in any of {cells.table.n_obs} cells; there is nothing to export."
        raise InputError(msg)
    if _keys.OOD in cells.table.obs:
        columns[_keys.OOD] = np.asarray(cells.table.obs[_keys.OOD], np.float64)
    classes = None if classify_by is None else _classes(cells.values(classify_by), classify_by)
    sample, kind = cells.slide.name, object_type or "detection"
    outlines = zip(cells.ids.tolist(), cells.rings(cells.image_key), strict=True)
    instances = np.asarray(cells.table.obs[cells.instance_key]).astype(str).tolist()
    features = (
        _feature(
            f"{sample}/{cells.region}/{instances[row]}", cell, np.round(ring, 2).tolist(), kind, columns, classes, row
        )
        for row, (cell, ring) in enumerate(outlines)
    )
    _write(path, features)
    return int(cells.table.n_obs)


def _classes(values: NDArray[np.float64], signature: str) -> list[dict[str, Any] | None]:
    """Class of every patch or cell: the quarter its score lies in."""
    from matplotlib import colormaps

    known = np.isfinite(values)
    edges: Any = np.quantile(values[known], np.linspace(0, 1, CLASSES + 1)[1:-1]) if known.any() else []
    shades = (np.array(colormaps[COLOURS](np.linspace(0, 1, CLASSES)))[:, :3] * 255).round().astype(int).tolist()
    named = [{"name": f"{signature} Q{k + 1}", "color": shades[k]} for k in range(CLASSES)]
    number = np.searchsorted(edges, values, side="right")
    return [named[k] if there else None for k, there in zip(number.tolist(), known.tolist(), strict=True)]


def _features(
    patches: ScoredPatches,
    columns: dict[str, NDArray[np.float64]],
    classes: list[dict[str, Any] | None] | None,
    object_type: str,
) -> Iterator[dict[str, Any]]:
    edge, sample = patches.spec.size_l0, patches.slide.name
    for row, (patch, (y, x)) in enumerate(zip(patches.ids.tolist(), patches.origins.tolist(), strict=True)):
        ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
        yield _feature(f"{sample}/{patch}", str(patch), ring, object_type, columns, classes, row)


def _feature(
    identity: str, name: str, ring: list[Any], object_type: str, columns: dict[str, NDArray[np.float64]],
    classes: list[dict[str, Any] | None] | None, row: int,
) -> dict[str, Any]:  # fmt: skip
    """One object of QuPath: its outline, and what was measured in it."""
    measured = {key: float(f"{values[row]:.7g}") for key, values in columns.items() if np.isfinite(values[row])}
    properties: dict[str, Any] = {"objectType": object_type, "name": name, "measurements": measured}
    if classes is not None and classes[row] is not None:
        properties["classification"] = classes[row]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, identity)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
