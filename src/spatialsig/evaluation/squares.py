"""One slide regrouped into squares of another size: labels from its cells, predictions from its patches, simple features.

Floor 6, above expression, inference, labels. Used by evaluation/scales.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from spatialsig.data.patches import PatchSource, image_levels, read_patches
from spatialsig.errors import InputError
from spatialsig.evaluation.ceiling import ceiling_of
from spatialsig.geometry.affine import apply
from spatialsig.geometry.grid import points_in_patches, shared_areas
from spatialsig.labels.statistics import PSEUDOBULK, pseudobulk_labels, score_labels
from spatialsig.slide.coordinates import any_image_of, full_resolution, image_to_um, positions, um_to_image
from spatialsig.slide.counts import count_blocks
from spatialsig.slide.folds import folds_of
from spatialsig.stats.grouped import group_sizes
from spatialsig.stats.image_features import colour_statistics, nuclear_density, stain_amounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches

SAME = 0.02  # relative: squares of this size are the patches themselves
COVERED = 0.5  # share of a square that patches must cover
BATCH = 64  # squares read at a time
CUT_FINER = "cut patches closer together with `sp.pp.make_patches(stride_um=...)` (`spatialsig label --stride-um`), label and predict them."
OWN, MEANS, OVERLAPS = (
    "the patches themselves",
    "means of the patches in a square",
    "means of the patches over a square",
)


@dataclass(frozen=True)
class Squares:
    """Squares of one size on a slide, side by side, where patches lie."""

    patches: Patches
    scale_um: float
    origins: NDArray[np.int64]  # (n, 2) y0, x0, level-0 px
    edge: int  # level-0 px
    weights: sparse.csr_matrix = field(repr=False)  # (n, n_patches), of predictions; rows sum to 1
    how: str = OWN

    @property
    def centres_um(self) -> NDArray[np.float64]:
        """Middles, µm."""
        slide, key = self.patches.slide, self.patches.spec.image_key
        return apply(image_to_um(slide, key), self.origins[:, ::-1] + self.edge / 2)

    @property
    def folds(self) -> NDArray[np.int64]:
        """Fold of every square; one that spans two blocks is in the buffer."""
        matrix = image_to_um(self.patches.slide, self.patches.spec.image_key)
        extent = float(self.edge * np.abs(matrix[:2, :2]).sum(axis=1).max())
        return folds_of(self.patches.slide, self.centres_um, extent_um=extent)

    def membership(self, table_key: str) -> sparse.csr_matrix:
        """Cells in squares, CSR ``(n_cells, n)``."""
        slide, key = self.patches.slide, self.patches.spec.image_key
        return points_in_patches(um_to_image(slide, key, positions(slide, table_key)), self.origins, size=self.edge)

    def means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values of the patches ``(n_patches, k)`` as means over squares; NaN where no patch has one."""
        known = np.isfinite(values)
        total, weight = self.weights @ np.where(known, values, 0.0), self.weights @ known.astype(np.float64)
        return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 1e-9))

    def features(self) -> dict[str, NDArray[np.float32]]:
        """Colour ``(n, 6)`` and nuclear density ``(n, 2)`` of the pixels of every square."""
        spec, found = self.patches.spec, {"colour": [], "density": []}  # type: ignore[var-annotated]
        stain = None if spec.stain is None else np.array(spec.stain["matrix"])
        out_px = max(1, round(self.edge * spec.image_um_per_px / spec.um_per_px))
        levels = image_levels(self.patches.slide.sdata, spec.image_key)
        source = PatchSource(self.patches.slide.name, levels, self.origins, self.edge, out_px, recolour=stain)
        for start in range(0, len(self.origins), BATCH):
            images = read_patches(source, np.arange(start, min(start + BATCH, len(self.origins))))
            found["colour"].append(colour_statistics(images))
            found["density"].append(nuclear_density(stain_amounts(images)))
        widths = {"colour": 6, "density": 2}
        return {
            name: np.concatenate(parts) if parts else np.empty((0, widths[name]), np.float32)
            for name, parts in found.items()
        }


def _edge(patches: Patches, scale_um: float) -> int:
    """Edge of a square, level-0 px."""
    return max(1, round(scale_um / patches.spec.image_um_per_px))


def is_too_fine(patches: Patches, scale_um: float) -> bool:
    """Whether patches lie farther apart than squares of this edge are wide."""
    return patches.spec.stride_l0 > _edge(patches, scale_um) * (1 + SAME)


def squares_of(patches: Patches, scale_um: float) -> Squares:
    """Squares of ``scale_um`` on the grid of the patches; those that patches cover by less than half are left out.

    Raises
    ------
    InputError
        If patches lie farther apart than the squares are wide: there is no prediction for each of them.
    """
    spec = patches.spec
    size, stride, edge = spec.size_l0, spec.stride_l0, _edge(patches, scale_um)
    if is_too_fine(patches, scale_um):
        msg = (
            f"slide {patches.slide.name!r}: a scale of {scale_um:g} um is finer than the step between patches "
            f"({stride * spec.image_um_per_px:.4g} um): there are no predictions for it. Leave it out of `scales_um`, or {CUT_FINER}"
        )
        raise InputError(msg)
    corner = patches.origins.min(axis=0)
    sizes = full_resolution(any_image_of(patches.slide, spec.image_key)).sizes
    if abs(edge / size - 1) <= SAME:
        edge = size
    n_y, n_x = (int((limit - first) // edge) for limit, first in zip((sizes["y"], sizes["x"]), corner, strict=True))
    origins = (
        corner + edge * np.stack(np.meshgrid(np.arange(n_y), np.arange(n_x), indexing="ij"), axis=-1).reshape(-1, 2)
    ).astype(np.int64)
    # patches that tile, where they overlap: every place counts once
    tiles = (
        ((patches.origins - corner) % size == 0).all(axis=1)
        if edge >= size and size % stride == 0
        else np.ones(len(patches), bool)
    )
    shared = shared_areas(origins[:, ::-1] + edge / 2, float(edge), patches.centres_px[tiles], float(size)).tocoo()
    weights = sparse.csr_matrix(
        (shared.data, (shared.row, np.flatnonzero(tiles)[shared.col])), shape=(len(origins), len(patches))
    )
    total = np.asarray(weights.sum(axis=1)).ravel()
    kept = total >= COVERED * edge**2
    if not kept.any():
        msg = f"slide {patches.slide.name!r}: no square of {scale_um:g} um is covered by patches; choose smaller `scales_um`."
        raise InputError(msg)
    scaled = sparse.csr_matrix(sparse.diags(1 / total[kept]) @ weights[kept])
    how = OWN if edge == size else MEANS if edge > size else OVERLAPS
    return Squares(patches, scale_um, origins[kept], edge, scaled, how)


def square_labels(
    squares: Squares, scored: Mapping[str, Any], record: Mapping[str, Any], *, table_key: str
) -> tuple[NDArray[np.float64], sparse.csr_matrix]:
    """Labels ``(n, n_signatures)`` of squares by the statistic of the labels of the patches, NaN where cells are too few; membership.

    The least number of cells grows with the area.
    """
    slide, membership = squares.patches.slide, squares.membership(table_key)
    stat, trim = str(record.get("stat", "mean")), float(record.get("trim", 0.0))
    if stat == PSEUDOBULK:
        labels = pseudobulk_labels(scored, count_blocks(slide, table_key, list(scored["genes"])), membership)
    else:
        labels = score_labels(slide.table(table_key).obsm[scored["key"]], membership, stat=stat, trim=trim)
    least = max(1.0, float(record.get("min_cells", 1)) * (squares.edge / squares.patches.spec.size_l0) ** 2)
    labels[group_sizes(membership) < least] = np.nan
    return labels, membership


def square_ceiling(
    squares: Squares, membership: sparse.csr_matrix, judged: NDArray[np.bool_], scored: Mapping[str, Any], record: Mapping[str, Any],
    *, seed: int, table_key: str,
) -> NDArray[np.float64]:  # fmt: skip
    """Noise ceiling of every signature over the squares that are judged."""
    return ceiling_of(squares.patches.slide, membership, scored, record, judged, seed=seed, table_key=table_key)
