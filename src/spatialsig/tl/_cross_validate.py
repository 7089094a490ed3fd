"""Every fold in turn held out, so that every patch is predicted by a model that has not seen it.

Floor 7, above evaluation. Called as sp.tl.cross_validate; used by pipeline/run_options, pipeline/run_steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, NewKey, Seed, checked
from spatialsig._checks import warn
from spatialsig._files import replaced, write_csv
from spatialsig._hashing import json_hash
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.evaluation.evaluate import evaluate_model
from spatialsig.evaluation.fold_plan import MANIFEST, TRAINING, FoldPlan
from spatialsig.evaluation.schema import ERROR
from spatialsig.expression import AutoencoderOptions, embed_slide, train_expression_autoencoder
from spatialsig.inference.inputs import ModelInputs, check_patches, inputs_name
from spatialsig.inference.provenance import genes_scored, refuse_own_embedding
from spatialsig.inference.vit import VitOptions, train_signature_vit, training_rep
from spatialsig.models.ensemble import weights_hash
from spatialsig.models.vit import SignatureViT
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.embeddings import AUTO
from spatialsig.slide.folds import BUFFER, shared_folds
from spatialsig.slide.ledger import Ledger, data_hash, run_hash
from spatialsig.slide.parts import counts_of_table, members_of
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.seen import noted
from spatialsig.slide.slides import Data, open_slides, recorded_slides
from spatialsig.stats.grouped import grouped_mean
from spatialsig.store.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.models import Autoencoder
    from spatialsig.slide.slides import Slide

# findings on labels and gene lists that are the same for all folds: see the docstring below
_SAME_FOR_ALL = ("scores_from_test", "genes_from_test")
PLANNED = ("test_fold", "validation_fold")  # what cross_validate decides by itself


@checked
@needs_cells
def cross_validate(
    data: Data,
    *,
    run_dir: AnyPath,
    use_rep: Key | None = AUTO,
    refit_autoencoder: bool = True,
    autoencoder: Mapping[str, Any] | None = None,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
    key_added: NewKey = _keys.SIGNATURES_PRED,
    **train_options: Any,
) -> pd.DataFrame:
    """Evaluate and predict every fold of the split by a model that was trained on the others.

    Folds are patients, slides or blocks [1]_. For every fold an autoencoder of its own is trained on the other folds,
    and its embedding is averaged over the patches; an autoencoder that has seen the test fold would have arranged its
    embedding around it. The labels are those of the table: their scale (one mean and deviation per gene) is the same
    for all folds, as are the genes marked highly variable; neither knows how image and label go together.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with labels and a split (:func:`spatialsig.pp.split`); modified in
        place.
    run_dir
        Directory for models and results, one per fold. Called again with the same data and options, finished folds are
        read from there, and one that was interrupted resumes; whatever changes the result trains them again.
    use_rep
        Embedding of the cells to refit, or of the patches to use as it is; ``None`` predicts from the H&E alone, without an
        autoencoder. ``"auto"`` takes ``X_ae``; with ``fusion="none"`` or features of a table only where it is.
    refit_autoencoder
        ``False`` takes ``tables[signatures_key].obsm[use_rep]`` for every fold. Only for embeddings that were made
        without any slide of ``data``: one that :func:`embed_cells` made of them is refused.
    autoencoder
        Options of :func:`train_autoencoder`. ``signatures`` (whose genes it must not see) is what was scored, if not
        given.
    seed
        Of autoencoder, image model and evaluation.
    patches_key, signatures_key, table_key
        Patches, labels, cells.
    key_added
        Name of the table of predictions; one of that name is replaced.
    **train_options
        Passed on to :func:`train_vit`. ``inner_fold`` chooses the best epoch on part of the training slides.

    Returns
    -------
    Rows of :func:`evaluate` of all folds, with ``fold``.

    Writes ``tables[key_added]``: ``X`` the scores of every patch from the H&E alone by the model that has not seen it
    (patches in a buffer between folds, which train no model: the mean of all models),
    ``uns["spatialsig"]["cross_validate"]`` the hashes of run and weights; with refitting,
    ``tables[signatures_key].obsm["<use_rep>_fold<k>"]``. In ``run_dir``: ``fold-<k>/vit``, ``fold-<k>/autoencoder``,
    ``fold-<k>/evaluation.parquet``, ``evaluation.csv`` and a manifest.

    Raises
    ------
    KeyMissingError
        If a slide has no split.
    InputError
        If slides are split differently, or an option that cross-validation decides itself is given.
    LeakageError
        If ``refit_autoencoder=False`` and the embedding was made from these slides, or a patient lies in several folds.

    References
    ----------
    .. [1] Roberts DR, Bahn V, Ciuti S, et al. Cross-validation strategies for data with temporal, spatial,
       hierarchical, or phylogenetic structure. Ecography 40, 913-929 (2017). https://doi.org/10.1111/ecog.02881

    Examples
    --------
    >>> import tempfile
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    >>> with tempfile.TemporaryDirectory() as run_dir:
    ...     table = sp.tl.cross_validate(sdata, run_dir=run_dir, use_rep=None, size=size, max_epochs=1)
    >>> table["fold"].unique().tolist()
    [0, 1]
    >>> len(sdata["signatures_pred"]) == len(sdata["patches"])
    True
    """
    if wrong := sorted(set(PLANNED) & {*train_options, *(autoencoder or {})}):
        msg = f"{wrong} cannot be given: every fold is the test fold once. Use `inner_fold=` to choose the best epoch."
        raise InputError(msg)
    VitOptions.of(**train_options), AutoencoderOptions.of(**(autoencoder or {}))  # checks them
    folds, keys = shared_folds(_splits(data)), {"patches_key": patches_key, "signatures_key": signatures_key}
    refuse_leaks(data)
    use_rep = training_rep(data, use_rep, signatures_key=signatures_key, **train_options)
    refit = refit_autoencoder and use_rep is not None
    if use_rep is not None and not refit:
        refuse_own_embedding(data, use_rep, signatures_key)
    ae_options = {"signatures": genes_scored(data, signatures_key), **(autoencoder or {})} if refit else {}
    seen = data_hash(data, **keys, use_rep=None if refit else use_rep, table_key=table_key if refit else None)
    decides = run_hash([seen, use_rep, refit, ae_options, train_options, seed])
    plan = FoldPlan(
        data, Path(run_dir), use_rep, refit, ae_options, train_options, seed, **keys, table_key=table_key, hash=decides
    )
    with run_lock(plan.place, "cross-validation"):
        return _run_folds(plan, folds, key_added)


def _run_folds(plan: FoldPlan, folds: list[int], key_added: str) -> pd.DataFrame:
    """Table of all folds, those that were done before among them."""
    finished, decides = Ledger(plan.place / MANIFEST), plan.hash
    with _records_kept(plan):
        for fold in track(folds, "cross-validation", unit="fold"):
            if not finished.holds(f"fold-{fold}", decides):
                _run_fold(plan, fold)
                finished.note(f"fold-{fold}", decides)
                shutil.rmtree(plan.directory(fold) / TRAINING, ignore_errors=True)
    _write_predictions(plan, folds, key_added)
    result = pd.concat([plan.results(fold) for fold in folds], ignore_index=True)
    write_csv(plan.place / "evaluation.csv", result)
    return result


def _run_fold(plan: FoldPlan, fold: int) -> None:
    """Train autoencoder and image model with one fold held out, and evaluate on it."""
    keys: dict[str, Any] = {"patches_key": plan.patches_key, "signatures_key": plan.signatures_key}
    if plan.refit:
        model = train_expression_autoencoder(plan.data, plan.autoencoder_options(fold))
        model.save(plan.directory(fold) / "autoencoder", overwrite=True)  # of a fold that was not finished
        _embed(plan, model, fold)
    vit = train_signature_vit(plan.data, plan.vit_options(fold))
    vit.save(plan.directory(fold) / "vit", overwrite=True)
    frame, findings = evaluate_model(plan.data, vit, seed=plan.seed, table_key=plan.table_key, **keys)
    for finding in findings:
        if finding.severity == ERROR and finding.name not in _SAME_FOR_ALL:
            warn(finding.text)
    frame.insert(0, _keys.FOLD, fold)
    with replaced(plan.frame(fold)) as partial:
        frame.to_parquet(partial, index=False)


@contextmanager
def _records_kept(plan: FoldPlan) -> Iterator[None]:
    """Give the labels their note on the embedding back, which every fold replaces by its own."""
    kept = {slide.name: slide.params(plan.signatures_key).get("embed_cells") for slide in open_slides(plan.data)}
    try:
        yield
    finally:
        for slide in open_slides(plan.data):
            params = slide.params(plan.signatures_key)
            if plan.refit and params.get("embed_cells", {}).get("key") != (kept[slide.name] or {}).get("key"):
                params["embed_cells"] = kept[slide.name] or {}
                slide.commit_table(plan.signatures_key, uns=[_keys.NAMESPACE])


def _embed(plan: FoldPlan, model: Autoencoder, fold: int) -> None:
    """Mean embedding of the cells of every patch; that of single cells is not kept, it would fill the store."""
    key = plan.rep(fold)
    for slide in open_slides(plan.data):
        patches, labels = slide.patches(plan.patches_key), slide.table(plan.signatures_key)
        code = embed_slide(slide, model, table_key=plan.table_key)
        of_patches = grouped_mean(code, patches.membership(plan.table_key)).astype(np.float32)
        rows = patches.rows_in(plan.signatures_key)
        labels.obsm[key] = np.full((labels.n_obs, of_patches.shape[1]), np.nan, np.float32)
        labels.obsm[key][rows[rows >= 0]] = of_patches[rows >= 0]
        slide.params(plan.signatures_key)["embed_cells"] = {
            "key": key, "test_fold": fold, **noted(model.run), **model.record()
        }  # fmt: skip
        slide.commit_table(
            plan.signatures_key,
            obsm=[str(key)],
            steps=["embed_cells"],
            made_by="tl.cross_validate",
            sources=[*counts_of_table(plan.table_key, fold), members_of(plan.table_key, plan.patches_key)],
        )


def _write_predictions(plan: FoldPlan, folds: list[int], key_added: str) -> None:
    """Scores of every patch by the models that have not seen it."""
    models = {fold: SignatureViT.load(plan.directory(fold) / "vit") for fold in folds}
    hashes = {str(fold): weights_hash(model) for fold, model in models.items()}
    digest = json_hash([plan.hash, hashes])
    names = list(dict.fromkeys(name for model in models.values() for name in model.signatures))  # one may lack some
    for slide in open_slides(plan.data):
        is_done = key_added in slide.sdata.tables and _digest_of(slide, key_added) == digest
        if is_done and not slide.lineage.is_edited(key_added):
            continue
        patches, used = slide.patches(plan.patches_key), []
        total, count = np.zeros((2, len(patches), len(names)))
        for fold, model in models.items():
            rows = np.flatnonzero((patches.folds == fold) | (patches.folds == BUFFER))
            if len(rows):
                check_patches(patches, model)
                known = np.ix_(rows, np.array([names.index(name) for name in model.signatures]))
                total[known] += ModelInputs(patches, model, None).predict(rows)
                count[known] += 1
                used += model.run["training_samples"]
        scores = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(np.float32)
        table = patches.table(scores, names, n_cells=patches.n_cells(plan.signatures_key))
        table.uns[_keys.NAMESPACE] = {
            "predict": {
                "inputs": inputs_name(None),
                "training_samples": list(dict.fromkeys(used)),
                "weights_sha256": json_hash(hashes),
            },
            "cross_validate": {"digest": digest, "weights_sha256": hashes},
        }
        slide.put(key_added, table, made_by="tl.cross_validate", sources=patches.pixel_parts)


def _digest_of(slide: Slide, key: str) -> str:
    return str(slide.params(key).get("cross_validate", {}).get("digest", ""))


def _splits(data: Data) -> dict[str, dict[str, Any] | None]:
    """How each slide was split."""
    return {slide.name: slide.attrs.get("split") for slide in recorded_slides(data)}
