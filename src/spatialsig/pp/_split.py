"""Folds by patient, by slide, or by blocks inside one slide: never by random patches."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._checks import check_choice, check_positive
from spatialsig._errors import InputError, LeakageError, SpatialsigWarning
from spatialsig.data.slides import open_slides
from spatialsig.data.splits import folds_of, group_folds

if TYPE_CHECKING:
    from spatialsig.data.slides import Data, Slide


def split(
    data: Data,
    *,
    by: str = "patient",
    n_folds: int = 4,
    block_um: float = 1000.0,
    buffer_um: float = 256.0,
    seed: int = 0,
    table_key: str = _keys.TABLE,
) -> None:
    """Give every slide (or every block of a slide) a fold.

    Patches of one slide resemble their neighbours, and slides of one patient resemble each other. A model is therefore
    tested on patients it has never seen.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    by
        ``"patient"``: all slides of a patient share a fold. ``"slide"``: every slide for itself, for cohorts whose
        slides all come from different patients. ``"block"``: square blocks inside each slide, for a single slide.
    n_folds
        Number of folds; at most the number of patients (slides).
    block_um, buffer_um
        Edge of a block, and the distance that keeps two folds apart; both µm, ``by="block"`` only. ``buffer_um`` should
        be at least the edge of a patch.
    seed
        Decides between folds of equal size.
    table_key
        Table of the cells; may be absent on H&E-only slides.

    Returns
    -------
    Nothing; writes ``attrs["spatialsig"]["split"]`` of each slide, and ``tables[table_key].obs["fold"]`` (int; -1 in a
    buffer).

    Raises
    ------
    LeakageError
        If ``by="random"`` is asked for.
    InputError
        If there are fewer groups than folds.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.split(sdata, by="block", block_um=150, buffer_um=32, n_folds=2)
    >>> sorted(sdata["table"].obs["fold"].unique().tolist())
    [-1, 0, 1]
    """
    if by == "random":
        msg = "`by='random'` puts neighbours of test patches into training; split by 'patient', 'slide' or 'block'."
        raise LeakageError(msg)
    check_choice(by, ("patient", "slide", "block"), name="by")
    if n_folds < 2:
        msg = f"`n_folds` must be at least 2; got {n_folds}."
        raise InputError(msg)
    if by == "block":
        check_positive(block_um=block_um)
        params = {"by": by, "n_folds": n_folds, "block_um": block_um, "buffer_um": buffer_um, "seed": seed}
        specs: dict[str, dict[str, Any]] = {slide.name: params for slide in open_slides(data)}
    else:
        specs = _specs(_groups(data, by), by=by, n_folds=n_folds, seed=seed)
    for slide in open_slides(data):
        slide.attrs["split"] = dict(specs[slide.name])
        _write_folds(slide, table_key)
        slide.commit_attrs()


def _groups(data: Data, by: str) -> dict[str, str]:
    groups = {}
    without_patient = []
    for slide in open_slides(data):
        groups[slide.name] = slide.patient if by == "patient" else slide.name
        if not slide.attrs.get("patient"):
            without_patient.append(slide.name)
    if by == "patient" and without_patient:
        warnings.warn(
            f"no patient is known for {without_patient}; each counts as its own patient. Two sections of one patient "
            "in different folds leak: set sdata.attrs['spatialsig']['patient'].",
            SpatialsigWarning,
            stacklevel=3,
        )
    return groups


def _specs(groups: dict[str, str], *, by: str, n_folds: int, seed: int) -> dict[str, dict[str, Any]]:
    sizes = Counter(groups.values())
    if len(sizes) < n_folds:
        fix = "Use fewer folds" if len(sizes) > 1 else "Use by='block' for a single slide"
        msg = f"`n_folds={n_folds}` needs as many groups by {by!r}; there are {len(sizes)}: {sorted(sizes)}. {fix}."
        raise InputError(msg)
    folds = group_folds(sizes, n_folds=n_folds, seed=seed)
    return {name: {"by": by, "n_folds": n_folds, "seed": seed, "fold": folds[group]} for name, group in groups.items()}


def _write_folds(slide: Slide, table_key: str) -> None:
    if table_key not in slide.sdata.tables:
        return
    table = slide.sdata.tables[table_key]
    table.obs[_keys.FOLD] = folds_of(slide, table.obsm[_keys.SPATIAL])
    slide.commit_table(table_key, obs=[_keys.FOLD])
