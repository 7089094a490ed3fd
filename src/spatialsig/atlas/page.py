"""One HTML file that zooms into the H&E of slides, with what was measured and predicted over it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Positive, checked
from spatialsig._files import check_target, write_text
from spatialsig._progress import progress_bar
from spatialsig.atlas.tiles import EDGE, pyramid
from spatialsig.atlas.values import (
    INTERVAL,
    MEASURED,
    PREDICTED,
    STD,
    Tables,
    as_text,
    columns_of,
    joined,
    quantised,
    values_of,
)
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl.drawing.canvas import RESIDUAL_MAP, SCORE_MAP
from spatialsig.pl.drawing.slide_panels import centred_limits, robust_limits
from spatialsig.pl.drawing.templates import template_of
from spatialsig.slide.coordinates import full_resolution, image_of
from spatialsig.slide.slides import Data, open_slides, slide_count

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from spatialsig.atlas.values import SlideValues
    from spatialsig.slide.patches import Patches

SUFFIXES = (".html", ".htm")
VIEWER = "viewer.js"
MAX_PAGE_MB = 250.0  # of all slides: browsers read the page whole
MIN_IMAGE_SHARE = 0.2  # of the bytes of a slide
TITLES = {
    MEASURED: "measured",
    PREDICTED: "predicted",
    "difference": "measured \u2212 predicted",
    "split": "measured | predicted",
    INTERVAL: "width of interval",
    STD: "standard deviation",
}


@checked
def atlas(
    data: Data,
    path: AnyPath,
    *,
    signatures: Annotated[Sequence[Key], Field(min_length=1)] | None = None,
    signatures_key: Key = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    image_px: Count = 8192,
    max_mb: Positive = 30.0,
    title: str = "Signatures over the H&E",
) -> Path:
    """Write one HTML file that zooms into the H&E of every slide, with measured and predicted scores over it.

    The file needs nothing else: it opens without a network and from a disk. Wheel, drag, two fingers, arrows and ``+``/``-`` move and zoom;
    menus choose slide, signature and layer: measured, predicted, their difference, both side by side, the width of the intervals
    (:func:`spatialsig.tl.calibrate`), standard deviations, and every numeric column of the patches and their tables (number of
    cells, share of tissue, quality, ...). A patch under the pointer shows its values. One signature has one scale on all slides:
    the middle 96 % of what was measured (of patches that pass), or predicted where nothing was measured. The address of the page keeps what is shown,
    so that a view can be sent to others. Patches that fail quality control (:func:`spatialsig.pp.qc_patches`) are left clear until the switch shows
    them, and a slide that lies outside what the model learned from says so.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified. Slides need patches and a table of measured or predicted scores.
    path
        HTML file to write; replaced if it exists.
    signatures
        Only these; None for all that a slide has.
    signatures_key, predictions_key
        Tables of measured and predicted scores; one that a slide does not have is left out.
    patches_key
        Shapes element of the patches.
    image_px
        Longest edge of the H&E at its finest zoom, px; less where ``max_mb`` does not hold that.
    max_mb
        Size of each slide in the file, MB; of more than 8 slides less, so that the file stays below 250 MB.
    title
        Heading of the page.

    Returns
    -------
    Path of the file. Nothing is written to ``data``.

    Raises
    ------
    InputError
        If ``path`` does not end with ``.html`` or lies in a Zarr store, a slide has neither measured nor predicted scores, or its scores alone are larger
        than ``max_mb``.
    KeyMissingError
        If there are no patches, or a signature is not there.

    Examples
    --------
    >>> import tempfile
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = sp.pl.atlas(sdata, f"{folder}/atlas.html")
    ...     path.stat().st_size < 1_000_000
    True
    """
    target = Path(path)
    check_target(target, SUFFIXES)
    tables = Tables(signatures_key, predictions_key)
    n_slides = slide_count(data) or 1
    max_chars = int(min(max_mb, MAX_PAGE_MB / n_slides) * 1e6)
    slides, shown = [], []
    with progress_bar("atlas", total=None, unit="px row") as bar:
        for slide in open_slides(data):
            patches = slide.patches(patches_key)
            slides.append(values_of(patches, tables, signatures))
            shown.append(_slide(patches, slides[-1], image_px=image_px, max_chars=max_chars, told=bar.advance))
    for key, usual, layer, name in (
        (signatures_key, _keys.SIGNATURES, MEASURED, "signatures_key"),
        (predictions_key, _keys.SIGNATURES_PRED, PREDICTED, "predictions_key"),
    ):
        if key != usual and not any(values.scores.get(layer) for values in slides):
            msg = f"`{name}={key!r}` is a table of none of these slides; leave it out for {usual!r}."
            raise KeyMissingError(msg)
    content = {
        "edge": EDGE,
        "slides": shown,
        "titles": TITLES,
        "scales": _scales(slides),
        "columns": {name: _ends(robust_limits(values)) for name, values in columns_of(slides).items()},
        "colours": {"score": _colours(SCORE_MAP), "difference": _colours(RESIDUAL_MAP)},
    }
    write_text(target, _page(content, title))
    return target


def _slide(patches: Patches, values: SlideValues, *, image_px: int, max_chars: int, told: Any) -> dict[str, Any]:
    """Everything that the page holds of one slide, as plain values."""
    slide, spec = patches.slide, patches.spec
    image = image_of(slide, spec.image_key)
    full = full_resolution(image).sizes
    encoded = {
        "name": slide.name,
        "patient": slide.patient,
        "notes": values.notes,
        "cautions": values.cautions,
        "width": full["x"],
        "height": full["y"],
        "um_per_px": spec.image_um_per_px,
        "patch_um": spec.patch_px * spec.um_per_px,
        "patches": _places(patches.origins, size=spec.size_l0, stride=spec.stride_l0),
        "scores": {layer: {n: quantised(v) for n, v in of.items()} for layer, of in values.scores.items() if of},
        "columns": {name: quantised(v) for name, v in values.columns.items() if np.isfinite(v).any()},
    }
    left = max_chars - len(json.dumps(encoded))
    if left < MIN_IMAGE_SHARE * max_chars:
        n_scores = sum(map(len, values.scores.values()))
        msg = (
            f"slide {slide.name!r}: the {n_scores:,} maps of {len(patches):,} patches take {(max_chars - left) / 1e6:.2g} MB of {max_chars / 1e6:.2g} "
            "MB, which leaves no room for the H&E: name fewer `signatures`, raise `max_mb`, or give fewer slides."
        )
        raise InputError(msg)
    levels = pyramid(image, slide=slide.name, max_px=image_px, max_chars=left, told=told)
    return encoded | {"levels": [vars(level) for level in levels]}


def _places(origins: NDArray[np.int64], *, size: float, stride: float) -> dict[str, Any]:
    """Where each patch is drawn: its column and row where all lie on one grid, else its left and top edge, full-resolution px.

    Overlapping patches would hide each other: each is drawn as its central ``stride`` px.
    """
    side = min(size, stride)
    corners = origins[:, ::-1] + (size - side) / 2
    first = corners.min(axis=0)
    steps = np.rint((corners - first) / side).astype(np.int64)
    on_grid = np.abs(steps * side + first - corners).max() <= 0.5 and len(np.unique(steps, axis=0)) == len(steps)
    at, kind = (steps, "<u4") if on_grid else (corners, "<f4")
    return {
        "side": float(side),
        "x0": float(first[0]),
        "y0": float(first[1]),
        "grid": bool(on_grid),
        "x": as_text(at[:, 0].astype(kind)),
        "y": as_text(at[:, 1].astype(kind)),
    }


def _scales(slides: Sequence[SlideValues]) -> dict[str, dict[str, list[float]]]:
    """Ends of the colours of each signature by the kind of layer, which all slides share."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in dict.fromkeys(name for slide in slides for name in slide.signatures):
        scores = joined(slides, [MEASURED], name) or joined(slides, [PREDICTED], name)
        if not any(np.isfinite(values).any() for values in scores):
            scores = joined(slides, [PREDICTED], name) or scores
        found[name] = {"score": _ends(robust_limits(scores or [np.zeros(1)]))}
        both = [s.scores for s in slides if all(name in s.scores.get(layer, {}) for layer in (MEASURED, PREDICTED))]
        if both:
            residuals = [(s[MEASURED][name] - s[PREDICTED][name]).astype(np.float64) for s in both]
            found[name]["difference"] = _ends(centred_limits(residuals))
        for layer in (INTERVAL, STD):
            if values := joined(slides, [layer], name):
                found[name][layer] = _ends(robust_limits(values))
    return found


def _ends(limits: Normalize) -> list[float]:
    return [float(limits.vmin or 0.0), float(limits.vmax or 0.0)]


def _colours(name: str) -> str:
    """256 colours as text of hex digits."""
    return (np.asarray(colormaps[name](np.arange(256)))[:, :3] * 255).round().astype(np.uint8).tobytes().hex()


def _page(content: dict[str, Any], title: str) -> str:
    text: str = template_of("spatialsig.atlas").render(
        title=title,
        # names may hold anything: nothing in them may end the script
        content=Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c")),
        viewer=Markup(resources.files("spatialsig.atlas").joinpath(VIEWER).read_text(encoding="utf-8")),
        n_slides=len(content["slides"]),
    )
    return text
