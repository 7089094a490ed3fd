"""Maps of one slide as arrays, gathered before anything is drawn.

Floor 7, above evaluation. Used by atlas/values, pl/_compare, pl/_patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import AlignmentError
from spatialsig.pl.drawing.slide_panels import background
from spatialsig.pl.drawing.values import patch_values
from spatialsig.slide.coordinates import full_resolution, image_of, image_to_um
from spatialsig.slide.folds import is_split_inside
from spatialsig.stats.agreement import agreement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.pl.drawing.slide_panels import Background, Box
    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Slide


@dataclass(frozen=True)
class SlideMaps:
    """One signature on one slide: a drawn cell and two values per patch, and the H&E below."""

    name: str
    corners: NDArray[np.float64]  # (n_patches, 4, 2) as x, y, level-0 px
    measured: NDArray[np.float64] | None  # (n_patches,), NaN where unknown; None on a slide without labels
    predicted: NDArray[np.float64]
    um_per_px: float
    box: Box
    image: Background | None
    inputs: str  # what the prediction was made from; empty where the table does not say
    learnt: str  # what the model learned of the slide, so that it agrees too well; empty where it has not seen it

    @property
    def residual(self) -> NDArray[np.float64] | None:
        """Measured minus predicted."""
        return None if self.measured is None else self.measured - self.predicted

    @property
    def pearson(self) -> tuple[float, int]:
        """Pearson r over the patches with both values, and their number."""
        if self.measured is None:
            return np.nan, 0
        agreed = agreement(self.measured, self.predicted)
        return agreed["pearson"], int(agreed["n_patches"])


def slide_maps(
    slide: Slide, signature: str, *, signatures_key: str | None, predictions_key: str, image_key: str | None,
    patches_key: str, fold: int | None, show_image: bool,
) -> SlideMaps:  # fmt: skip
    """Gather the maps of one slide; of the image only what will be drawn is read."""
    patches = slide.patches(patches_key)
    spec = patches.spec

    def read(table_key: str, name: str) -> NDArray[np.float64]:
        return patch_values(patches, table_key, signature, name=name, fold=fold)

    measured = None if signatures_key is None else read(signatures_key, "signatures_key")
    predicted = read(predictions_key, "predictions_key")
    corners = cell_corners(patches.origins, size=spec.size_l0, stride=spec.stride_l0)
    box = _view(slide, spec, corners)
    image = None
    if show_image:
        _check_same_frame(slide, spec.image_key, image_key or spec.image_key)
        image = background(image_of(slide, image_key or spec.image_key), box, slide=slide.name)
    inputs, seen = str(made_by(slide, predictions_key).get("inputs", "")), learnt(slide, predictions_key)
    return SlideMaps(slide.name, corners, measured, predicted, spec.image_um_per_px, box, image, inputs, seen)


def made_by(slide: Slide, predictions_key: str) -> dict[str, Any]:
    """What a table says about the model that made it."""
    record: dict[str, Any] = slide.params(predictions_key).get("predict", {})
    return record


def learnt(slide: Slide, predictions_key: str) -> str:
    """What of a slide trained the model of its predictions, by their record; empty where nothing did."""
    if slide.name not in list(made_by(slide, predictions_key).get("training_samples", [])):
        return ""
    if not is_split_inside(slide):
        return "trained on this slide"
    return f"trained on {'other ' if 'cross_validate' in slide.params(predictions_key) else ''}parts of it"


def cell_corners(origins: NDArray[np.int64], *, size: int, stride: int) -> NDArray[np.float64]:
    """Corners ``(n, 4, 2)`` as x, y of the square to draw for each patch.

    Overlapping patches would hide each other: each is drawn as its central ``stride`` pixels, so that they tile.
    """
    side = min(size, stride)
    low = origins[:, ::-1].astype(np.float64) + (size - side) / 2
    steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64) * side
    return low[:, None, :] + steps


def _view(slide: Slide, spec: PatchSpec, corners: NDArray[np.float64]) -> Box:
    """The patches with half a patch around them, inside the image."""
    full = full_resolution(image_of(slide, spec.image_key))
    x0, y0 = np.maximum(corners.min(axis=(0, 1)) - spec.size_l0 / 2, 0)
    x1, y1 = np.minimum(corners.max(axis=(0, 1)) + spec.size_l0 / 2, (full.sizes["x"], full.sizes["y"]))
    return float(x0), float(y0), float(x1), float(y1)


def _check_same_frame(slide: Slide, patches_image: str, image_key: str) -> None:
    if image_key == patches_image:
        return
    if not np.allclose(image_to_um(slide, image_key), image_to_um(slide, patches_image)):
        msg = (
            f"slide {slide.name!r}: the patches lie on image {patches_image!r}, and `image_key={image_key!r}` has other "
            "pixels; show the patches on an image of the same frame."
        )
        raise AlignmentError(msg)
