"""Figures as text that an HTML file can hold."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup
from matplotlib import rc_context

if TYPE_CHECKING:
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
}


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
