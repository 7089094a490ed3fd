"""How many patients it takes: a learning curve over nested subsets, and what it says of cohorts that are larger.

Floor 7, above evaluation. Called as sp.tl.power; used by cli/judging_commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Natural, Seed, Share, checked
from spatialsig._checks import warn
from spatialsig._files import replaced
from spatialsig._hashing import array_hash
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.evaluation.findings_scores import MIN_PATIENTS
from spatialsig.evaluation.learning_curves import LearningCurves, summary_of
from spatialsig.evaluation.rows import Request, gather
from spatialsig.evaluation.subsets import Stores, judged, nested_orders, ridge_on, sizes_for, training_patients
from spatialsig.inference.inputs import ModelInputs
from spatialsig.inference.vit import VitOptions, train_signature_vit
from spatialsig.slide.ledger import Ledger, run_hash
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides
from spatialsig.slide.slides import Stores as StoresOnDisk
from spatialsig.store.lock import run_lock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows
    from spatialsig.evaluation.subsets import Learner

MANIFEST = "power.json"
VIT = "vit"
BLOCKS = {"hand_features": "hand", "embedding": "embedding"}
DECIDED = ("test_fold", "use_rep", "validation_fold", "inner_fold")  # what power decides by itself


@checked
@needs_cells
def power(
    data: Data,
    *,
    learner: Literal["hand_features", "embedding", "vit"] = "hand_features",
    embedding_key: Key | None = None,
    patients: Annotated[Sequence[Count], Field(min_length=1)] | None = None,
    repeats: Count = 10,
    target: Share = 0.8,
    level: Share = 0.95,
    test_fold: Natural = 0,
    run_dir: AnyPath | None = None,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
    **train_options: Any,
) -> LearningCurves:
    """Fit a learning curve over patients, and say how many a target takes.

    The training patients are put in random orders; the first 1, 2, 3, 4, 6, ... of each are learned from, and every model is
    judged on the same held-out patients. To the means an inverse power law ``a - b n^-c`` [1]_ is fitted; all curves that fit
    are kept by how well they do, so that the interval of whatever is read from them says how little a short curve knows.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with folds and labels, at least three training patients; not modified.
    learner
        ``"hand_features"``: ridge regression on 42 numbers of the H&E, minutes; ``"embedding"``: ridge on ``embedding_key``,
        such as the features of a pathology backbone; ``"vit"``: :func:`train_vit` for every subset, hours.
    embedding_key
        Table with one row per patch, or ``obsm`` of the labels.
    patients
        Sizes of the subsets; 1, 2, 3, 4, 6, 8, 12, ... and all when None.
    repeats
        Random orders.
    target
        Share of the noise ceiling that is wanted.
    level
        Coverage of the intervals.
    test_fold
        Fold judged.
    run_dir
        Directory where every subset that is done is kept: called again, only what is missing is trained.
    seed
        Of the orders, and of what is trained.
    patches_key, signatures_key, table_key
        Patches, labels, cells.
    **train_options
        Passed on to :func:`train_vit`; only with ``learner="vit"``.

    Returns
    -------
    The points, a table of what each signature takes, and sentences, see :class:`spatialsig.evaluation.learning_curves.LearningCurves`. In ``run_dir``: one
    table per subset and a manifest.

    Raises
    ------
    InputError
        With fewer than three training patients, sizes that there are not, or options of a network for another learner.

    Warns
    -----
    SpatialsigWarning
        If fewer than three patients are held out.

    References
    ----------
    .. [1] Figueroa RL, Zeng-Treitler Q, Kandula S, Ngo LH. Predicting sample size required for classification performance. BMC
       Medical Informatics and Decision Making 12, 8 (2012). https://doi.org/10.1186/1472-6947-12-8

    Examples
    --------
    >>> import tempfile
    >>> import warnings
    >>> import spatialsig as sp
    >>> place = tempfile.TemporaryDirectory()
    >>> stores = {}
    >>> for k in range(4):
    ...     stores[f"S{k}"] = f"{place.name}/S{k}.zarr"
    ...     sp.io.write(sp.datasets.toy(seed=k, size_um=250, sample=f"S{k}", patient=f"P{k}"), stores[f"S{k}"])
    >>> cohort = sp.Cohort(stores)
    >>> sp.pp.split(cohort, n_folds=4)
    >>> sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    >>> sp.pp.assign_cells(cohort)
    >>> _ = sp.tl.score_cells(cohort, "seed")
    >>> sp.tl.aggregate_patches(cohort, min_cells=5)
    >>> with warnings.catch_warnings(action="ignore"):  # one patient is held out, which says little of others
    ...     found = sp.tl.power(cohort, repeats=2)
    >>> found.points["n_patients"].unique().tolist()
    [1, 2, 3]
    >>> place.cleanup()
    """
    if train_options and learner != VIT:
        msg = f"{sorted(train_options)} are options of `train_vit`, and `learner={learner!r}` trains none; pass `learner='vit'`."
        raise InputError(msg)
    if wrong := sorted(set(DECIDED) & set(train_options)):
        msg = f"{wrong} cannot be given: `power` trains on subsets of the patients outside of fold {test_fold}, on the H&E alone."
        raise InputError(msg)
    if (learner == "embedding") != (embedding_key is not None):
        msg = f"`learner='embedding'` and `embedding_key=` belong together; got learner={learner!r}, embedding_key={embedding_key!r}."
        raise InputError(msg)
    VitOptions.of(**train_options)  # checks them
    place = None if run_dir is None else Path(run_dir)
    pixels = None if place is None else place / "pixels"
    request = Request(
        None, test_fold, None, embedding_key, patches_key, signatures_key, table_key, seed, run_dir=pixels
    )
    slides = gather(data, request)
    pool = training_patients(slides)
    _warn_of_few(slides, test_fold)
    sizes = sizes_for(patients, len(pool))
    learn = _learner(learner, data, slides, request, train_options)
    runs = [
        (n, repeat, order[:n]) for repeat, order in enumerate(nested_orders(list(pool), repeats, seed)) for n in sizes
    ]
    runs = [run for run in runs if run[0] < len(pool) or run[1] == 0]  # the whole pool is one subset
    digest = run_hash(
        [learner, train_options, seed, [array_hash(rows.targets, rows.index, rows.train) for rows in slides]]
    )
    if place is None:
        points = [_point(learn, slides, pool, run) for run in track(runs, "learning curve", unit="subset")]
    else:
        with run_lock(place, "power"):
            points = [
                _kept(place, digest, learn, slides, pool, run) for run in track(runs, "learning curve", unit="subset")
            ]
    return summary_of(pd.concat(points, ignore_index=True), n_pool=len(pool), target=target, level=level, seed=seed)


def _warn_of_few(slides: list[Rows], test_fold: int) -> None:
    """Say that so few held-out patients say little of others."""
    held_out = sorted({rows.patient for rows in slides if rows.test.any()})
    if len(held_out) < MIN_PATIENTS:
        of = f"{len(held_out)} held-out patient{'' if len(held_out) == 1 else 's'} ({', '.join(held_out)})"
        warn(
            f"the learning curves are judged on {of} of fold {test_fold}, whose intervals do not show how much others differ: hold out {MIN_PATIENTS} "
            "or more with `sp.pp.split(n_folds=...)`."
        )


def _learner(name: str, data: Data, slides: list[Rows], request: Request, train_options: dict[str, Any]) -> Learner:
    if name != VIT:
        return ridge_on(BLOCKS[name], slides)
    if not isinstance(data, StoresOnDisk):
        msg = "`learner='vit'` learns from some slides of a cohort and needs their stores; give a `sp.Cohort`."
        raise InputError(msg)
    stores, keys = data.stores, {"patches_key": request.patches_key, "signatures_key": request.signatures_key}

    def learn(samples: Sequence[str]) -> dict[str, NDArray[np.floating]]:
        options = VitOptions.of(**{"seed": request.seed} | train_options | keys | {"test_fold": None, "use_rep": None})
        model = train_signature_vit(Stores({sample: stores[sample] for sample in samples}), options)
        found = {}
        for rows in (rows for rows in slides if rows.test.any()):
            (slide,) = open_slides(stores[rows.sample])
            scores = ModelInputs(slide.patches(request.patches_key), model, None).predict(rows.index[rows.test])
            found[rows.sample] = (
                pd.DataFrame(scores, columns=list(model.signatures)).reindex(columns=rows.signatures).to_numpy()
            )
        return found

    return learn


def _point(
    learn: Learner, slides: list[Rows], pool: dict[str, list[str]], run: tuple[int, int, list[str]]
) -> pd.DataFrame:
    n, repeat, chosen = run
    found = judged(learn([sample for patient in chosen for sample in pool[patient]]), slides)
    found.insert(0, "n_patients", n)
    found.insert(1, "repeat", repeat)
    return found


def _kept(
    place: Path,
    digest: str,
    learn: Learner,
    slides: list[Rows],
    pool: dict[str, list[str]],
    run: tuple[int, int, list[str]],
) -> pd.DataFrame:
    """Point of a subset, which may have been done before."""
    ledger, part = Ledger(place / MANIFEST), f"{run[0]}-patients-{run[1]}"
    file, own = place / f"{part}.parquet", run_hash([digest, run[2]])
    if ledger.holds(part, own) and file.is_file():
        return pd.read_parquet(file)
    found = _point(learn, slides, pool, run)
    with replaced(file) as draft:
        found.to_parquet(draft, index=False)
    ledger.note(part, own)
    return found
