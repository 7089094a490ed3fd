"""Agreement against the scale at which it is judged.

Floor 7, above evaluation. Called as sp.pl.scales; used by cli/judging_commands.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialsig._arguments import AnyPath, checked
from spatialsig.evaluation.scales import CONTROLS, PREDICTED, Scales
from spatialsig.pl.drawing.canvas import ACCENT, FAINT, GRID, INK, SECOND, SERIES, canvas, save_figure
from spatialsig.pl.drawing.methods import display_name

WIDTH_IN, HEIGHT_IN = 6.4, 4.2


@checked
def scales(result: Scales, *, figure: Figure | None = None, save: AnyPath | None = None) -> Axes:
    """Plot mean r against the edge of the squares, with density, colour and the noise ceiling at each scale.

    Parameters
    ----------
    result
        What :func:`spatialsig.tl.scales` returned.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    The axes. A dot is one held-out slide (mean over signatures), the line the mean over patients; vermilion marks the finest scale at
    which predictions beat density and colour.

    Examples
    --------
    >>> import spatialsig as sp
    >>> found = sp.tl.scales(sp.datasets.toy_study(predicted=True), scales_um=[56.0, 84.0])
    >>> sp.pl.scales(found).get_xlabel()
    'edge of the squares (µm)'
    """
    summary = result.summary.sort_values("scale_um")
    drawing = canvas(figure, width_in=WIDTH_IN, height_in=HEIGHT_IN)
    axes = drawing.subplots()
    x = summary["scale_um"].to_numpy()
    own = (
        result.table[result.table["method"] == PREDICTED]
        .groupby(["scale_um", "sample"])["pearson"]
        .mean()
        .reset_index()
    )
    axes.plot(own["scale_um"], own["pearson"], "o", color=ACCENT, markersize=3.5, alpha=0.5, linewidth=0)
    lines = [
        ("predicted", PREDICTED, ACCENT, "-"),
        *((display_name(m), m, SERIES[k + 2], "-") for k, m in enumerate(CONTROLS)),
    ]
    for label, column, colour, style in [*lines, ("noise ceiling", "ceiling", INK, "--")]:
        y = summary[column].to_numpy()
        # dots: a scale between two that could not be judged has no line
        axes.plot(
            x,
            y,
            style,
            color=colour,
            linewidth=1.8 if column == PREDICTED else 1.2,
            label=label,
            marker="s",
            markersize=4,
        )
    if result.finest_um is not None:
        axes.axvline(result.finest_um, color=SECOND, linewidth=1, linestyle=":")
        axes.annotate(
            f"beats density and colour from {result.finest_um:g} µm", (result.finest_um, 0.02), (4, 0), fontsize=8, color=SECOND,
            xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom",
        )  # fmt: skip
    axes.set(xscale="log", ylim=(min(-0.05, float(own["pearson"].min()) - 0.05), 1.05))
    axes.set_xlim(x.min() / 1.25, x.max() * 1.25)
    axes.set_xticks(x, [f"{edge:g}" for edge in x])
    axes.minorticks_off()
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_xlabel("edge of the squares (µm)", fontsize=10)
    axes.set_ylabel("Pearson r on held-out slides", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(drawing, save)
    return axes
