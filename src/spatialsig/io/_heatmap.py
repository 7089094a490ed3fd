"""One score of the patches as an image with a scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig.errors import InputError
from spatialsig.io._scored import COLOURS, replaced, score_names, scored_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.io._scored import ScoredPatches
    from spatialsig.slide.slides import Data

SMALLEST_LEVEL_PX = 256


def export_heatmap(
    data: Data,
    path: str | Path,
    signature: str,
    *,
    table_key: str = _keys.SIGNATURES_PRED,
    patches_key: str = _keys.PATCHES,
    px_per_patch: int = 8,
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
        If the ending is another, or ``data`` is several slides.
    """
    check_positive(px_per_patch=px_per_patch)
    name = Path(path).name.lower()
    if not name.endswith((".ome.tif", ".ome.tiff", ".png")):
        msg = f"`path={str(path)!r}`: wanted *.ome.tif, *.ome.tiff or *.png."
        raise InputError(msg)
    patches = scored_patches(data, table_key, patches_key)
    score_names(patches.table, [signature], table_key)
    raster, corner = _raster(patches, patches.values(signature))
    if name.endswith(".png"):
        _write_png(Path(path), raster, patches, signature, px_per_patch, limits)
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


def _um_per_px(patches: ScoredPatches) -> float:
    return patches.spec.stride_l0 * patches.spec.image_um_per_px


def _write_tiff(
    path: Path, raster: NDArray[np.float32], corner: NDArray[np.float64], patches: ScoredPatches, signature: str
) -> None:
    import tifffile

    um, (y, x) = _um_per_px(patches), (corner * patches.spec.image_um_per_px).tolist()
    levels = [raster]
    while max(levels[-1].shape) > SMALLEST_LEVEL_PX:
        levels.append(_halved(levels[-1]))
    metadata = {
        "axes": "YX",
        "Name": signature,
        "PhysicalSizeX": um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um,
        "PhysicalSizeYUnit": "µm",
        "Plane": {"PositionX": [x], "PositionXUnit": ["µm"], "PositionY": [y], "PositionYUnit": ["µm"]},
    }
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
    path: Path,
    raster: NDArray[np.float32],
    patches: ScoredPatches,
    signature: str,
    px_per_patch: int,
    limits: tuple[float, float] | None,
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
    said = {"signature": signature, "um_per_px": _um_per_px(patches) / px_per_patch, "low": low, "high": high}
    for key, value in said.items():
        info.add_text(key, str(value))
    with replaced(path) as partial:
        Image.fromarray(drawn).save(partial, pnginfo=info, format="PNG")
