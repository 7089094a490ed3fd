"""Measured, predicted and residual maps of a signature over the H&E.

Floor 7, above evaluation. Called as sp.pl.compare; used by report/slide_cards.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Fraction, Key, Natural, checked
from spatialsig.errors import InputError
from spatialsig.pl.drawing import slide_panels
from spatialsig.pl.drawing.canvas import INK, RESIDUAL_MAP, SCORE_MAP, SECOND, canvas, colour_bar, save_figure
from spatialsig.pl.drawing.maps import slide_maps
from spatialsig.slide.roles import explained, with_cells
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from spatialsig.pl.drawing.maps import SlideMaps

PANEL_IN = 3.3  # width of one map
TALLEST_IN = 6.0
TITLES = {"image": "H&E", "measured": "Measured", "predicted": "Predicted", "residual": "Measured − predicted"}  # noqa: RUF001


@checked
def compare(
    data: Data,
    signature: Key,
    *,
    signatures_key: Key | None = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    image_key: Key | None = None,
    patches_key: Key = _keys.PATCHES,
    fold: Natural | None = None,
    show_image: bool = True,
    alpha: Fraction = 0.75,
    limits: tuple[float, float] | None = None,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Map the measured and predicted scores of a signature, and their difference, over the H&E.

    Measured and predicted share one colour scale, the middle 96 % of the measured values of all slides shown; a
    prediction that varies less therefore looks paler, as it should. Patches without a value stay transparent. Where
    patches overlap, each is drawn as its central ``stride``-sized square. Below the colours the H&E is shown in grey, so
    that it does not tint them.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one row per slide); not modified.
    signature
        Name of a signature, a column of both tables.
    signatures_key, predictions_key
        Tables of measured and predicted scores. ``signatures_key=None`` shows the prediction alone, for slides without
        gene expression.
    image_key
        H&E image to show; the one the patches were cut from when None.
    patches_key
        Shapes element both tables annotate.
    fold
        Show only patches of this fold (``obs["fold"]``), and only slides that have any; None shows all.
    show_image
        Show the H&E, alone in the first column and below the maps.
    alpha
        Opacity of the patches, 0 to 1.
    limits
        Ends of the colour scale of the scores, so that maps that are drawn one by one can be compared; None takes the middle
        96 % of what is shown.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(n_slides, n_panels)``; panels are H&E (with ``show_image``), measured, predicted, measured minus predicted.
    Pearson r over the labelled patches, and their number n, stand above the prediction. Beside a slide that the model was
    trained on, or on parts of it, this is said, where the table of predictions records it. Nothing is written to ``data``.

    Raises
    ------
    KeyMissingError
        If a table, the image, the patches or the signature is missing; the message names the slide.
    InputError
        If no slide has patches in ``fold``, or a table does not describe the patches.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> sp.pl.compare(sdata, "Immune_T").shape  # H&E, measured, predicted, difference
    (1, 4)
    """
    keys: dict[str, Any] = {
        "signatures_key": signatures_key,
        "predictions_key": predictions_key,
        "image_key": image_key,
        "patches_key": patches_key,
    }
    asked = data if signatures_key is None else with_cells(data, told_by="compare")
    with nullcontext() if signatures_key is None else explained(data, "compare"):
        slides = [slide_maps(s, signature, fold=fold, show_image=show_image, **keys) for s in open_slides(asked)]
    shown = [s for s in slides if fold is None or np.isfinite(s.predicted).any()]
    if not shown:
        msg = f"no prediction of {signature!r} lies in `fold={fold}` on any of {[s.name for s in slides]}."
        raise InputError(msg)
    axes = _draw(shown, signature, alpha, limits, figure)
    save_figure(axes.flat[0].figure, save)
    return axes


def _draw(
    slides: list[SlideMaps], signature: str, alpha: float, limits: tuple[float, float] | None, figure: Figure | None
) -> NDArray[Any]:
    labelled = slides[0].measured is not None
    panels = ["image"] * (slides[0].image is not None)
    panels += ["measured", "predicted", "residual"] if labelled else ["predicted"]
    heights = [min(TALLEST_IN, PANEL_IN * (s.box[3] - s.box[1]) / (s.box[2] - s.box[0])) for s in slides]
    drawing = canvas(figure, width_in=PANEL_IN * len(panels) + 0.3, height_in=sum(heights) + 0.3 * len(slides) + 0.9)
    axes = drawing.subplots(len(slides), len(panels), squeeze=False, height_ratios=heights)

    reference = [s.predicted if s.measured is None else s.measured for s in slides]
    residuals = [s.residual for s in slides if s.residual is not None]
    scores = slide_panels.robust_limits(reference if limits is None else [np.array(limits)], cut=limits is None)
    differences = slide_panels.centred_limits(residuals or reference)
    scales = {
        "measured": (scores, SCORE_MAP),
        "predicted": (scores, SCORE_MAP),
        "residual": (differences, RESIDUAL_MAP),
    }
    for row, slide in zip(axes, slides, strict=True):
        _draw_row(row, slide, panels, scales, alpha, label_pad=16 if any(s.learnt for s in slides) else 4)

    bars = [(["measured", "predicted"], scores, [*reference, *(s.predicted for s in slides)], f"{signature} score")]
    bars += [(["residual"], differences, residuals, "difference of scores")] if labelled else []
    for names, norm, values, label in bars:
        columns = [i for i, name in enumerate(panels) if name in names]
        shape: dict[str, Any] = {"shrink": 0.5, "aspect": 34} if len(columns) > 1 else {"shrink": 0.8, "aspect": 26}
        artist, ends = axes[0, columns[0]].collections[0], slide_panels.beyond(norm, values)
        bar = colour_bar(
            drawing, artist, axes[:, columns].flat, extend=ends, label=label, pad=0.02, panchor=False, **shape
        )
        bar.ax.tick_params(labelsize=8)
    for panel in axes.flat:
        panel.set_anchor("N")  # a colour bar pulls its maps down, away from the H&E beside them
    drawing.suptitle(signature, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return axes


def _draw_row(
    row: NDArray[Any],
    slide: SlideMaps,
    panels: list[str],
    scales: dict[str, tuple[Any, str]],
    alpha: float,
    *,
    label_pad: float,
) -> None:
    for axes, name in zip(row, panels, strict=True):
        if slide.image is not None:
            slide_panels.draw_image(axes, slide.image, grey=name != "image")
        if name != "image":
            norm, cmap = scales[name]
            opacity = alpha if slide.image is not None else 1.0
            slide_panels.draw_patches(axes, slide.corners, getattr(slide, name), norm=norm, cmap=cmap, alpha=opacity)
        slide_panels.frame(axes, slide.box)
        title = TITLES[name]
        if name == "predicted":
            title += f" from {slide.inputs}" * bool(slide.inputs) + _agreement(slide)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
    row[0].set_ylabel(slide.name, fontsize=11, color=INK, labelpad=label_pad)
    if slide.learnt:  # its r says nothing of other slides
        row[0].text(
            -0.015,
            0.5,
            slide.learnt,
            transform=row[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
            color=SECOND,
        )
    slide_panels.scale_bar(row[0], slide.box, um_per_px=slide.um_per_px)


def _agreement(slide: SlideMaps) -> str:
    if slide.measured is None:
        return ""
    r, n_patches = slide.pearson
    return f": no r (n = {n_patches})" if np.isnan(r) else f": r = {r:.2f} (n = {n_patches:,})"
