"""How good the model is on slides it has never seen, beside everything that could fool the reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._errors import InputError
from spatialsig._progress import progress_bar
from spatialsig.data.patch_table import patch_source
from spatialsig.data.patches import read_patches
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import training_rows
from spatialsig.stats.agreement import agreement
from spatialsig.stats.baselines import nearest_neighbours, ridge
from spatialsig.stats.image_features import N_COLOUR, N_DENSITY, colour_statistics, nuclear_density
from spatialsig.tl._ceiling import noise_ceiling
from spatialsig.tl._predict import BATCH, check_patches, patch_embedding, predict_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide
    from spatialsig.models import SignatureViT


@dataclass(frozen=True)
class Rows:
    """Labelled patches of one slide, and what baselines may look at."""

    slide: Slide
    index: NDArray[np.int64]  # which patches of the slide
    train: NDArray[np.bool_]
    targets: NDArray[np.float32]  # (n, t)
    position: NDArray[np.float64]  # (n, 2), share of the slide's width and height
    embedding: NDArray[np.float32] | None  # (n, d)
    colour: NDArray[np.float32]  # (n, 6)
    density: NDArray[np.float32]  # (n, 2)


def evaluate(
    data: Data,
    model: SignatureViT,
    *,
    seed: int = 0,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Compare the model with simple predictors and the noise ceiling on the fold it has not seen.

    All methods learn from the same training patches and are judged on the same held-out patches, slide by slide:

    - ``he_only``: the model with the H&E alone; ``fused``: with H&E and embedding;
    - ``he_only_permuted``, ``fused_permuted``: the same with the images of a slide shuffled;
    - ``ae_only``: ridge regression on the patch embedding;
    - ``colour``, ``density``: ridge regression on six colour statistics, on two numbers of nuclear density;
    - ``coordinates``: nearest neighbours by position; above 0.05 the split leaks;
    - ``train_mean``: the mean of the training patches.

    Parameters
    ----------
    data
        The cohort the model was trained on; not modified.
    model
        Trained model; its ``test_fold`` is the fold judged.
    seed
        Of the shuffled images and the noise ceiling.
    patches_key, signatures_key, table_key
        Patches, labels, cells.

    Returns
    -------
    One row per method, signature and held-out slide: ``method``, ``signature``, ``sample``, ``patient``,
    ``n_patches``, ``pearson``, ``spearman``, ``r2``, ``mae``, ``ceiling``, ``share_of_ceiling``.

    Raises
    ------
    InputError
        If the model was trained on every slide, or the test fold holds no labelled patch.
    """
    test_fold = model.run.get("test_fold")
    if test_fold is None:
        msg = "the model was trained with `test_fold=None`: no slide is left to judge it on. Train with a test fold."
        raise InputError(msg)
    use_rep = model.run.get("use_rep")
    slides = list(_rows(data, model, test_fold, use_rep, patches_key, signatures_key))
    tested = [rows for rows in slides if not rows.train.all()]
    if not tested:
        msg = f"fold {test_fold} holds no labelled patch; there is nothing to judge the model on."
        raise InputError(msg)
    ceiling = noise_ceiling(data, seed=seed, table_key=table_key, signatures_key=signatures_key)
    tables = [_judge(rows, slides, model, use_rep, patches_key, seed) for rows in tested]
    result = pd.concat(tables, ignore_index=True).merge(ceiling, on=["sample", "signature"], how="left")
    result["share_of_ceiling"] = result["pearson"] / result["ceiling"].where(result["ceiling"] > 0)
    return result


def _rows(
    data: Data, model: SignatureViT, test_fold: int, use_rep: str | None, patches_key: str, signatures_key: str
) -> Iterator[Rows]:
    with progress_bar("baseline features", total=slide_count(data), unit="slide") as bar:
        for slide in open_slides(data):
            check_patches(slide, model, patches_key)
            table = slide.table(signatures_key, name="signatures_key")
            targets = np.asarray(table.X, np.float32)
            # -1 is the buffer between folds: neither learned from nor judged
            index = np.flatnonzero(np.isfinite(targets).any(axis=1) & (table.obs[_keys.FOLD] >= 0))
            train = training_rows(slide, table.obsm[_keys.SPATIAL], test_fold=test_fold)[index]
            embedding = patch_embedding(slide, signatures_key, use_rep)
            colour, density = _image_features(slide, patches_key, index)
            yield Rows(
                slide=slide,
                index=index,
                train=train,
                targets=targets[index],
                position=_relative_position(table.obsm[_keys.SPATIAL])[index],
                embedding=None if embedding is None else embedding[index],
                colour=colour,
                density=density,
            )
            bar.advance()


def _image_features(
    slide: Slide, patches_key: str, index: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    source = patch_source(slide, patches_key, index)
    colour, density = np.empty((len(index), N_COLOUR), np.float32), np.empty((len(index), N_DENSITY), np.float32)
    for start in range(0, len(index), BATCH):
        rows = np.arange(start, min(start + BATCH, len(index)))
        images = read_patches(source, rows)
        colour[rows], density[rows] = colour_statistics(images), nuclear_density(images)
    return colour, density


def _relative_position(xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = xy_um.min(axis=0), xy_um.max(axis=0)
    share: NDArray[np.float64] = (xy_um - low) / np.maximum(high - low, 1e-9)
    return share


def _judge(
    rows: Rows, slides: list[Rows], model: SignatureViT, use_rep: str | None, patches_key: str, seed: int
) -> pd.DataFrame:
    test = ~rows.train
    predicted = _model_predictions(rows, model, use_rep, patches_key, seed) | _baselines(rows, slides)
    records = [
        {"method": method, "signature": name, "sample": rows.slide.name, "patient": rows.slide.patient}
        | agreement(rows.targets[test, column], scores[:, column])
        for method, scores in predicted.items()
        for column, name in enumerate(model.signatures)
    ]
    return pd.DataFrame(records)


def _model_predictions(
    rows: Rows, model: SignatureViT, use_rep: str | None, patches_key: str, seed: int
) -> dict[str, NDArray[np.floating]]:
    index = rows.index[~rows.train]
    shuffled = np.random.default_rng(seed).permutation(len(index))
    he_only = predict_rows(rows.slide, model, patches_key, index, None)
    # without the embedding a score depends on the image alone: shuffling images shuffles the scores
    predictions: dict[str, NDArray[np.floating]] = {"he_only": he_only, "he_only_permuted": he_only[shuffled]}
    if use_rep is not None and rows.embedding is not None:
        embedding = rows.embedding[~rows.train]
        predictions["fused"] = predict_rows(rows.slide, model, patches_key, index, embedding)
        predictions["fused_permuted"] = predict_rows(rows.slide, model, patches_key, index[shuffled], embedding)
    return predictions


def _baselines(rows: Rows, slides: list[Rows]) -> dict[str, NDArray[np.float64]]:
    test = ~rows.train
    targets = np.concatenate([s.targets[s.train] for s in slides])
    mean = np.nanmean(targets, axis=0)
    predictions = {
        "colour": ridge(_training(slides, "colour"), targets, rows.colour[test]),
        "density": ridge(_training(slides, "density"), targets, rows.density[test]),
        "coordinates": _by_coordinates(rows, slides),
        "train_mean": np.broadcast_to(mean, (int(test.sum()), len(mean))),
    }
    if rows.embedding is not None:
        predictions["ae_only"] = ridge(_training(slides, "embedding"), targets, rows.embedding[test])
    return predictions


def _training(slides: list[Rows], feature: str) -> NDArray[np.floating]:
    return np.concatenate([getattr(s, feature)[s.train] for s in slides])


def _by_coordinates(rows: Rows, slides: list[Rows]) -> NDArray[np.float64]:
    """Neighbours on the slide itself where the split lets training patches lie on it: that is the leak to detect."""
    known = [rows] if rows.train.any() else slides
    targets = np.concatenate([s.targets[s.train] for s in known])
    return nearest_neighbours(_training(known, "position"), targets, rows.position[~rows.train])
