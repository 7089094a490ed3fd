"""Figures to draw on, and the colours all plots share.

Floor 7, above evaluation. Used by 19 modules of atlas, pl, report, whole_slides.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rcParams
from matplotlib.ticker import MaxNLocator

from spatialsig._files import replaced
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

SCORE_MAP = "viridis"  # perceptually even, and safe for colour-blind readers
RESIDUAL_MAP = "RdBu_r"  # red: more measured than predicted; safe for colour-blind readers
INK, FAINT, GRID = "#262626", "#767676", "#d9d9d9"
ACCENT, SECOND = "#0072b2", "#d55e00"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")  # Okabe and Ito, + 2
DPI = 200


def canvas(figure: Figure | None, *, width_in: float, height_in: float) -> Figure:
    """``figure`` emptied and sized, or a new one of pyplot, which a notebook shows by itself."""
    if figure is None:
        from matplotlib import pyplot as plt

        return plt.figure(figsize=(width_in, height_in), layout="constrained")
    figure.clear()
    figure.set_size_inches(width_in, height_in)
    figure.set_layout_engine("constrained")
    return figure


def colour_bar(figure: Figure, artist: ScalarMappable, axes: Iterable[Axes], **shape: Any) -> Colorbar:
    """Bar below ``axes``, without a frame and with few ticks; ``shape`` goes to ``Figure.colorbar``."""
    bar = figure.colorbar(artist, ax=list(axes), location="bottom", **shape)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    return bar


def save_figure(figure: Figure, save: str | Path | None, **options: Any) -> None:
    """Write the figure where the caller wants it, whole or not at all; the ending of the file decides the format.

    ``options`` go to ``Figure.savefig``. Raises :class:`InputError` for a format that matplotlib does not know.
    """
    if save is None:
        return
    path = Path(save)
    if not path.name.strip("."):
        msg = f"`save={str(save)!r}` is a folder; add the name of a file, such as 'figure.png'."
        raise InputError(msg)
    path = path if path.suffix.strip(".") else path.with_name(f"{path.name.rstrip('.')}.{rcParams['savefig.format']}")
    ending, known = path.suffix[1:].lower(), sorted(figure.canvas.get_supported_filetypes())
    if ending not in known:
        msg = f"`save={str(save)!r}`: figures are not written as {path.suffix!r}; use one of {known}, such as {path.stem + '.png'!r}."
        raise InputError(msg)
    options = {"dpi": DPI, "bbox_inches": "tight", **options}
    drawn = io.BytesIO()  # in memory first: a full disk would stop matplotlib half way, with an error of its own
    with replaced(path) as partial:
        figure.savefig(drawn, format=ending, **options)
        partial.write_bytes(drawn.getvalue())
