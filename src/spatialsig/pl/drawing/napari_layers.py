"""Layers of a napari window that napari-spatialdata has no like of: maps of scores, and cells by the hundred thousand.

Floor 7, above evaluation. Used by pl/_napari.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig.pl.drawing.canvas import SCORE_MAP
from spatialsig.pl.drawing.slide_panels import robust_limits
from spatialsig.slide.coordinates import full_resolution, placed, um_per_global
from spatialsig.slide.table_rows import dense
from spatialsig.store.layout import levels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

NUCLEUS_UM = 7.0  # diameter of a dot
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])  # napari counts (y, x)


def map_channel(slide: Slide, map_key: str, signature: str | None) -> int | None:
    """Channel of a map that shows a signature; None where the slide has no such map, or the map no such channel."""
    if signature is None or map_key not in slide.sdata.images or map_key not in slide.attrs.get("signature_map", {}):
        return None
    names = list(map(str, full_resolution(slide.sdata.images[map_key]).coords["c"].values))
    return names.index(signature) if signature in names else None


def add_map(viewer: Any, slide: Slide, map_key: str, signature: str, channel: int, alpha: float) -> None:
    """Show one channel of a map, all its levels, in the colours of its legend; clear where there is no value."""
    element = slide.sdata.images[map_key]
    legend = slide.attrs["signature_map"][map_key]["legend"][signature]
    low, high = float(legend["low"]), float(legend["high"])
    to_global = placed(slide, element, f"map {map_key!r}") @ _half()
    viewer.add_image(
        [level.data[channel] for level in levels_of(element)], multiscale=True, name=f"{map_key}: {signature}",
        colormap=SCORE_MAP, contrast_limits=(low, max(high, low + 1e-6)), opacity=alpha, interpolation2d="nearest",
        affine=SWAP @ to_global @ SWAP,
    )  # fmt: skip


def coloured_cells(slide: Slide, table_key: str, signature: str | None) -> NDArray[np.float64] | None:
    """Values of the cells of a table of ``tl.predict_cells``, ``(n,)``; None where there is no such table or signature."""
    if signature is None or table_key not in slide.sdata.tables or "predict_cells" not in slide.params(table_key):
        return None
    table = slide.table(table_key)
    names = list(map(str, table.var_names))
    return dense(table.X[:, [names.index(signature)]]).astype(np.float64)[:, 0] if signature in names else None


def add_cells(viewer: Any, slide: Slide, values: NDArray[np.float64], table_key: str, signature: str) -> None:
    """Show cells as dots of the size of a nucleus, those with a value, in one layer of points: outlines of so many take minutes."""
    from matplotlib import colormaps

    known = np.isfinite(values)
    xy = np.asarray(slide.table(table_key).obsm[_keys.SPATIAL], np.float64)[known] / um_per_global(slide)
    shares = np.clip(np.asarray(robust_limits([values])(values[known])), 0, 1)
    viewer.add_points(
        xy[:, ::-1], size=NUCLEUS_UM / um_per_global(slide), face_color=colormaps[SCORE_MAP](shares), border_width=0,
        name=f"{table_key}: {signature}", features={signature: values[known]}, antialiasing=0,
    )  # fmt: skip


def _half() -> NDArray[np.float64]:
    """Centres of px, which napari counts from 0, in px that begin at their corners."""
    return np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
