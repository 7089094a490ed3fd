"""Scores of a dense grid of patches, read once: of whole patches, or of the places in them.

Floor 8, above io, pl, pp, tl. Used by maps/cell_values, maps/signature_map.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._progress import progress_bar
from spatialsig.data.features import in_batches
from spatialsig.data.passes import ahead
from spatialsig.inference.inputs import AHEAD, BATCH, ModelInputs
from spatialsig.inference.local import scores_of_places
from spatialsig.inference.rasters import Raster, n_levels
from spatialsig.nn.device import kept_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.inference.domain import DomainWatch
    from spatialsig.maps.grid import Grid
    from spatialsig.models.ensemble import SignatureModel


@dataclass(frozen=True)
class Dense:
    """A model that is asked of all patches of a grid; it lies on its device."""

    grid: Grid
    model: SignatureModel
    columns: tuple[int, ...]  # of the signatures
    by_place: bool
    precision: str
    watch: DomainWatch | None = (
        None  # compares the patches with what the model learned from; of whole ones, their features too
    )

    def raster(self, names: tuple[str, ...]) -> Raster:
        """Sums of what the patches say of every bin."""
        patches, edges = self.grid.patches, self.grid.bins.edges
        multiple = 2 ** n_levels(self._size())
        raster = Raster(
            patches.origins,
            names,
            cell_l0=self.grid.bin_l0,
            cells=edges,
            weights=self.grid.bins.weights,
            multiple=multiple,
        )
        for rows, values in self.values():
            raster.add(rows, np.broadcast_to(values, (*values.shape[:2], edges, edges)))
        return raster

    def _size(self) -> tuple[int, int]:
        height, width = np.ptp(self.grid.patches.origins, axis=0) / self.grid.bin_l0 + self.grid.bins.edges
        return int(height), int(width)

    def values(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Some patches and their scores, ``(b, n_signatures, edges, edges)``, or ``(b, n_signatures, 1, 1)`` of whole ones."""
        patches, columns = self.grid.patches, list(self.columns)
        inputs = ModelInputs.of(patches, self.model, signatures_key=_keys.SIGNATURES, use_rep=None)
        title = f"signature map {patches.slide.name}"
        watching = nullcontext() if self.watch is None or self.by_place else self.watch.watching()
        with kept_memory(), watching, progress_bar(title, total=len(patches), unit="patch") as bar:
            for rows, images in ahead(in_batches(inputs.source(), BATCH), depth=AHEAD):
                if self.by_place:
                    edges = self.grid.bins.edges
                    yield rows, scores_of_places(self.model, images, edges=edges, precision=self.precision)[:, columns]
                else:
                    scores = self.model.predict(images, precision=self.precision)[:, columns]
                    yield rows, scores[:, :, None, None]
                if self.watch is not None:
                    self.watch.see(rows, images)
                bar.advance(len(rows))
