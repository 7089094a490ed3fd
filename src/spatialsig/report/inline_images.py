"""Figures as text that an HTML file can hold."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup
from matplotlib import rc_context

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

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
        self.directory.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "figure"
        for ending in endings:
            figure.savefig(self.directory / f"{stem}.{ending}", dpi=SAVED_DPI, facecolor="white")


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
