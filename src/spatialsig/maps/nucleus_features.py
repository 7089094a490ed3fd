"""What a model sees of every nucleus, in the patch of a dense grid whose middle is nearest to it.

Floor 8, above io, pl, pp, tl. Used by maps/cell_values, maps/train_cell_head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from spatialsig import _keys
from spatialsig._progress import progress_bar
from spatialsig.data.features import in_batches
from spatialsig.data.passes import ahead
from spatialsig.inference.inputs import AHEAD, BATCH, ModelInputs
from spatialsig.inference.local import features_of_points
from spatialsig.nn.device import kept_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.maps.cell_places import CellPlaces
    from spatialsig.maps.grid import Grid
    from spatialsig.models.ensemble import SignatureModel


def nucleus_features(
    grid: Grid, model: SignatureModel, places: CellPlaces, *, precision: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Some nuclei after others and their features ``(n, d)``; those in no patch are left out. The model lies on its device."""
    patches = grid.patches
    inputs = ModelInputs.of(patches, model, signatures_key=_keys.SIGNATURES, use_rep=None)
    # the largest of the distances along x and y: how far from the rim of the patch
    nearest = cKDTree(patches.centres_px).query(places.xy_px, p=np.inf)[1]
    share = (places.xy_px - patches.origins[nearest][:, ::-1]) / patches.spec.size_l0
    inside = np.flatnonzero(((share >= 0) & (share < 1)).all(axis=1))
    order = inside[np.argsort(nearest[inside], kind="stable")]
    first = np.searchsorted(nearest[order], np.arange(len(patches) + 1))
    used = np.flatnonzero(np.diff(first))
    with kept_memory(), progress_bar(f"nuclei of {patches.slide.name}", total=len(used), unit="patch") as bar:
        for batch, images in ahead(in_batches(inputs.source(used), BATCH), depth=AHEAD):
            cells = [order[first[patch] : first[patch + 1]] for patch in used[batch]]
            points = [np.ascontiguousarray(share[rows]) for rows in cells]
            yield np.concatenate(cells), features_of_points(model, images, points, precision=precision)
            bar.advance(len(batch))
