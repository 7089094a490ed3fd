"""Labels predicted from the expression embedding alone, before an image model is trained with it.

Floor 7, above evaluation. Called as sp.tl.embedding_leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, Seed, checked
from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.evaluation.ceiling import N_REPEATS, slide_ceiling
from spatialsig.signatures import scored_genes, shared_genes
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides
from spatialsig.stats.agreement import pearson
from spatialsig.stats.baselines import ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide


@checked
@needs_cells
def embedding_leak(
    data: Data,
    *,
    test_fold: Natural = 0,
    use_rep: Key = _keys.X_AE,
    n_repeats: Count = N_REPEATS,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
) -> pd.DataFrame:
    """Predict the labels from the expression embedding alone, and say which genes both were made of.

    Ridge regression [1]_ from the embedding of the patches to their labels, fitted on the training folds. An embedding
    that reaches the noise ceiling holds the answer, and a model that is given it need not look at the image. No pixel
    is read.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with folds, labels and the embedding of the patches; not modified.
    test_fold
        Fold judged; the others are learned from.
    use_rep
        Embedding in ``tables[signatures_key].obsm``.
    n_repeats, seed
        Of :func:`noise_ceiling`.
    patches_key, signatures_key, table_key
        Shapes element of the patches, tables of the labels and of the cells.

    Returns
    -------
    One row per signature: ``signature``; ``n_genes`` it is scored by and ``n_shared`` of them that the embedding was made
    from (-1 where not recorded), ``shared`` their names; ``pearson`` of the embedding alone, ``ceiling``, and
    ``share_of_ceiling``, means over the ``n_slides`` slides judged.

    Raises
    ------
    KeyMissingError
        If there are no folds or labels, or no such embedding.
    InputError
        If the test fold, or the others, hold no labelled patch.

    Warns
    -----
    SpatialsigWarning
        If the embedding was made from genes of the signatures, with what it reaches alone.

    References
    ----------
    .. [1] Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67
       (1970). https://doi.org/10.1080/00401706.1970.10488634

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.tl.train_autoencoder(sdata, signatures="seed", n_latent=4, hidden=(16,), max_epochs=1)
    >>> sp.tl.embed_cells(sdata, model)
    >>> sp.tl.aggregate_patches(sdata, min_cells=5)
    >>> leak = sp.tl.embedding_leak(sdata, n_repeats=1)
    >>> leak["n_shared"].sum().item()  # the autoencoder did not see the genes of the signatures
    0
    """
    keys = {"use_rep": use_rep, "patches_key": patches_key, "signatures_key": signatures_key, "table_key": table_key}
    refuse_leaks(data, [test_fold])
    slides = [_rows_of(slide, test_fold, n_repeats, seed, **keys) for slide in open_slides(data)]
    if not any(rows.train.any() for rows in slides) or not any(rows.test.any() for rows in slides):
        msg = f"fold {test_fold}, or what is outside of it, holds no labelled patch; choose another `test_fold`."
        raise InputError(msg)
    x = np.concatenate([rows.embedding[rows.train] for rows in slides])
    y = np.concatenate([rows.targets[rows.train] for rows in slides])
    judged = pd.concat([_judged(rows, x, y) for rows in slides if rows.test.any()])
    judged["share_of_ceiling"] = judged["pearson"] / judged["ceiling"].where(judged["ceiling"] > 0)
    by_signature = judged.groupby("signature", sort=False)
    frame = by_signature.mean().assign(n_slides=by_signature["pearson"].count()).reset_index()
    for place, (name, values) in enumerate(slides[0].genes.items(), start=1):
        frame.insert(place, name, values)
    _warn(frame, use_rep)
    return frame


@dataclass(frozen=True)
class _Rows:
    """Patches of one slide, their ceiling where they are judged, and the genes behind labels and embedding."""

    names: list[str]
    genes: dict[str, list[Any]]
    embedding: NDArray[np.float32]
    targets: NDArray[np.float32]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    ceiling: NDArray[np.float64] | None


def _judged(rows: _Rows, x: NDArray[np.float32], y: NDArray[np.float32]) -> pd.DataFrame:
    """Correlation and ceiling of every signature on the test patches of one slide."""
    r = pearson(rows.targets[rows.test], ridge(x, y, rows.embedding[rows.test]))
    return pd.DataFrame({"signature": rows.names, "pearson": r, "ceiling": rows.ceiling})


def _rows_of(
    slide: Slide, test_fold: int, n_repeats: int, seed: int, *, use_rep: str, patches_key: str, signatures_key: str,
    table_key: str,
) -> _Rows:  # fmt: skip
    patches = slide.patches(patches_key)
    labels = patches.labels(signatures_key)
    fix = "Call `sp.tl.embed_cells` and `sp.tl.aggregate_patches` first."
    slide.obsm(signatures_key, use_rep, name="use_rep", fix=fix)
    embedding = patches.matrix(_keys.entry(signatures_key, use_rep), name="use_rep")
    usable = labels.measured & embedding.complete
    test = (patches.folds == test_fold) & usable
    ceiling = None
    if test.any():
        keys = {"table_key": table_key, "signatures_key": signatures_key}
        ceilings = slide_ceiling(slide, n_repeats=n_repeats, seed=seed, **keys)
        ceiling = ceilings.set_index("signature")["ceiling"].reindex(labels.names).to_numpy()
    genes = _genes(slide, labels.names, use_rep, signatures_key)
    train = patches.training(test_fold) & usable
    return _Rows(labels.names, genes, embedding.values, labels.values, train, test, ceiling)


def _genes(slide: Slide, names: list[str], use_rep: str, signatures_key: str) -> dict[str, list[Any]]:
    params = slide.params(signatures_key)
    scored, embedded = params.get("score_cells") or {}, params.get("embed_cells") or {}
    if "weights" not in scored or embedded.get("key") != use_rep:
        return {"n_genes": [-1] * len(names), "n_shared": [-1] * len(names), "shared": [""] * len(names)}
    genes, shared = scored_genes(scored).values(), shared_genes(scored, embedded).values()
    return {
        "n_genes": list(map(len, genes)),
        "n_shared": list(map(len, shared)),
        "shared": list(map(", ".join, shared)),
    }


def _warn(frame: pd.DataFrame, use_rep: str) -> None:
    leaking = frame[frame["n_shared"] > 0]
    if leaking.empty:
        return
    worst = leaking.sort_values("share_of_ceiling", na_position="first").iloc[-1]
    warn(
        f"the embedding {use_rep!r} was made from genes of {len(leaking)} of {len(frame)} signatures "
        f"({leaking['n_shared'].sum()} of {leaking['n_genes'].sum()} of their genes). Alone, without any image, it reaches "
        f"r = {leaking['pearson'].mean():.2f} on them, {leaking['share_of_ceiling'].mean():.0%} of the noise ceiling "
        f"({worst['signature']}: {worst['share_of_ceiling']:.0%}). Train the autoencoder with `signatures=` set to the "
        "same signatures and `exclude_signature_genes=True`."
    )
