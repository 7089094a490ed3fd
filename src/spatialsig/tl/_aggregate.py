"""Labels of the patches, summed up from the cells that lie in them.

Floor 7, above evaluation. Called as sp.tl.aggregate_patches; used by 3 modules of cli, datasets, pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, Natural, NewKey, checked
from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.labels.patch_labels import LabelRequest, categories_of, check_slide, patch_labels
from spatialsig.labels.statistics import PSEUDOBULK, STATISTICS
from spatialsig.labels.targets import Targets
from spatialsig.slide.each import map_slides
from spatialsig.slide.embeddings import AUTO, chosen_rep
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide


@checked
@needs_cells
def aggregate_patches(
    data: Data,
    *,
    stat: str = "mean",
    trim: Fraction = 0.1,
    min_cells: Natural = 10,
    targets: Mapping[str, str | Sequence[str]] | None = None,
    use_rep: Key | None = AUTO,
    obs: Sequence[str] = (),
    obsm: Sequence[str] = (),
    layers: Sequence[str] = (),
    patches_key: Key = _keys.PATCHES,
    table_key: Key = _keys.TABLE,
    key_added: NewKey = _keys.SIGNATURES,
) -> None:
    """Label every patch from its cells: signature scores, embedding, number of cells, and whatever else is asked for.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    stat
        How the scores of the cells become the label: ``"mean"`` (default), ``"median"``, ``"trimmed_mean"``, or
        ``"pseudobulk"``: the counts of the cells are added up and the patch is scored like one large cell, under the
        parameters that ``score_cells`` kept. On sparse counts many patches share one median exactly. Also ``"sum"``,
        ``"fraction"`` (share of the values above 0) and ``"count"`` (number of values).
    trim
        Share of lowest and of highest scores left out by ``stat="trimmed_mean"``, from 0 to 0.5.
    min_cells
        Patches with fewer cells get NaN scores.
    targets
        What becomes the columns of the table instead of the scores, summarised by ``stat``: columns of the cells by where
        they lie, ``{"obs": "cell_type"}`` (a category becomes a column of 1 and 0, so that its mean is the share of the
        cells and its sum their number), ``{"obs": ["area", "n_nuclei"]}``, ``{"obsm": "X_pca"}``, ``{"layers": "X"}``
        (the counts of every gene) or ``{"layers": "lognorm", "genes": ["CD3D", "MS4A1"]}``. None takes the scores.
    use_rep
        Embedding in ``tables[table_key].obsm`` whose mean goes to ``obsm`` of the new table; ``None`` for none. ``"auto"``
        takes ``X_ae`` where :func:`embed_cells` made it, and else none.
    obs
        Columns of the cells: numbers and booleans are averaged, categories become shares.
    obsm
        More arrays of the cells to average.
    layers
        Layers to average, ``"X"`` for the counts; cells without a count are zeros.
    patches_key, table_key
        Shapes element of the patches, table of the cells.
    key_added
        Name of the new table; a table of that name is replaced.

    Returns
    -------
    Nothing; writes ``tables[key_added]``, one row per patch:

    - ``X`` float32, one column per signature or target; NaN where not measured, and in patches with too few cells;
    - ``layers["sem"]``: standard error of ``X`` for a mean, a sum or a fraction, 0 for a count, and that of the mean for
      the other statistics; NaN below two cells, except for a count;
    - ``obs``: ``region``, ``patch_id``, ``sample``, ``patient``, ``fold``, ``n_cells``, ``n_counts`` (mean counts per
      cell), every numeric column of ``obs`` and its standard error ``<column>_sem`` (float64);
    - ``obsm``: ``spatial`` (patch centres, µm); ``use_rep`` and ``obsm`` float32; ``<column>_fraction``, a DataFrame with
      one column per category (its ``/`` written as ``_``); ``<layer>_mean``, CSR ``(n_patches, n_genes)`` float32, its genes in
      ``uns["spatialsig"]["aggregate_patches"]["genes"]``; each with its standard error, named ``<key>_sem``,
      ``<column>_fraction_sem`` or ``<layer>_sem``;
    - ``var``: ``n_genes_panel``, ``n_genes_measured`` (not for ``targets``);
    - ``uns["spatialsig"]["aggregate_patches"]``: the parameters, the ``unit`` of the scores in words, and ``tie_fraction``, the share of patches on the most
      frequent value of each column; copies of what ``score_cells`` and ``embed_cells`` kept.

    NaN where a patch has no cells (zero in the averaged layers).

    Raises
    ------
    KeyMissingError
        If cells are not assigned, scored or embedded yet, or a column is not there.
    InputError
        If no patch of a slide has ``min_cells`` cells, a column holds neither numbers nor categories, or the embeddings
        of the slides were made by different autoencoders; for these nothing is written.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> sdata["table"].obs["cell_type"] = sdata["table"].obs["cell_type"].astype("category")
    >>> sp.tl.aggregate_patches(sdata, targets={"obs": "cell_type"}, use_rep=None, key_added="cell_types")
    >>> "T_cell" in sdata["cell_types"].var_names
    True
    """
    check_choice(stat, STATISTICS, name="stat")
    if not 0 <= trim <= 0.5:
        msg = f"`trim` must lie between 0 and 0.5; got {trim!r}."
        raise InputError(msg)
    chosen = None if targets is None else Targets.of(targets)
    if chosen is not None and stat == PSEUDOBULK:
        msg = "`stat='pseudobulk'` scores the summed counts of a patch; for `targets` use `stat='sum'`."
        raise InputError(msg)
    use_rep = chosen_rep(data, use_rep, table_key=table_key, where=any)
    request = LabelRequest(
        stat=stat, trim=trim, min_cells=min_cells, targets=chosen, rep=() if use_rep is None else (use_rep,),
        obs=tuple(obs), obsm=tuple(obsm), layers=tuple(layers), patches_key=patches_key, table_key=table_key,
    )  # fmt: skip
    categories = categories_of(data, request, key_added=key_added)
    map_slides(data, partial(_label, request=request, categories=categories, key_added=key_added), "label patches")


def _label(slide: Slide, *, request: LabelRequest, categories: dict[str, list[str]], key_added: str) -> None:
    check_slide(slide, request=request, key_added=key_added)
    labels = patch_labels(slide, request, categories)
    slide.put(key_added, labels, made_by="tl.aggregate_patches", sources=request.sources(slide))
