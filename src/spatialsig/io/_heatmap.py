"""One score of a slide, of its patches or of a map, written as an image with a scale.

Floor 7, above evaluation. Called as sp.io.export_heatmap; used by whole_slides/results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._files import check_target, replaced
from spatialsig.errors import InputError
from spatialsig.io._map_scores import ScoreRaster, map_scores
from spatialsig.io._scores import COLOURS, scored_patches
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray


SMALLEST_LEVEL_PX = 256


@checked
def export_heatmap(
    data: Data,
    path: AnyPath,
    signature: Key,
    *,
    table_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    map_key: Key | None = None,
    px_per_patch: Annotated[int, Field(ge=1, le=1024)] = 8,
    limits: tuple[float, float] | None = None,
) -> None:
    """Write one signature as an image with a scale: numbers (OME-TIFF) or colours (PNG).

    Parameters
    ----------
    data
        One slide: SpatialData or path of its store; not modified.
    path
        File to write: ``*.ome.tif`` / ``*.ome.tiff`` for float32 scores with a pyramid, one px per patch (or bin of a map) and
        NaN where there is none, readable by QuPath, Fiji and napari; ``*.png`` for colours, transparent where there is none.
    signature
        Which score.
    table_key, patches_key
        Table of scores, shapes element of the patches.
    map_key
        Image element of :func:`spatialsig.tl.signature_map` to write in place of patches.
    px_per_patch
        Edge of a patch, or bin, in the PNG.
    limits
        Scores at the ends of the colours of the PNG; the 2nd and 98th percentile when None.

    Returns
    -------
    Nothing; the file says how large a px is (``PhysicalSizeX`` in µm, and ``PositionX``/``PositionY`` of the first px on
    the H&E; as text ``um_per_px``, ``signature``, ``low``, ``high`` in the PNG).

    Raises
    ------
    KeyMissingError
        If table, patches, map or signature do not exist.
    InputError
        If ``path`` has another extension or lies in a Zarr store, ``data`` is several slides, the table describes other patches, or no patch has a score.
    """
    check_target(Path(path), (".ome.tif", ".ome.tiff", ".png"))
    shown = map_scores(data, map_key, signature) if map_key else _of_patches(data, table_key, patches_key, signature)
    if Path(path).suffix.lower() == ".png":
        um = shown.um_per_px / px_per_patch
        _write_png(Path(path), shown.values, limits, px_per_patch, signature=signature, um_per_px=um)
    else:
        _write_tiff(Path(path), shown, signature)


def _of_patches(data: Data, table_key: str, patches_key: str, signature: str) -> ScoreRaster:
    patches = scored_patches(data, table_key, patches_key)
    values = patches.values(signature)
    if not np.isfinite(values).any():
        msg = f"{patches.where}: signature {signature!r} has no score on any of {len(values)} patches; there is nothing to draw."
        raise InputError(msg)
    raster, corner = patches.raster(values)
    return ScoreRaster(raster, patches.um_per_step, corner * patches.spec.image_um_per_px)


def _write_tiff(path: Path, shown: ScoreRaster, signature: str) -> None:
    import tifffile

    um, (y, x) = shown.um_per_px, shown.corner_um.tolist()
    levels = [shown.values]
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
