"""All figures of the report that are not maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from spatialsig import pl
from spatialsig.errors import SpatialsigError
from spatialsig.pl._calibration import draw_calibration
from spatialsig.pl._coverage import draw_coverage
from spatialsig.pl._gallery import draw_gallery
from spatialsig.pl._scatter import draw_scatter
from spatialsig.signatures import read_signatures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from markupsafe import Markup

    from spatialsig.report.inline_images import Figures
    from spatialsig.report.slide_cards import Gathered


GALLERIES_MAX_CHARS = 4_000_000  # of all together, so that the file stays below 20 MB


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
