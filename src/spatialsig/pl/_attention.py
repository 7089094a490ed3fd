"""Patches of the H&E beside the maps of what the model saw in them.

Floor 7, above evaluation. Called as sp.pl.attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Fraction, Key, checked
from spatialsig._checks import check_key
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, KeyMissingError, StaleError
from spatialsig.pl.drawing.canvas import INK, RESIDUAL_MAP, SCORE_MAP, canvas, colour_bar, save_figure
from spatialsig.pl.drawing.slide_panels import frame, greyed, scale_bar
from spatialsig.pl.drawing.values import patch_values
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spatialsig.slide.slides import Slide

PANEL_IN = 1.9
BEYOND = 99  # percentile of the map at which the colours end: a few cells must not make all others pale
ROLLOUT = "rollout"
STRENGTH = 0.4  # of the grey below: nuclei must stay visible under the colours


@dataclass(frozen=True)
class _Shown:
    """One patch, its map and its score."""

    patch: int
    rgb: NDArray[np.uint8]  # (h, w, 3)
    map: NDArray[np.float64]  # (rows, columns)
    score: float


@checked
def attention(
    data: Data,
    signature: Key | None = None,
    *,
    patches: Sequence[int] | None = None,
    n: Count = 4,
    attention_key: Key = _keys.ATTENTION,
    table_key: Key = _keys.SIGNATURES_PRED,
    alpha: Fraction = 0.75,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Draw patches of the H&E and, below each, the map of what in it adds to its score.

    Without ``patches``, the ``n`` patches of the highest and the ``n`` of the lowest score are shown, highest first.
    Where maps overlap on the slide, their mean is shown.

    Parameters
    ----------
    data
        One slide (SpatialData or path of a store) with maps made by :func:`spatialsig.tl.attention`; not modified.
    signature
        Signature that orders the patches and, for ``method="gradient"``, whose map is drawn; the first one of the map
        when None.
    patches
        Ids of the patches to show, in this order.
    n
        Number of highest and of lowest patches.
    attention_key
        Image element of the maps.
    table_key
        Table of scores that choose and head the patches.
    alpha
        Opacity of the strongest colour, 0 to 1.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(2, n_patches)``: H&E above, map below. Red adds to the score and blue takes from it (share of the attention
    for a rollout), all patches on one scale; weak places show the tissue in grey.

    Raises
    ------
    KeyMissingError
        If there is no such map, signature or patch.
    InputError
        If ``data`` is several slides.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> model = sp.datasets.toy_model(sdata)
    >>> _ = sp.tl.attention(sdata, model, signatures=["Immune_T"], patches=[0, 1], n_steps=2)
    >>> sp.pl.attention(sdata, "Immune_T", n=1).shape
    (2, 2)
    """
    slide = _only(data)
    record, channel = _record(slide, attention_key), _channel(slide, attention_key, signature)
    scores = _scores(slide, signature or channel, table_key, record)
    shown = _gather(slide, attention_key, record, channel, _chosen(record, scores, patches, n), scores)
    drawing = canvas(figure, width_in=PANEL_IN * max(len(shown), 2), height_in=2 * PANEL_IN + 0.9)
    axes: NDArray[Any] = drawing.subplots(2, len(shown), squeeze=False)
    norm, colours = _colours(shown, record["method"])
    um_per_px = slide.patches(record["patches_key"]).spec.um_per_px
    for column, patch in enumerate(shown):
        _draw(axes[:, column], patch, norm, colours, alpha, um_per_px, first=column == 0)
    label = "share of the attention" if record["method"] == ROLLOUT else f"added to the score of {channel}"
    size = min(1.0, 3 / len(shown))
    colour_bar(drawing, _mappable(norm, colours), axes[1], shrink=size, aspect=34, pad=0.04, label=label)
    drawing.suptitle(f"{slide.name}: {signature or channel}", fontsize=10, color=INK)
    save_figure(drawing, save)
    return axes


def _only(data: Data) -> Slide:
    slides = list(open_slides(data))
    if len(slides) != 1:
        msg = (
            f"`data` holds {len(slides)} slides; give one of them, e.g. `cohort[{slides[0].name!r}]`." if slides else ""
        )
        raise InputError(msg or "`data` holds no slide.")
    return slides[0]


def _record(slide: Slide, key: str) -> dict[str, Any]:
    maps = slide.attrs.get("attention", {})
    check_key(maps, key, name="attention_key", where=f"the maps of slide {slide.name!r}", fix="Call `sp.tl.attention`.")
    slide.lineage.check(key)
    record: dict[str, Any] = maps[key]
    return record


def _channel(slide: Slide, key: str, signature: str | None) -> str:
    """Channel of the map to draw: the signature's, or the only one of a rollout."""
    names = [str(name) for name in slide.sdata.images[key].coords["c"].values]
    if signature is None or slide.attrs["attention"][key]["method"] == ROLLOUT:
        return names[0]
    check_key(names, signature, name="signature", where=f"map {key!r} of slide {slide.name!r}")
    return signature


def _scores(slide: Slide, signature: str, table_key: str, record: dict[str, Any]) -> dict[int, float]:
    """Score of every mapped patch; NaN for all of a rollout where no signature orders them."""
    patches = slide.patches(record["patches_key"])
    if record["method"] == ROLLOUT and table_key in slide.sdata.tables:
        names = slide.sdata.tables[table_key].var_names
        if signature not in names:
            return dict.fromkeys(record["patches"], np.nan)
    predicted = slide.params(table_key).get("predict", {}) if table_key in slide.sdata.tables else {}
    if predicted.get("weights_sha256", record["weights_sha256"]) != record["weights_sha256"]:
        msg = (
            f"slide {slide.name!r}: the maps are of another model than the scores in table {table_key!r}; call "
            "`sp.tl.attention` with the model that predicted them."
        )
        raise StaleError(msg)
    values = patch_values(patches, table_key, signature, name="predictions_key")
    rows = patches.ids.get_indexer(record["patches"])
    return dict(zip(record["patches"], values[rows].tolist(), strict=True))


def _chosen(record: dict[str, Any], scores: dict[int, float], patches: Sequence[int] | None, n: int) -> list[int]:
    if patches is not None:
        unknown = [patch for patch in patches if patch not in scores]
        if unknown or not len(patches):
            some = record["patches"][:8]
            msg = f"`patches`: {unknown or 'none given'}; there are maps of {len(scores)} patches, such as {some}."
            raise KeyMissingError(msg)
        return list(patches)
    by_score = sorted((patch for patch in scores if np.isfinite(scores[patch])), key=lambda p: -scores[p])
    order = by_score or list(scores)
    return order if len(order) <= 2 * n else [*order[:n], *order[-n:]]


def _gather(
    slide: Slide, key: str, record: dict[str, Any], channel: str, chosen: list[int], scores: dict[int, float]
) -> list[_Shown]:
    patches = slide.patches(record["patches_key"])
    rows = np.asarray(patches.ids.get_indexer(pd.Index(chosen)), np.int64)
    images = read_patches(patches.source(rows), np.arange(len(rows)))
    edge = round(patches.spec.size_l0 / record["cell_l0"])
    corners = (patches.origins[rows] - np.asarray(record["origin_l0"])) / record["cell_l0"]
    layer = slide.sdata.images[key].sel(c=channel)
    return [
        _Shown(patch, rgb.transpose(1, 2, 0), np.asarray(layer[y : y + edge, x : x + edge], np.float64), scores[patch])
        for patch, rgb, (y, x) in zip(chosen, images, np.rint(corners).astype(int).tolist(), strict=True)
    ]


def _colours(shown: list[_Shown], method: str) -> tuple[Normalize, str]:
    values = np.concatenate([patch.map[np.isfinite(patch.map)] for patch in shown])
    reach = float(np.percentile(np.abs(values), BEYOND)) or 1.0
    return (Normalize(0, reach), SCORE_MAP) if method == ROLLOUT else (Normalize(-reach, reach), RESIDUAL_MAP)


def _mappable(norm: Normalize, colours: str) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, colormaps[colours])


def _draw(
    pair: NDArray[Any], shown: _Shown, norm: Normalize, colours: str, alpha: float, um_per_px: float, *, first: bool
) -> None:
    edge = shown.rgb.shape[0]
    box = (0.0, 0.0, float(edge), float(edge))
    for axes, rgb in zip(pair, (shown.rgb, greyed(shown.rgb, strength=STRENGTH)), strict=True):
        axes.imshow(rgb, extent=(0, edge, edge, 0), origin="upper")
        frame(axes, box)
    _overlay(pair[1], shown.map, norm, colours, alpha, edge)
    score = "" if np.isnan(shown.score) else f": {shown.score:.2f}"
    pair[0].set_title(f"patch {shown.patch}{score}", fontsize=8, color=INK)
    if first:
        scale_bar(pair[0], box, um_per_px=um_per_px)


def _overlay(axes: Axes, values: NDArray[np.float64], norm: Normalize, colours: str, alpha: float, edge: int) -> None:
    """Colours as strong as the values: where nothing is added, the tissue itself is seen."""
    filled = np.nan_to_num(values)
    rgba = colormaps[colours](norm(filled))
    rgba[..., 3] = alpha * np.clip(np.abs(filled) / norm.vmax, 0, 1)
    axes.imshow(rgba, extent=(0, edge, edge, 0), origin="upper", interpolation="bilinear")
