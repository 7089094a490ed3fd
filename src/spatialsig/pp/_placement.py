"""Move an H&E under the cells: only its transformation changes, never its pixels."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, get_transformation, set_transformation

from spatialsig import _keys
from spatialsig._errors import AlignmentError, StoreError
from spatialsig.data.frames import XY, image_of
from spatialsig.store.atomic import write_text
from spatialsig.store.metadata import consolidate, root_document, without_consolidated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide


def matrix_to_global(slide: Slide, image_key: str) -> NDArray[np.float64] | None:
    """Matrix ``(3, 3)`` from image pixels (x, y) to ``global``; None where the image has no such transformation."""
    known = get_transformation(image_of(slide, image_key), get_all=True).get(_keys.GLOBAL)
    return None if known is None else np.asarray(known.to_affine_matrix(input_axes=XY, output_axes=XY), np.float64)


def refuse_patches(slide: Slide, image_key: str) -> None:
    """Raise :class:`AlignmentError` if patches were cut: they, their cells and labels belong to the old alignment."""
    recorded = slide.attrs.get("patches", {})
    cut = [key for key, spec in recorded.items() if spec["image_key"] == image_key and key in slide.sdata.shapes]
    if cut:
        where = "" if slide.path is None else f" and sdata.delete_element_from_disk({cut[0]!r})"
        msg = (
            f"slide {slide.name!r}: patches {cut} were cut with the alignment that image {image_key!r} has now, and their "
            f"cells and labels follow from it. Align first: del sdata[{cut[0]!r}]{where}, align the image, then call "
            f"`sp.pp.make_patches` and the steps after it again."
        )
        raise AlignmentError(msg)


def place_image(slide: Slide, image_key: str, matrix: NDArray[np.float64]) -> None:
    """Set the affine ``(3, 3)`` from image pixels to ``global``, in memory and in the store."""
    image = image_of(slide, image_key)
    affine = Affine(matrix, input_axes=XY, output_axes=XY)
    set_transformation(image, affine, to_coordinate_system=_keys.GLOBAL)
    if slide.path is not None:
        _write_transformations(slide.path, image_key, get_transformation(image, get_all=True))


def _write_transformations(path: Path, image_key: str, transformations: dict[str, Any]) -> None:
    """Replace the transformations in the metadata of a stored image; a reader finds the old ones or the new ones."""
    file = path / "images" / image_key / "zarr.json"
    root = root_document(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        (multiscale,) = document["attributes"]["ome"]["multiscales"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{str(file)!r} cannot be read as the metadata of an image ({error}): restore the file or the store."
        raise StoreError(msg) from error
    multiscale["coordinateTransformations"] = _as_stored(image_key, transformations)
    # the copy in the root is dropped first, so that it never says something else than the image itself
    write_text(path / "zarr.json", without_consolidated(root))
    write_text(file, json.dumps(document, indent=2))
    consolidate(path)


def _as_stored(image_key: str, transformations: dict[str, Any]) -> list[dict[str, Any]]:
    """How spatialdata writes these transformations: seen on an image of one pixel."""
    pixel = Image2DModel.parse(
        np.zeros((3, 1, 1), np.uint8), dims=("c", "y", "x"), transformations=dict(transformations)
    )
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about chunks of one pixel
        small = Path(directory) / "pixel.zarr"
        SpatialData.init_from_elements({image_key: pixel}).write(small)
        document = json.loads((small / "images" / image_key / "zarr.json").read_text(encoding="utf-8"))
    stored: list[dict[str, Any]] = document["attributes"]["ome"]["multiscales"][0]["coordinateTransformations"]
    return stored
