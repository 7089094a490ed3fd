"""Change where an image of a store lies without writing its pixels again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from spatialsig._checks import check_key
from spatialsig.errors import StoreError
from spatialsig.store.lock import writer_lock
from spatialsig.store.manifest import manifest_file, read_manifest
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.store.swap import swap_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata.transformations import BaseTransformation

    from spatialsig.store.manifest import Entry

_METADATA = "zarr.json"


def commit_transformations(path: str | Path, image_key: str, transformations: Mapping[str, BaseTransformation]) -> None:
    """Replace the transformations of an image.

    The new image is made beside the store of links to the old one's chunks, and swapped in by one rename.

    Parameters
    ----------
    path
        Live store.
    image_key
        Image in it.
    transformations
        Coordinate system -> transformation from pixels (x, y): all that the image shall have.

    Returns
    -------
    None; the metadata of the image, its manifest and the consolidated metadata are on disk. After any exception the
    store is as it was.

    Raises
    ------
    KeyMissingError
        If the store has no such image.
    StoreError
        If ``path`` is no store, or the image's metadata are damaged.
    """
    path = Path(path)
    stored = _as_stored(image_key, transformations)
    with writer_lock(path, f"placing image {image_key!r}"):
        root_document(path)
        images = [name for kind, name, finished in elements_on_disk(path) if kind == "images" and finished]
        check_key(images, image_key, name="image_key", where=f"the images of store {str(path)!r}")
        live = path / "images" / image_key
        swap_in(path, {image_key: "images"}, lambda new: {image_key: _write(live, new / "images" / image_key, stored)})


def _write(live: Path, new: Path, stored: list[dict[str, Any]]) -> dict[str, Entry]:
    """Make the new image; return what is known of the files that it shares with the old one."""
    shutil.copytree(live, new, copy_function=_link)
    file = new / _METADATA
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        (multiscale,) = document["attributes"]["ome"]["multiscales"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{str(live / _METADATA)!r} is not the metadata of an image ({error}): restore the file or the store."
        raise StoreError(msg) from error
    multiscale["coordinateTransformations"] = stored
    file.write_text(json.dumps(document, indent=2), encoding="utf-8")
    try:
        entries = read_manifest(manifest_file(live, "images")) or {}
    except StoreError:
        return {}
    return {name: next(iter(entry)) for name, entry in entries.items() if name != _METADATA and (new / name).exists()}


def _link(old: str, new: str) -> None:
    """Chunks are links, as nobody writes into them; metadata are copies."""
    if Path(old).name != _METADATA:
        try:
            os.link(old, new)
        except FileNotFoundError:
            raise
        except OSError:  # no hard links on this file system
            pass
        else:
            return
    shutil.copyfile(old, new)


def _as_stored(image_key: str, transformations: Mapping[str, BaseTransformation]) -> list[dict[str, Any]]:
    """How spatialdata writes these transformations: seen on an image of one pixel."""
    pixel = Image2DModel.parse(
        np.zeros((3, 1, 1), np.uint8), dims=("c", "y", "x"), transformations=dict(transformations)
    )
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about chunks of one pixel
        small = Path(directory) / "pixel.zarr"
        SpatialData.init_from_elements({image_key: pixel}).write(small)
        document = json.loads((small / "images" / image_key / _METADATA).read_text(encoding="utf-8"))
    stored: list[dict[str, Any]] = document["attributes"]["ome"]["multiscales"][0]["coordinateTransformations"]
    return stored
