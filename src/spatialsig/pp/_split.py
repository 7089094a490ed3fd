"""Folds by patient, by slide, or by blocks inside one slide: never by random patches.

Floor 7, above evaluation. Called as sp.pp.split; used by cli/slide_commands, datasets/_toy, pipeline/run_steps.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Key, Micrometres, NotNegative, Seed, Several, checked
from spatialsig._checks import did_you_mean, first_few, warn
from spatialsig._text import as_name, check_alike, composed
from spatialsig.errors import InputError, LeakageError, SpatialsigWarning
from spatialsig.slide.coordinates import positions
from spatialsig.slide.copies import check_copies
from spatialsig.slide.folds import INSIDE, folds_of, group_folds, inner_group_folds
from spatialsig.slide.parts import FOLDS
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.slide.slides import Slide

WHOLE = ("patient", "slide")


@checked
@needs_cells
def split(
    data: Data,
    *,
    by: Key = "patient",
    n_folds: Several | Literal["all"] = 4,
    block_um: Micrometres = 1000.0,
    buffer_um: NotNegative = 256.0,
    n_inner_folds: Several = 3,
    stratify: str | None = None,
    allow_leakage: bool = False,
    seed: Seed = 0,
    table_key: Key = _keys.TABLE,
) -> None:
    """Assign a fold to every slide, or to every block of a slide.

    Patches of one slide resemble their neighbours, and slides of one patient resemble each other. A model is therefore
    tested on patients it has never seen [1]_.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    by
        ``"patient"``: all slides of a patient share a fold. ``"slide"``: every slide for itself, for cohorts whose
        slides all come from different patients. ``"block"``: square blocks inside each slide, for a single slide.
        ``"random"``: patches drawn one by one, which leaks; only with ``allow_leakage``. Any other name is an attribute of the slides,
        such as ``"site"``, ``"scanner"`` or ``"platform"``, found as that of ``stratify``: all slides with one value share a fold, so
        that every value is held out from the others; no patient may have slides of two.
    n_folds
        Number of folds; at most the number of patients (slides, values). ``"all"`` holds out each of them in turn.
    block_um, buffer_um
        Edge of a block, and the distance that keeps two folds apart; both µm, ``by="block"`` only. Patches that reach
        into two blocks are in the buffer even where ``buffer_um`` is smaller than a patch.
    n_inner_folds
        Folds inside the training part of every fold, by the same groups: to choose a model without looking at the test
        fold (``sp.tl.train_vit(..., inner_fold=0)``).
    stratify
        Attribute of the slides whose values every fold should share: a key of ``attrs["spatialsig"]`` or a column of
        the cells that is the same on the whole slide. ``by="patient"`` and ``"slide"`` only.
    allow_leakage
        Allow ``by="random"``; it is warned about, recorded, and found by :func:`spatialsig.tl.findings`.
    seed
        Decides between folds of equal size.
    table_key
        Table of the cells; may be absent on H&E-only slides.

    Returns
    -------
    Nothing; writes ``attrs["spatialsig"]["split"]`` of each slide (what was asked for; ``fold`` and ``inner``, the
    slide's inner fold while fold 0, 1, ... is tested), and ``obs["fold"]`` (int; -1 in a buffer) of
    ``tables[table_key]`` and of the tables of patches that have the column already.

    Raises
    ------
    LeakageError
        If ``by="random"`` is asked for without ``allow_leakage``, slides of two patients hold the same counts, or the same
        part of one H&E, or a patient has slides of two values of ``by``.
    InputError
        If there are fewer groups than folds, or a slide does not have the attribute ``by`` or ``stratify``; nothing is written.

    Warns
    -----
    SpatialsigWarning
        If a slide has no patient or its cells name another one, or the split leaks as asked for.

    References
    ----------
    .. [1] Roberts DR, Bahn V, Ciuti S, et al. Cross-validation strategies for data with temporal, spatial,
       hierarchical, or phylogenetic structure. Ecography 40, 913-929 (2017). https://doi.org/10.1111/ecog.02881

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.split(sdata, by="block", block_um=150, buffer_um=32, n_folds=2)
    >>> sorted(sdata["table"].obs["fold"].unique().tolist())
    [-1, 0, 1]
    """
    if by == "random" and not allow_leakage:
        msg = (
            "`by='random'` puts neighbours of test patches into training; split by 'patient', 'slide' or 'block', or "
            "pass `allow_leakage=True` to show what a leak looks like."
        )
        raise LeakageError(msg)
    if by in INSIDE and n_folds == "all":
        msg = f"`n_folds='all'` holds out one patient, slide or value after another; `by={by!r}` takes a number."
        raise InputError(msg)
    check_copies(data)
    params: dict[str, Any] = {"by": by, "n_folds": n_folds, "n_inner_folds": n_inner_folds, "seed": seed}
    if by in INSIDE:
        specs = _inside_slides(data, params, block_um, buffer_um, stratify)
        _check_places(data, table_key)
    else:
        specs = _between_slides(_groups(data, by, table_key), _strata(data, stratify, table_key), params)
    for slide in open_slides(data):
        slide.attrs["split"] = dict(specs[slide.name])
        _write_folds(slide, table_key)
        slide.commit_attrs()


def _inside_slides(
    data: Data, params: dict[str, Any], block_um: float, buffer_um: float, stratify: str | None
) -> dict[str, dict[str, Any]]:
    if stratify is not None:
        msg = f"`stratify={stratify!r}` spreads whole slides over folds; it needs by='patient' or by='slide'."
        raise InputError(msg)
    if params["by"] == "block":
        params = params | {"block_um": block_um, "buffer_um": buffer_um}
    else:
        params = params | {"allow_leakage": True}
        warn(
            "`by='random'`: neighbours of test patches are in training, so every score will be too high. Never report it."
        )
    return {slide.name: params for slide in open_slides(data)}


def _check_places(data: Data, table_key: str) -> None:
    """Nothing is written where the cells of one slide have no places."""
    for slide in open_slides(data):
        if table_key in slide.sdata.tables:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SpatialsigWarning)  # said when folds are written
                positions(slide, table_key)


def _groups(data: Data, by: str, table_key: str) -> dict[str, str]:
    groups = {}
    without_patient, other = [], []
    patients: dict[str, dict[str, str]] = {}  # patient -> group -> one of its slides
    for slide in open_slides(data):
        groups[slide.name] = _group(slide, by, table_key)
        patients.setdefault(slide.patient, {})[groups[slide.name]] = slide.name
        if not _patient_was_named(slide):
            without_patient.append(slide.name)
        elif named := _other_patients(slide, table_key):
            other.append(f"{slide.name} is of {slide.patient!r}, its cells of {first_few(named)}")
    held = [f"of slide {name!r}" for name in groups]
    check_alike(groups.values(), what=f"names of the groups by {by!r}:", holders=held)
    _refuse_torn(patients, by)
    if by == "patient" and other:
        warn(
            f"folds follow sdata.attrs['spatialsig']['patient'], and `obs['patient']` of {table_key!r} says something else: "
            f"{first_few(other)}. Let the two agree."
        )
    if by == "patient" and without_patient:
        warn(
            f"no patient is known for {without_patient}; each counts as its own patient. Two sections of one patient "
            "in different folds leak: set sdata.attrs['spatialsig']['patient']."
        )
    return groups


def _group(slide: Slide, by: str, table_key: str) -> str:
    """What slides share that are held out together."""
    if by in WHOLE:
        return slide.patient if by == "patient" else slide.name
    return _attribute(slide, by, table_key, argument="by")


def _refuse_torn(patients: Mapping[str, Mapping[str, str]], by: str) -> None:
    """Refuse an attribute by which one patient would be held out and learned from."""
    if by in WHOLE:  # slides of one patient are told by a warning of their own
        return
    for patient, values in patients.items():
        if len(values) > 1:
            listed = first_few([f"{name} ({value})" for value, name in values.items()])
            msg = (
                f"`by={by!r}`: patient {patient!r} has slides of {len(values)} values, {listed}, and would be held out and learned from. "
                "Leave some out, or split by 'patient' with `stratify=`."
            )
            raise LeakageError(msg)


def _patient_was_named(slide: Slide) -> bool:
    """Whether somebody named the patient of a slide; readers name one after the slide where nobody does."""
    source = slide.attrs.get("source")
    by_reader = isinstance(source, dict) and "reader" in source and _keys.PATIENT not in source
    return bool(slide.attrs.get(_keys.PATIENT)) and not (by_reader and slide.patient == slide.name)


def _other_patients(slide: Slide, table_key: str) -> list[str]:
    """Patients that were written into the cells of a slide since it was read, where these are not its own."""
    source = slide.attrs.get("source")
    if not isinstance(source, dict) or _keys.PATIENT not in source:
        return []
    column = slide.sdata.tables[table_key].obs.get(_keys.PATIENT) if table_key in slide.sdata.tables else None
    named = [] if column is None else column.dropna().unique()
    return sorted(repr(name) for name in {as_name(value) for value in named} - {slide.patient, source[_keys.PATIENT]})


def _strata(data: Data, stratify: str | None, table_key: str) -> dict[str, str] | None:
    """Value of the attribute on each slide."""
    if stratify is None:
        return None
    return {slide.name: _attribute(slide, stratify, table_key) for slide in open_slides(data)}


def _attribute(slide: Slide, name: str, table_key: str, *, argument: str = "stratify") -> str:
    if name in slide.attrs:
        column = pd.Series([slide.attrs[name]])
    else:
        obs = slide.sdata.tables[table_key].obs if table_key in slide.sdata.tables else pd.DataFrame()
        column = obs[name] if name in obs else pd.Series(dtype=object)
    values = sorted(set(map(composed, map(str, column.dropna().unique()))))
    if len(values) != 1:
        holds = f"has {len(values)} values of it in its cells" if values else "does not have it"
        msg = (
            f"`{argument}={name!r}`: slide {slide.name!r} {holds}; wanted one. "
            f"Set sdata.attrs['spatialsig'][{name!r}] on every slide.{_or_not(name) if argument == 'by' else ''}"
        )
        raise InputError(msg)
    return values[0]


def _or_not(by: str) -> str:
    """What else slides are split by, with a blank before it."""
    ours = [*WHOLE, *INSIDE]
    return f" What needs no attribute: {', '.join(map(repr, ours))}.{did_you_mean(by, ours)}"


def _between_slides(
    groups: dict[str, str], strata: dict[str, str] | None, params: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    sizes = Counter(groups.values())
    n_folds = len(sizes) if params["n_folds"] == "all" else params["n_folds"]
    params = params | {"n_folds": n_folds}
    by, seed = params["by"], params["seed"]
    if len(sizes) < max(n_folds, 2):
        fix = "Use fewer folds" if len(sizes) > 1 else "Use by='block' for a single slide"
        msg = f"`n_folds={n_folds}` needs as many groups by {by!r}; there are {len(sizes)}: {sorted(sizes)}. {fix}."
        raise InputError(msg)
    of_group = None
    if strata is not None:
        of_group = {g: "+".join(sorted({strata[s] for s, other in groups.items() if other == g})) for g in sizes}
    folds = group_folds(sizes, n_folds=n_folds, seed=seed, strata=of_group)
    inner = inner_group_folds(folds, sizes, n_folds=n_folds, n_inner=params["n_inner_folds"], seed=seed)
    return {name: {**params, "fold": folds[group], "inner": inner[group]} for name, group in groups.items()}


def _write_folds(slide: Slide, table_key: str) -> None:
    for key, table in slide.sdata.tables.items():
        if key != table_key and not {_keys.PATCH_ID, _keys.FOLD} <= set(table.obs):
            continue
        if key != table_key:
            extent_um = slide.patches(str(table.obs[_keys.REGION_KEY].iloc[0])).extent_um
            table.obs[_keys.FOLD] = folds_of(slide, table.obsm[_keys.SPATIAL], extent_um=extent_um)
        else:
            inside = slide.attrs["split"]["by"] in INSIDE
            table.obs[_keys.FOLD] = folds_of(slide, positions(slide, key) if inside else np.zeros((table.n_obs, 2)))
        slide.commit_table(key, obs=[_keys.FOLD], made_by="pp.split", sources=[FOLDS])
