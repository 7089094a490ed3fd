"""Scores of the patches of one slide written for other programs: as GeoJSON, or as an image with a scale."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._checks import check_choice, check_key
from spatialsig._files import replaced
from spatialsig.errors import InputError
from spatialsig.slide.slides import Data, open_slides
from spatialsig.slide.table_rows import dense, numbers, place_of_table, scores_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Slide

OBJECT_TYPES = ("tile", "annotation", "detection")  # as QuPath names them
CLASSES = 4
LAYERS = (_keys.STD, _keys.LOWER, _keys.UPPER, _keys.SEM)
_NAMESPACE = uuid.UUID("5ba7d0e5-6a1f-4f0e-9d0c-7f0c2a4e61b1")  # ids of patches: the same patch, the same id
SMALLEST_LEVEL_PX = 256
COLOURS = "viridis"


@checked
def export_geojson(
    data: Data,
    path: AnyPath,
    *,
    signatures: Sequence[str] | None = None,
    classify_by: str | None = None,
    object_type: str = "tile",
    table_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
) -> int:
    """Write the patches and their scores as GeoJSON that QuPath opens over the same H&E.

    One feature after another is written, so that a slide of any number of patches takes no more memory than its table.

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
        ``"tile"``, ``"annotation"`` or ``"detection"``: what QuPath makes of them.
    table_key, patches_key
        Table of scores, shapes element of the patches.

    Returns
    -------
    Number of features. Each is a square in px of the H&E at full resolution, with ``objectType``, ``name``
    (``patch_id``), ``measurements`` (each signature, and ``std``, ``lower``, ``upper``, ``sem`` of it where the table has
    them; what was not measured is left out) and ``classification``.

    Raises
    ------
    KeyMissingError
        If table, patches or a signature do not exist.
    InputError
        If ``data`` is several slides, or the table describes other patches.
    """
    check_choice(object_type, OBJECT_TYPES, name="object_type")
    patches = scored_patches(data, table_key, patches_key)
    names = list(patches.table.var_names if signatures is None else signatures)
    columns = {name: patches.values(name) for name in names}
    for layer in (layer for layer in LAYERS if layer in patches.table.layers):
        block = dense(numbers(patches.table.layers[layer], where=f"{patches.where}.layers[{layer!r}]"))
        columns |= {f"{name} {layer}": block[:, patches.table.var_names.get_loc(name)] for name in names}
    classes = None if classify_by is None else _classes(patches, classify_by)
    with replaced(Path(path)) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for row, feature in enumerate(_features(patches, columns, classes, object_type)):
            file.write((",\n" if row else "\n") + json.dumps(feature, allow_nan=False, ensure_ascii=False))
        file.write("\n]}\n")
    return len(patches.ids)


def _classes(patches: ScoredPatches, signature: str) -> list[dict[str, Any] | None]:
    """Class of every patch: the quarter its score lies in."""
    from matplotlib import colormaps

    values = patches.values(signature)
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
        measured = {name: float(f"{values[row]:.7g}") for name, values in columns.items() if np.isfinite(values[row])}
        properties: dict[str, Any] = {"objectType": object_type, "name": str(patch), "measurements": measured}
        if classes is not None and classes[row] is not None:
            properties["classification"] = classes[row]
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{sample}/{patch}")),
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": properties,
        }


@checked
def export_heatmap(
    data: Data,
    path: AnyPath,
    signature: Key,
    *,
    table_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    px_per_patch: Annotated[int, Field(ge=1, le=1024)] = 8,
    limits: tuple[float, float] | None = None,
) -> None:
    """Write one signature as an image with a scale: numbers (OME-TIFF) or colours (PNG).

    Parameters
    ----------
    data
        One slide: SpatialData or path of its store; not modified.
    path
        File to write: ``*.ome.tif`` / ``*.ome.tiff`` for float32 scores with a pyramid, one px per patch and NaN where
        there is none, readable by QuPath, Fiji and napari; ``*.png`` for colours, transparent where there is none.
    signature
        Which score.
    table_key, patches_key
        Table of scores, shapes element of the patches.
    px_per_patch
        Edge of a patch in the PNG.
    limits
        Scores at the ends of the colours of the PNG; the 2nd and 98th percentile when None.

    Returns
    -------
    Nothing; the file says how large a px is (``PhysicalSizeX`` in µm, and ``PositionX``/``PositionY`` of the first px on
    the H&E; as text ``um_per_px``, ``signature``, ``low``, ``high`` in the PNG).

    Raises
    ------
    KeyMissingError
        If table, patches or signature do not exist.
    InputError
        If the ending is another, ``data`` is several slides, or no patch has a score.
    """
    name = Path(path).name.lower()
    if not name.endswith((".ome.tif", ".ome.tiff", ".png")):
        msg = f"`path={str(path)!r}`: wanted *.ome.tif, *.ome.tiff or *.png."
        raise InputError(msg)
    patches = scored_patches(data, table_key, patches_key)
    values = patches.values(signature)
    if not np.isfinite(values).any():
        msg = f"{patches.where}: signature {signature!r} has no score on any of {len(values)} patches; there is nothing to draw."
        raise InputError(msg)
    raster, corner = _raster(patches, values)
    if name.endswith(".png"):
        um = patches.um_per_step / px_per_patch
        _write_png(Path(path), raster, limits, px_per_patch, signature=signature, um_per_px=um)
    else:
        _write_tiff(Path(path), raster, corner, patches, signature)


def _raster(patches: ScoredPatches, values: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """One px per patch, NaN where there is none, and the corner (y, x) of the first px, level-0 px.

    Where patches overlap, a px is the middle of its patch, so that the px lie side by side.
    """
    spec, first = patches.spec, patches.origins.min(axis=0)
    cell = np.rint((patches.origins - first) / spec.stride_l0).astype(np.int64)
    raster = np.full((cell.max(axis=0) + 1).tolist(), np.nan, np.float32)
    raster[cell[:, 0], cell[:, 1]] = values
    return raster, first + (spec.size_l0 - spec.stride_l0) / 2


def _write_tiff(
    path: Path, raster: NDArray[np.float32], corner: NDArray[np.float64], patches: ScoredPatches, signature: str
) -> None:
    import tifffile

    um, (y, x) = patches.um_per_step, (corner * patches.spec.image_um_per_px).tolist()
    levels = [raster]
    while max(levels[-1].shape) > SMALLEST_LEVEL_PX:
        levels.append(_halved(levels[-1]))
    metadata: dict[str, Any] = {"axes": "YX", "Name": signature}
    metadata |= {"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um, "PhysicalSizeYUnit": "µm"}
    metadata["Plane"] = {"PositionX": [x], "PositionXUnit": ["µm"], "PositionY": [y], "PositionYUnit": ["µm"]}
    with replaced(path) as partial, tifffile.TiffWriter(partial, ome=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata=metadata, tile=(256, 256), compression="zlib")
        for level in levels[1:]:
            file.write(level, subfiletype=1, tile=(256, 256), compression="zlib")


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the known values of every 2 x 2 px."""
    height, width = (-(-n // 2) for n in values.shape)
    padded = np.full((2 * height, 2 * width), np.nan, np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(height, 2, width, 2)
    known = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    return np.where(known > 0, total / np.maximum(known, 1), np.float32(np.nan)).astype(np.float32)


def _write_png(
    path: Path, raster: NDArray[np.float32], limits: tuple[float, float] | None, px_per_patch: int, **texts: object
) -> None:
    from matplotlib import colormaps
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    known = raster[np.isfinite(raster)]
    low, high = limits or (tuple(np.percentile(known, (2, 98)).tolist()) if known.size else (0.0, 1.0))
    shares = np.clip((np.nan_to_num(raster, nan=low) - low) / max(high - low, 1e-12), 0, 1)
    colours = (np.asarray(colormaps[COLOURS](shares)) * 255).round().astype(np.uint8)
    colours[..., 3] = np.where(np.isfinite(raster), 255, 0)
    drawn = colours.repeat(px_per_patch, axis=0).repeat(px_per_patch, axis=1)
    info = PngInfo()
    for key, value in (texts | {"low": low, "high": high}).items():
        info.add_text(key, str(value))
    with replaced(path) as partial:
        Image.fromarray(drawn).save(partial, pnginfo=info, format="PNG")


@dataclass(frozen=True)
class ScoredPatches:
    """Patches of one slide that a table describes, row by row."""

    slide: Slide
    spec: PatchSpec
    ids: NDArray[np.int64]  # (n,)
    origins: NDArray[np.int64]  # (n, 2) y0, x0, level-0 px
    table: ad.AnnData
    table_key: str

    @property
    def um_per_step(self) -> float:
        """Micrometres from one patch to the next."""
        return self.spec.stride_l0 * self.spec.image_um_per_px

    @property
    def where(self) -> str:
        """The table, for messages."""
        return place_of_table(self.slide, self.table_key)

    def values(self, signature: str) -> NDArray[np.float64]:
        """One score of every patch, ``(n,)``, NaN where not measured."""
        names = list(self.table.var_names)
        check_key(names, signature, name="signature", where=f"table {self.table_key!r}")
        return dense(self.table.X[:, [names.index(signature)]]).astype(np.float64)[:, 0]


def scored_patches(data: Data, table_key: str, patches_key: str) -> ScoredPatches:
    """Read them; the errors name the slide and the function that makes the table."""
    slides = list(open_slides(data))
    if len(slides) != 1:
        msg = f"`data` holds {len(slides)} slides; a file describes one: export them one by one."
        raise InputError(msg)
    (slide,) = slides
    table = slide.table(table_key, fix="Call `sp.tl.predict` first.")
    scores_of(slide, table_key)
    patches = slide.patches(patches_key)
    rows = patches.rows_in(table_key)
    there = rows >= 0
    if not there.any():
        msg = (
            f"slide {slide.name!r}: table {table_key!r} describes other patches than `patches_key={patches_key!r}`; make "
            "it again."
        )
        raise InputError(msg)
    ids = np.asarray(patches.ids, np.int64)[there]
    return ScoredPatches(slide, patches.spec, ids, patches.origins[there], table[rows[there]], table_key)
