"""Coverage of signatures by the panels, and the genes that signatures share.

Floor 7, above evaluation. Called as sp.pl.coverage; used by report/figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig.pl.drawing.canvas import INK, canvas, save_figure
from spatialsig.signatures import Source, measured_genes, overlap_matrix, read_signatures
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from spatialsig.signatures import Genes


ROW_IN, COLUMN_IN = 0.34, 0.62
ALL = "all slides"


@checked
@needs_cells
def coverage(
    data: Data,
    signatures: Source = "tumour_microenvironment",
    *,
    table_key: Key = _keys.TABLE,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Draw which share of its genes a signature has on the panel of each slide, and which signatures share genes.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one column per slide); not modified.
    signatures
        Name of a built-in set, file, or mapping of names to genes; see :func:`spatialsig.io.read_signatures`.
    table_key
        Table of the cells; its ``var_names`` are the panel.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(2,)``: genes measured of all genes per signature and slide, with several slides a last column for the genes
    that all of them measure (scores are made of these); number of genes that two signatures share. Nothing is written
    to ``data``.

    Raises
    ------
    KeyMissingError
        If a slide has no such table.
    InputError
        If the signatures cannot be read.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sp.pl.coverage(sp.datasets.toy(), "seed").shape
    (2,)
    """
    sets = read_signatures(signatures)
    panels = {slide.name: list(slide.table(table_key).var_names) for slide in open_slides(data)}
    axes = draw_coverage(sets, panels, figure)
    save_figure(axes[0].figure, save)
    return axes


def draw_coverage(
    signatures: Mapping[str, Genes], panels: Mapping[str, Sequence[str]], figure: Figure | None
) -> NDArray[Any]:
    """Both panels of :func:`coverage`, from the genes on the panel of each slide."""
    names = list(signatures)
    columns = {sample: [panel] for sample, panel in panels.items()}
    if len(panels) > 1:
        columns[ALL] = list(panels.values())
    n_measured = np.array(
        [[len(genes) for genes in measured_genes(signatures, of_slides).values()] for of_slides in columns.values()]
    ).T
    n_wanted = np.array([len(genes) for genes in signatures.values()])
    shared = overlap_matrix(signatures).to_numpy()
    drawing = canvas(
        figure, width_in=COLUMN_IN * (len(columns) + len(names)) + 3.2, height_in=ROW_IN * len(names) + 1.5
    )
    axes: NDArray[Any] = drawing.subplots(1, 2, width_ratios=[len(columns), len(names)])
    texts = [[f"{n}/{n_genes}" for n in row] for row, n_genes in zip(n_measured, n_wanted, strict=True)]
    _grid(axes[0], n_measured / np.maximum(n_wanted, 1)[:, None], texts, names, list(columns))
    axes[0].set_title("Genes measured / wanted", fontsize=10, loc="left", color=INK)
    other = np.where(np.eye(len(names), dtype=bool), np.nan, shared / np.maximum(n_wanted, 1)[:, None])
    texts = [["" if i == j or not n else str(n) for j, n in enumerate(row)] for i, row in enumerate(shared)]
    _grid(axes[1], other, texts, names, names)
    axes[1].set_title("Genes shared by two signatures", fontsize=10, loc="left", color=INK)
    axes[1].set_yticks([])
    return axes


def _grid(
    axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]], rows: list[str], columns: list[str]
) -> None:
    """Cells coloured by a share from 0 to 1, with a text in each that stays readable on its colour."""
    colours = colormaps["Blues"].with_extremes(bad="#eeeeee")
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        ink = "white" if share > 0.6 else INK
        axes.text(j, i, texts[i][j], ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
