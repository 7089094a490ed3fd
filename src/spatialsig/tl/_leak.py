"""How much of the answer the expression embedding holds: measured, before an image model is trained with it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._errors import InputError, SpatialsigWarning
from spatialsig.data.patch_table import patch_extent_um
from spatialsig.data.slides import open_slides, require_obsm
from spatialsig.data.splits import folds_of, training_rows
from spatialsig.stats.agreement import pearson
from spatialsig.stats.baselines import ridge
from spatialsig.tl._ceiling import noise_ceiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide


def embedding_leak(
    data: Data,
    *,
    test_fold: int = 0,
    use_rep: str = _keys.X_AE,
    n_repeats: int = 3,
    seed: int = 0,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Predict the labels from the expression embedding alone, and say which genes both were made of.

    Ridge regression from the embedding of the patches to their labels, fitted on the training folds. An embedding that
    reaches the noise ceiling holds the answer, and a model that is given it need not look at the image. No pixel is read.

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
    """
    slides = [_rows_of(slide, test_fold, use_rep, patches_key, signatures_key) for slide in open_slides(data)]
    train = [rows.train for rows in slides]
    test = [rows.test for rows in slides]
    if not any(rows.any() for rows in train) or not any(rows.any() for rows in test):
        msg = f"fold {test_fold}, or what is outside of it, holds no labelled patch; choose another `test_fold`."
        raise InputError(msg)
    x = np.concatenate([rows.embedding[rows.train] for rows in slides])
    y = np.concatenate([rows.targets[rows.train] for rows in slides])
    tested = [rows.name for rows in slides if rows.test.any()]
    ceilings = noise_ceiling(
        data, n_repeats=n_repeats, seed=seed, samples=tested, table_key=table_key, signatures_key=signatures_key
    ).set_index(["sample", "signature"])["ceiling"]
    parts = []
    for rows in slides:
        if rows.test.any():
            r = pearson(rows.targets[rows.test], ridge(x, y, rows.embedding[rows.test]))
            ceiling = ceilings.loc[rows.name].reindex(rows.names).to_numpy()
            parts.append(pd.DataFrame({"signature": rows.names, "pearson": r, "ceiling": ceiling}))
    found = pd.concat(parts)
    found["share_of_ceiling"] = found["pearson"] / found["ceiling"].where(found["ceiling"] > 0)
    judged = found.groupby("signature", sort=False)
    frame = judged.mean().assign(n_slides=judged["pearson"].count()).reset_index()
    for place, (name, values) in enumerate(slides[0].genes.items(), start=1):
        frame.insert(place, name, values)
    _warn(frame, use_rep)
    return frame


@dataclass(frozen=True)
class _Rows:
    """Patches of one slide, and the genes behind labels and embedding."""

    name: str
    names: list[str]
    genes: dict[str, list[int] | list[str]]
    embedding: NDArray[np.float32]
    targets: NDArray[np.float32]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def _rows_of(slide: Slide, test_fold: int, use_rep: str, patches_key: str, signatures_key: str) -> _Rows:
    table = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
    fix = "Call `sp.tl.embed_cells` and `sp.tl.aggregate_patches` first."
    embedding = np.asarray(require_obsm(table, use_rep, name="use_rep", slide=slide, fix=fix), np.float32)
    targets = np.asarray(table.X, np.float32)
    xy_um, extent_um = np.asarray(table.obsm[_keys.SPATIAL], np.float64), patch_extent_um(slide, patches_key)
    usable = np.isfinite(targets).any(axis=1) & np.isfinite(embedding).all(axis=1)
    train = training_rows(slide, xy_um, test_fold=test_fold, extent_um=extent_um)
    test = folds_of(slide, xy_um, extent_um=extent_um) == test_fold
    names = list(table.var_names)
    genes = _genes(slide, names, use_rep, signatures_key)
    return _Rows(slide.name, names, genes, embedding, targets, train & usable, test & usable)


def _genes(slide: Slide, names: list[str], use_rep: str, signatures_key: str) -> dict[str, list[int] | list[str]]:
    scored = slide.params(signatures_key).get("score_cells") or {}
    embedded = slide.params(signatures_key).get("embed_cells") or {}
    if "weights" not in scored or embedded.get("key") != use_rep:
        return {"n_genes": [-1] * len(names), "n_shared": [-1] * len(names), "shared": [""] * len(names)}
    genes, seen = list(map(str, scored["genes"])), set(map(str, embedded["genes"]))
    of = [[genes[i] for i in np.flatnonzero(column > 0)] for column in np.asarray(scored["weights"]).T]
    shared = [[gene for gene in members if gene in seen] for members in of]
    return {"n_genes": list(map(len, of)), "n_shared": list(map(len, shared)), "shared": list(map(", ".join, shared))}


def _warn(frame: pd.DataFrame, use_rep: str) -> None:
    known = frame[frame["n_shared"] > 0]
    if known.empty:
        return
    worst = known.sort_values("share_of_ceiling", na_position="first").iloc[-1]
    warnings.warn(
        f"the embedding {use_rep!r} was made from genes of {len(known)} of {len(frame)} signatures "
        f"({known['n_shared'].sum()} of {known['n_genes'].sum()} of their genes). Alone, without any image, it reaches "
        f"r = {known['pearson'].mean():.2f} on them, {known['share_of_ceiling'].mean():.0%} of the noise ceiling "
        f"({worst['signature']}: {worst['share_of_ceiling']:.0%}). Train the autoencoder with `signatures=` set to the "
        "same signatures and `exclude_signature_genes=True`.",
        SpatialsigWarning,
        stacklevel=3,
    )
