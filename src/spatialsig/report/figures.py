"""Figures of the report that are not maps, and figures as text that an HTML file can hold.

Floor 10, above cohort. Used by report/document, report/slide_cards.
"""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from spatialsig import pl
from spatialsig.errors import SpatialsigError
from spatialsig.pl._calibration import draw_calibration
from spatialsig.pl._coverage import draw_coverage
from spatialsig.pl._gallery import draw_gallery
from spatialsig.pl._scatter import draw_scatter
from spatialsig.pl.drawing.canvas import save_figure
from spatialsig.signatures import read_signatures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from spatialsig.report.slide_cards import Gathered

GALLERIES_MAX_CHARS = 4_000_000  # of all together, so that the file stays below 20 MB
DPI = 110
QUALITY = 84
# colours of the plots -> colours of the page, so that curves and text follow a light or dark theme
THEME = {
    "#262626": "currentColor",
    "#000000": "currentColor",
    "#767676": "var(--muted)",
    "#d9d9d9": "var(--line)",
    "#ffffff": "var(--card)",
    "#a6b1ba": "var(--bar)",
}
SAVED_DPI = 200


@dataclass(frozen=True)
class FigureData:
    """Tables and maps that the figures are drawn from."""

    evaluation: pd.DataFrame
    summary: pd.DataFrame
    gathered: Gathered
    histories: Mapping[str, pd.DataFrame]
    signatures: Any  # as the labels were told: a name, a file, or genes by name


def draw_figures(data: FigureData, figures: Figures) -> dict[str, Any]:
    """Figures by the name the template gives them."""
    gathered = data.gathered
    return {
        "ladder": _ladder(data, figures),
        "scatter": _panels(
            draw_scatter, gathered, figures, "scatter", "Predicted against measured scores of held-out patches"
        ),
        "calibration": _panels(
            draw_calibration, gathered, figures, "calibration", "Measured scores at each tenth of the predicted"
        ),
        "galleries": _galleries(gathered, figures),
        "histories": {name: _history(name, table, figures) for name, table in data.histories.items()},
        "panel": _panel(data, figures),
    }


def _ladder(data: FigureData, figures: Figures) -> Markup:
    figure = Figure()
    pl.ladder(data.evaluation, summary=data.summary, figure=figure)
    return figures.drawing(figure, name="ladder", alt="Mean Pearson r of every method beside the ceiling")


def _panels(drawer: Any, gathered: Gathered, figures: Figures, name: str, alt: str) -> Markup | None:
    if not gathered.pairs:
        return None
    figure = Figure()
    drawer(gathered.pairs, figure)
    return figures.drawing(figure, name=name, alt=alt)


def _galleries(gathered: Gathered, figures: Figures) -> dict[str, Markup | None]:
    """Gallery of each signature as long as they fit; None for one that does not."""
    galleries: dict[str, Markup | None] = {}
    spent = 0
    for signature, crops in gathered.crops.items():
        if crops:
            galleries[signature] = _gallery(signature, crops, figures) if spent < GALLERIES_MAX_CHARS else None
            spent += len(galleries[signature] or "")
    return galleries


def _gallery(signature: str, crops: list[Any], figures: Figures) -> Markup:
    figure = Figure()
    draw_gallery(crops, signature, figure)
    alt = f"Patches of {signature}: right at both ends, and most wrong"
    return figures.picture(figure, name=f"patches-{signature}", alt=alt)


def _history(name: str, table: pd.DataFrame, figures: Figures) -> Markup:
    figure = Figure()
    pl.history(table, figure=figure)
    return figures.drawing(figure, name=f"history-{name}", alt=f"Training curves of {name}")


def _panel(data: FigureData, figures: Figures) -> Markup | None:
    """Genes of the signatures on each panel; None where the genes are not known (any more)."""
    if not data.signatures or not data.gathered.panels:
        return None
    try:
        sets = read_signatures(data.signatures)
    except SpatialsigError:
        return None  # the file of signatures is gone; the table of coverage still says what was measured
    figure = Figure()
    draw_coverage(sets, data.gathered.panels, figure)
    return figures.drawing(figure, name="panel", alt="Genes of each signature on the panel of each slide")


@dataclass(frozen=True)
class Figures:
    """Turns figures into parts of the page, and saves each as a file where a directory is given."""

    directory: Path | None = None

    def drawing(self, figure: Figure, *, name: str, alt: str) -> Markup:
        """A drawing with few marks, sharp at any size; saved as ``name.svg`` and ``name.png``."""
        svg = inline_svg(figure, name=name, alt=alt)
        self._save(figure, name, "svg", "png")
        return svg

    def picture(self, figure: Figure, *, name: str, alt: str) -> Markup:
        """A drawing made of pixels; saved as ``name.png``."""
        image = picture(figure, alt=alt)
        self._save(figure, name, "png")
        return image

    def _save(self, figure: Figure, name: str, *endings: str) -> None:
        if self.directory is None:
            return
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "figure"
        for ending in endings:
            save_figure(figure, self.directory / f"{stem}.{ending}", dpi=SAVED_DPI, facecolor="white", bbox_inches=None)


def inline_svg(figure: Figure, *, name: str, alt: str) -> Markup:
    """Drawing as SVG without addresses or fixed size; ``name`` keeps its inner ids apart from those of other drawings."""
    text = io.StringIO()
    _settle(figure)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, dpi=DPI, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # numbered groups that nothing refers to
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    for colour, themed in THEME.items():
        svg = svg.replace(colour, themed)
    width_px = round(figure.get_size_inches()[0] * 96)
    start = f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" style="max-width:{width_px}px"'
    return Markup(svg.replace("<svg", start, 1))  # names in the drawing were escaped by matplotlib


def picture(figure: Figure, *, alt: str) -> Markup:
    """Drawing as an ``<img>`` with its pixels inside, compressed as a photograph."""
    data = io.BytesIO()
    _settle(figure)
    figure.savefig(data, format="webp", dpi=DPI, pil_kwargs={"quality": QUALITY, "method": 4})
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    return Markup('<img alt="{}" src="data:image/webp;base64,{}">').format(alt, encoded)


def _settle(figure: Figure) -> None:
    """Lay out once and for all; else saving would draw everything twice, the first time for the layout."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
