"""Normalised expression as a layer; the counts stay as they are.

Floor 7, above evaluation. Called as sp.pp.normalize.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from spatialsig import _keys
from spatialsig._arguments import Key, NewKey, Positive, checked
from spatialsig.errors import InputError
from spatialsig.slide.added import check_added_part
from spatialsig.slide.counts import counts_of
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import counts_of_table
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide
from spatialsig.stats.expression import TARGET_SUM, library_size, log1p_cp10k, scaled_counts


@checked
@needs_cells
def normalize(
    data: Data,
    *,
    target_sum: Positive = TARGET_SUM,
    log1p: bool = True,
    layer: NewKey = "lognorm",
    table_key: Key = _keys.TABLE,
) -> None:
    """Write the counts of each cell, scaled to ``target_sum`` and as ``log1p``, into a layer.

    Only for other packages and for looking at genes: every function of this package starts from the counts.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    target_sum
        What the counts of a cell add up to afterwards. An empty cell stays empty.
    log1p
        Take ``log(1 + x)``.
    layer
        Name of the layer; a layer of that name is replaced.
    table_key
        Table of the cells, raw counts in ``X``.

    Returns
    -------
    Nothing; writes ``tables[table_key].layers[layer]``, CSR ``(n_cells, n_genes)`` float32, and
    ``uns["spatialsig"]["normalize"]``; with ``log1p`` also ``uns["log1p"]``, by which scanpy knows that values are
    logarithms. ``X`` keeps the counts.

    Raises
    ------
    InputError
        If ``X`` does not hold counts, or ``layer`` is ``"X"``.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.normalize(sdata)
    >>> sdata["table"].layers["lognorm"].shape == sdata["table"].shape
    True
    """
    if layer == "X":
        msg = "`layer='X'` would replace the raw counts; choose another name."
        raise InputError(msg)
    options = {"target_sum": target_sum, "log1p": log1p, "layer": layer}
    map_slides(data, partial(_normalize, table_key=table_key, options=options), "normalise")


def _normalize(slide: Slide, *, table_key: str, options: dict[str, Any]) -> None:
    layer = options["layer"]
    check_added_part(slide, table_key, "layers", layer, made_by="pp.normalize", name="layer")
    counts = counts_of(slide, table_key)
    scale = log1p_cp10k if options["log1p"] else scaled_counts
    table = slide.table(table_key)
    table.layers[layer] = scale(counts, library_size(counts), target_sum=options["target_sum"])
    if options["log1p"]:
        table.uns["log1p"] = {}
    slide.params(table_key)["normalize"] = dict(options)
    slide.commit_table(
        table_key,
        layers=[layer],
        uns=["log1p"] if options["log1p"] else [],
        steps=["normalize"],
        made_by="pp.normalize",
        sources=counts_of_table(table_key),
    )
