"""The labelled patches of each slide with everything a predictor may look at, from one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._errors import InputError
from spatialsig._progress import progress_bar
from spatialsig.data.features import FeatureSource, has_input, input_source, read_inputs
from spatialsig.data.patch_table import patch_extent_um, patch_origins_of, patch_source, patch_spec
from spatialsig.data.patches import read_patches
from spatialsig.data.slides import open_slides
from spatialsig.data.splits import folds_of, training_rows
from spatialsig.stats.hand_features import hand_features
from spatialsig.stats.image_features import colour_statistics, nuclear_density, stain_amounts
from spatialsig.tl._predict import check_patches, patch_embedding
from spatialsig.tl._provenance import backbone_of, check_inputs, check_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide
    from spatialsig.models.ensemble import SignatureModel

BATCH = 64  # patches read at a time


@dataclass(frozen=True)
class Request:
    """What to gather."""

    model: SignatureModel | None
    test_fold: int
    use_rep: str | None
    embedding_key: str | None
    patches_key: str
    signatures_key: str
    seed: int


@dataclass
class Rows:
    """Labelled patches of one slide; all arrays have one row for each of them."""

    sample: str
    patient: str
    signatures: list[str]
    train: NDArray[np.bool_]
    targets: NDArray[np.float32]  # (n, t)
    position: NDArray[np.float64]  # (n, 2), share of the slide's width and height
    row: NDArray[np.int64]  # place on the grid of patches
    col: NDArray[np.int64]
    step: int  # grid cells to the next patch that does not overlap
    given: NDArray[np.float64]  # (n, 2), number of cells and log of their mean counts
    features: dict[str, NDArray[np.floating]] = field(default_factory=dict)  # (n, d)
    predicted: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # (n_test, t)

    @property
    def test(self) -> NDArray[np.bool_]:
        """Rows to judge on."""
        return ~self.train


def gather(data: Data, request: Request) -> list[Rows]:
    """Rows of every slide, with features and, where a model is given, its predictions on the test rows.

    Raises
    ------
    InputError
        If the test fold holds no labelled patch, nothing is left to train on, or slides differ in their signatures.
    """
    slides = list(_each_slide(data, request))
    for rows in slides:
        wanted = slides[0].signatures if request.model is None else list(request.model.signatures)
        if rows.signatures != wanted:
            msg = f"slide {rows.sample!r} has labels for {rows.signatures}; wanted {wanted}. Score all slides together."
            raise InputError(msg)
    if not any(rows.test.any() for rows in slides):
        msg = f"fold {request.test_fold} holds no labelled patch; there is nothing to judge the model on."
        raise InputError(msg)
    if not any(rows.train.any() for rows in slides):
        msg = f"all labelled patches lie in fold {request.test_fold}; the baselines have nothing to learn from."
        raise InputError(msg)
    return slides


def _each_slide(data: Data, request: Request) -> Iterator[Rows]:
    for slide in open_slides(data):
        if request.model is not None:
            check_patches(slide, request.model, request.patches_key)
            keys = {"signatures_key": request.signatures_key, "patches_key": request.patches_key}
            check_inputs(slide, request.model, use_rep=request.use_rep, **keys)
            check_labels(slide, request.model, request.signatures_key)
        rows, index = _facts(slide, request)
        _add_embeddings(rows, slide, index, request)
        _add_pixels(rows, slide, index, request)
        yield rows


def _facts(slide: Slide, request: Request) -> tuple[Rows, NDArray[np.int64]]:
    """Everything but what needs pixels, and which patches of the slide are meant."""
    fix = "Call `sp.tl.aggregate_patches` first."
    table = slide.table(request.signatures_key, name="signatures_key", fix=fix)
    xy_um, targets = np.asarray(table.obsm[_keys.SPATIAL], np.float64), np.asarray(table.X, np.float32)
    extent_um = patch_extent_um(slide, request.patches_key)
    train = training_rows(slide, xy_um, test_fold=request.test_fold, extent_um=extent_um)
    # a patch in the buffer between folds is neither learned from nor judged
    used = train | (folds_of(slide, xy_um, extent_um=extent_um) == request.test_fold)
    used = used & has_input(slide, request.patches_key, backbone_of(request.model))
    index = np.flatnonzero(np.isfinite(targets).any(axis=1) & used)
    spec = patch_spec(slide, request.patches_key)
    row, col = (patch_origins_of(slide, request.patches_key)[index] // spec.stride_l0).T
    low, high = xy_um.min(axis=0), xy_um.max(axis=0)
    rows = Rows(
        sample=slide.name,
        patient=slide.patient,
        signatures=list(table.var_names),
        train=train[index],
        targets=targets[index],
        position=((xy_um - low) / np.maximum(high - low, 1e-9))[index],
        row=row,
        col=col,
        step=-(-spec.size_l0 // spec.stride_l0),
        given=_given(table.obs)[index],
    )
    return rows, index


def _given(obs: object) -> NDArray[np.float64]:
    """What follows the density of cells and the depth of counts, NaN where the table does not say."""
    columns = [
        np.asarray(obs[key], np.float64) if key in obs else np.full(len(obs), np.nan)  # type: ignore[index,operator,arg-type]
        for key in (_keys.N_CELLS, _keys.N_COUNTS)
    ]
    columns[1] = np.log(np.where(columns[1] > 0, columns[1], np.nan))
    return np.stack(columns, axis=1)


def _add_embeddings(rows: Rows, slide: Slide, index: NDArray[np.int64], request: Request) -> None:
    expression = patch_embedding(slide, request.signatures_key, request.use_rep)
    if expression is not None:
        rows.features["ae"] = expression[index]
    key = request.embedding_key
    if key is None:
        return
    labels = slide.table(request.signatures_key)
    where = f"the tables, and the obsm of {request.signatures_key!r}, of slide {slide.name!r}"
    check_key([*slide.sdata.tables, *labels.obsm], key, name="embedding_key", where=where)
    values = slide.sdata.tables[key].X if key in slide.sdata.tables else labels.obsm[key]
    if len(values) != labels.n_obs:
        msg = f"slide {slide.name!r}: {key!r} has {len(values)} rows; wanted one for each of {labels.n_obs} patches."
        raise InputError(msg)
    rows.features["embedding"] = np.asarray(values, np.float32)[index]


def _add_pixels(rows: Rows, slide: Slide, index: NDArray[np.int64], request: Request) -> None:
    """Read every patch once: for the features of all rows, and the predictions for the test rows."""
    source, judge = patch_source(slide, request.patches_key, index), _Predictions(rows, request)
    given = input_source(slide, request.patches_key, backbone_of(request.model), index)
    found: dict[str, list[NDArray[np.floating]]] = {"colour": [], "density": [], "hand": []}
    with progress_bar(f"look at {slide.name}", total=len(index), unit="patch") as bar:
        for start in range(0, len(index), BATCH):
            batch = np.arange(start, min(start + BATCH, len(index)))
            images = read_patches(source, batch)
            stains = stain_amounts(images)
            found["colour"].append(colour_statistics(images))
            found["density"].append(nuclear_density(stains))
            found["hand"].append(hand_features(stains, um_per_px=patch_spec(slide, request.patches_key).um_per_px))
            judge.add(read_inputs(given, batch) if isinstance(given, FeatureSource) else images, batch)
            bar.advance(len(batch))
    if len(index):
        rows.features |= {name: np.concatenate(parts) for name, parts in found.items()}
    rows.predicted = judge.scores


class _Predictions:
    """What the model makes of the test rows, filled batch by batch."""

    def __init__(self, rows: Rows, request: Request) -> None:
        self.model, self.test = request.model, rows.test
        self.rank = np.cumsum(self.test) - 1  # number of a row among the test rows
        n = int(self.test.sum())
        order = np.random.default_rng(request.seed).permutation(n)  # row i is shown the picture of order[i]
        self.shown_to = np.argsort(order)
        self.embedding = rows.features["ae"][self.test] if "ae" in rows.features else None
        self.scores: dict[str, NDArray[np.float32]] = {}
        if self.model is not None and n:
            fused = () if self.embedding is None else ("fused", "fused_permuted")
            shape = (n, len(self.model.signatures))
            self.scores = {name: np.empty(shape, np.float32) for name in ("he_only", "he_only_permuted", *fused)}

    def add(self, images: NDArray[Any], batch: NDArray[np.int64]) -> None:
        """Predict from the pictures of ``batch``, each for its own patch and for the one it is shown to."""
        chosen = self.test[batch]
        if not self.scores or not chosen.any() or self.model is None:
            return
        pictures, own = images[chosen], self.rank[batch[chosen]]
        other = self.shown_to[own]
        # without the embedding a score depends on the picture alone: shuffling pictures shuffles the scores
        self.scores["he_only"][own] = self.scores["he_only_permuted"][other] = self.model.predict(pictures)
        if self.embedding is not None:
            self.scores["fused"][own] = self.model.predict(pictures, self.embedding[own])
            self.scores["fused_permuted"][other] = self.model.predict(pictures, self.embedding[other])
