"""Patches a reader should look at: right at both ends, and the worst errors of the model.

Floor 7, above evaluation. Called as sp.pl.gallery; used by report/figures, report/slide_cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Natural, checked
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import INK, canvas, save_figure
from spatialsig.pl.drawing.values import ScoreTables
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

CROP_IN, GAP_IN, LINE_IN = 1.35, 0.08, 0.22  # edge of a crop, between crops, for the text above
LEFT_IN, TOP_IN = 1.2, 0.45  # for the names of the groups, and the heading
N_CROPS = 6
GROUPS = {
    "high": "high, and\npredicted high",
    "low": "low, and\npredicted low",
    "missed": "predicted\ntoo low",
    "false": "predicted\ntoo high",
}


@dataclass(frozen=True)
class Crop:
    """One patch to show; ``strength`` says how well it stands for its group, 0 to 1."""

    group: str
    strength: float
    sample: str
    rgb: NDArray[np.uint8]  # (h, w, 3)
    edge_um: float
    measured: float
    predicted: float


@checked
@needs_cells
def gallery(
    data: Data,
    signature: Key,
    *,
    n: Count = N_CROPS,
    signatures_key: Key = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    fold: Natural | None = None,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> Axes:
    """Draw H&E crops of the patches the model gets right at both ends, and of those it gets most wrong.

    Patches are compared by their rank among the patches of their slide, measured and predicted, so that a model whose
    predictions vary too little is not shown as wrong everywhere. Patches of a group do not overlap.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (the clearest cases of all slides); not modified.
    signature
        Name of a signature, a column of both tables.
    n
        Crops in each of the four rows.
    signatures_key, predictions_key, patches_key
        Tables of measured and predicted scores, and the shapes element they annotate.
    fold
        Choose among patches of this fold (``obs["fold"]``) only; None chooses among all.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    The axes, in inches, with four rows of at most ``n`` crops: high in both, low in both, predicted too low, predicted too
    high; measured (m) and predicted (p) score above each crop. Nothing is written to ``data``.

    Raises
    ------
    KeyMissingError
        If a table, the patches or the signature is missing; the message names the slide.
    InputError
        If ``n`` is not positive, or no patch has both a measured and a predicted score.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> axes = sp.pl.gallery(sdata, "Immune_T", n=2)
    >>> len(axes.images) <= 8  # at most two crops in each of four rows
    True
    """
    tables = ScoreTables(signatures_key, predictions_key, patches_key, fold)
    crops = [crop for slide in open_slides(data) for crop in slide_crops(slide, signature, tables, n=n)]
    if not crops:
        msg = f"no patch has both a measured and a predicted {signature!r} (`fold={fold}`)."
        raise InputError(msg)
    axes = draw_gallery(crops, signature, figure, n=n)
    drawing = axes.get_figure(root=True)
    if drawing is not None:
        save_figure(drawing, save)
    return axes


def slide_crops(slide: Slide, signature: str, tables: ScoreTables, *, n: int) -> list[Crop]:
    """The ``n`` clearest patches of one slide in each group, with their pixels; only these are read."""
    patches = slide.patches(tables.patches_key)
    spec = patches.spec
    measured, predicted = tables.read(patches, signature)
    rows = np.flatnonzero(np.isfinite(measured) & np.isfinite(predicted))
    if not len(rows):
        return []
    chosen = [
        (group, strength[i], rows[i])
        for group, strength in strengths(measured[rows], predicted[rows]).items()
        for i in clearest(strength, patches.origins[rows], n=n, apart_px=spec.size_l0)
    ]
    index = np.array([row for _, _, row in chosen], np.int64)
    images = read_patches(patches.source(index), np.arange(len(index)))
    edge_um = spec.patch_px * spec.um_per_px
    return [
        Crop(group, float(strength), slide.name, image, edge_um, float(measured[row]), float(predicted[row]))
        for (group, strength, row), image in zip(chosen, np.moveaxis(images, 1, -1), strict=True)
    ]


def strengths(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Strength with which each patch stands for each group, by its share of patches with a lower score; above 0.5 or out."""
    n = len(measured)
    m, p = ((rankdata(values) - 0.5) / n for values in (measured, predicted))
    return {
        "high": np.minimum(m, p),
        "low": np.minimum(1 - m, 1 - p),
        "missed": (m - p + 1) / 2,
        "false": (p - m + 1) / 2,
    }


def clearest(strength: NDArray[np.float64], origins: NDArray[np.int64], *, n: int, apart_px: int) -> list[int]:
    """At most ``n`` patches, strongest first, above 0.5, of which no two lie closer than ``apart_px`` in y and x."""
    kept: list[int] = []
    for i in np.argsort(-strength, kind="stable"):
        if len(kept) == n or strength[i] <= 0.5:
            break
        if all(np.abs(origins[i] - origins[j]).max() >= apart_px for j in kept):
            kept.append(int(i))
    return kept


def draw_gallery(crops: Sequence[Crop], signature: str, figure: Figure | None, *, n: int = N_CROPS) -> Axes:
    """Rows of crops that were gathered before, the strongest of all slides first."""
    width, height = LEFT_IN + (CROP_IN + GAP_IN) * n, TOP_IN + (CROP_IN + LINE_IN) * len(GROUPS)
    drawing = canvas(figure, width_in=width, height_in=height)
    drawing.set_layout_engine("none")
    # one axes in inches: to lay out one for every crop takes ten times as long as to draw them
    axes = drawing.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    several = len({crop.sample for crop in crops}) > 1
    for row, (group, title) in enumerate(GROUPS.items()):
        y = TOP_IN + row * (CROP_IN + LINE_IN)
        axes.text(LEFT_IN - 0.1, y + CROP_IN / 2, title, ha="right", va="center", fontsize=9, color=INK)
        mine = sorted((crop for crop in crops if crop.group == group), key=lambda crop: -crop.strength)[:n]
        for column, crop in enumerate(mine):
            _draw_crop(axes, crop, LEFT_IN + column * (CROP_IN + GAP_IN), y, several=several)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    caption = f"{signature}: measured (m) and predicted (p) score of patches {crops[0].edge_um:g} µm wide"
    axes.text(0.05, 0.12, caption, va="center", fontsize=10, color=INK)
    return axes


def _draw_crop(axes: Axes, crop: Crop, x: float, y: float, *, several: bool) -> None:
    axes.imshow(crop.rgb, extent=(x, x + CROP_IN, y + CROP_IN, y))
    start = f"{crop.sample}: " if several else ""
    caption = f"{start}m {crop.measured:.2f}, p {crop.predicted:.2f}".replace("-", "\N{MINUS SIGN}")
    axes.text(x + CROP_IN / 2, y - 0.03, caption, ha="center", va="bottom", fontsize=7, color=INK)
