"""An H&E moved under the cells: only its transformation changes, never its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialdata.transformations import Affine, get_transformation, set_transformation

from spatialsig import _keys
from spatialsig.errors import AlignmentError
from spatialsig.slide.coordinates import XY, image_of
from spatialsig.store.parts import commit_transformations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide


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
        commit_transformations(slide.path, image_key, get_transformation(image, get_all=True))
