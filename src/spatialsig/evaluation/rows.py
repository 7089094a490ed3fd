"""Labelled patches of each slide with everything a predictor may look at, from one pass over the pixels.

Floor 6, above expression, inference, labels. Used by 7 modules of evaluation, referee, tl.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from tokenize import TokenError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._files import DECODING_ERRORS, replaced
from spatialsig._hashing import array_hash
from spatialsig._progress import progress_bar
from spatialsig.data.features import FeatureSource, read_inputs
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.evaluation.ceiling import slide_ceiling
from spatialsig.evaluation.findings_slides import SlideFacts, slide_facts
from spatialsig.inference.held_out import check_folds, labels_for
from spatialsig.inference.inputs import check_patches, input_source, usable
from spatialsig.inference.provenance import backbone_of, check_inputs, result_hashes
from spatialsig.models.ensemble import placed, weights_hash
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.each import map_slides
from spatialsig.slide.ledger import run_hash
from spatialsig.stats.image_features import colour_statistics, hand_features, nuclear_density, stain_amounts
from spatialsig.store.lock import run_lock
from spatialsig.store.metadata import check_path

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Data, Slide

BATCH = 64  # patches read at a time
FROM_PIXELS = ("colour", "density", "hand")  # features
_FEATURES, _DIGEST = "features/", "digest"  # in what is kept of a slide


@dataclass(frozen=True)
class Request:
    """Model, fold and tables to gather from every slide."""

    model: SignatureModel | None
    test_fold: int
    use_rep: str | None
    embedding_key: str | None = None
    patches_key: str = _keys.PATCHES
    signatures_key: str = _keys.SIGNATURES
    table_key: str = _keys.TABLE
    seed: int = 0
    device: str | None = None  # where the model computes
    run_dir: Path | None = None  # where what the pixels say is kept until the table is made


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
    density: NDArray[np.float64]  # (n, 2), number of cells and log of their mean counts
    facts: SlideFacts  # what the slide says about itself
    index: NDArray[np.int64]  # patch of each row
    features: dict[str, NDArray[np.floating]] = field(default_factory=dict)  # (n, d)
    predicted: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # (n_test, t)
    ceiling: pd.DataFrame = field(default_factory=pd.DataFrame)  # of a slide that is judged

    @property
    def test(self) -> NDArray[np.bool_]:
        """Rows to judge on."""
        return ~self.train


def gather(data: Data, request: Request) -> list[Rows]:
    """Gather every slide, opened once: features and, where a model is given, its predictions on the test rows.

    Raises
    ------
    LeakageError
        If a patient lies in the test fold and in another.
    InputError
        If the test fold holds no labelled patch, nothing is left to train on, or slides differ in their signatures.
    """
    if request.run_dir is None:
        return _gather(data, request)
    check_path(request.run_dir, name="`run_dir`")  # before the first pixel is read
    with run_lock(request.run_dir, "evaluation"):
        return _gather(data, request)


def _gather(data: Data, request: Request) -> list[Rows]:
    refuse_leaks(data, [request.test_fold])
    slides = map_slides(data, partial(_gather_slide, request=request), "gather patches")
    for rows in slides:
        expected = slides[0].signatures if request.model is None else list(request.model.signatures)
        if rows.signatures != expected:
            msg = (
                f"slide {rows.sample!r} has labels for {rows.signatures}; wanted {expected}. Score all slides together."
            )
            raise InputError(msg)
    if not any(rows.test.any() for rows in slides):
        msg = f"fold {request.test_fold} holds no labelled patch; there is nothing to judge the model on."
        raise InputError(msg)
    if not any(rows.train.any() for rows in slides):
        msg = f"all labelled patches lie in fold {request.test_fold}; the baselines have nothing to learn from."
        raise InputError(msg)
    return slides


def _gather_slide(slide: Slide, *, request: Request) -> Rows:
    patches = slide.patches(request.patches_key)
    if request.model is not None:
        check_patches(patches, request.model)
        check_inputs(patches, request.model, use_rep=request.use_rep, signatures_key=request.signatures_key)
        check_folds(slide, request.model)
    rows, index = _without_pixels(patches, request)
    _add_embeddings(rows, patches, index, request)
    _add_pixels(rows, patches, index, request)
    if rows.test.any():
        rows.ceiling = slide_ceiling(
            slide, seed=request.seed, table_key=request.table_key, signatures_key=request.signatures_key
        )
    return rows


def _without_pixels(patches: Patches, request: Request) -> tuple[Rows, NDArray[np.int64]]:
    """Rows of a slide without what needs pixels, and the patches that they stand for."""
    slide, labels = patches.slide, labels_for(patches, request.signatures_key, request.model)
    train = patches.training(request.test_fold)
    # a patch in the buffer between folds is neither learned from nor judged
    in_use = (train | (patches.folds == request.test_fold)) & usable(patches, labels, backbone_of(request.model))
    index = np.flatnonzero(in_use)
    xy_um = patches.centres_um
    row, col = (patches.origins[index] // patches.spec.stride_l0).T
    low, high = xy_um.min(axis=0), xy_um.max(axis=0)
    rows = Rows(
        sample=slide.name,
        patient=slide.patient,
        signatures=labels.names,
        train=train[index],
        targets=labels.values[index],
        position=((xy_um - low) / np.maximum(high - low, 1e-9))[index],
        row=row,
        col=col,
        step=-(-patches.spec.size_l0 // patches.spec.stride_l0),
        density=_density(patches, request.signatures_key)[index],
        facts=slide_facts(slide, signatures_key=request.signatures_key, table_key=request.table_key),
        index=index,
    )
    return rows, index


def _density(patches: Patches, signatures_key: str) -> NDArray[np.float64]:
    """Number of cells and log of their mean counts, ``(n_patches, 2)``, NaN where the table does not say."""
    n_cells, n_counts = (patches.column(signatures_key, column) for column in (_keys.N_CELLS, _keys.N_COUNTS))
    return np.stack([n_cells, np.log(np.where(n_counts > 0, n_counts, np.nan))], axis=1)


def _add_embeddings(rows: Rows, patches: Patches, index: NDArray[np.int64], request: Request) -> None:
    expression = patches.embedding(request.signatures_key, request.use_rep)
    if expression is not None:
        rows.features["ae"] = expression[index]
    key, slide = request.embedding_key, patches.slide
    if key is None:
        return
    labels = slide.table(request.signatures_key)
    where = f"the tables, and the obsm of {request.signatures_key!r}, of slide {slide.name!r}"
    check_key([*slide.sdata.tables, *labels.obsm], key, name="embedding_key", where=where)
    if key == request.signatures_key:
        msg = f"`embedding_key={key!r}` names the labels themselves, which a ridge regression on them would return."
        raise InputError(msg)
    name = key if key in slide.sdata.tables else _keys.entry(request.signatures_key, key)
    rows.features["embedding"] = patches.matrix(name, name="embedding_key").values[index]


def _add_pixels(rows: Rows, patches: Patches, index: NDArray[np.int64], request: Request) -> None:
    """What the pixels say of a slide, or what an evaluation that was interrupted had kept of it."""
    kept = None if request.run_dir is None else request.run_dir / f"{rows.sample}.npz"
    digest = "" if kept is None else _decides(rows, patches, index, request)
    if kept is None or not _restore(rows, kept, digest):
        with nullcontext() if request.model is None else placed(request.model, request.device):
            _look(rows, patches, index, request)
        if kept is not None:
            _keep(rows, kept, digest)


def _decides(rows: Rows, patches: Patches, index: NDArray[np.int64], request: Request) -> str:
    """Hash of all that decides features and predictions of a slide."""
    pixels = [str(patches.slide.lineage.fingerprint(part)) for part in patches.pixel_parts]
    made_by: Any = None
    if request.model is not None:
        embedding = patches.embedding(request.signatures_key, request.use_rep)
        made_by = [weights_hash(request.model), result_hashes(patches, request.model, embedding, None)]
    return run_hash([patches.content_hash, pixels, made_by, request.seed, array_hash(index, rows.test)])


def _keep(rows: Rows, place: Path, digest: str) -> None:
    kept: dict[str, Any] = {f"{_FEATURES}{name}": rows.features[name] for name in FROM_PIXELS if name in rows.features}
    with replaced(place) as draft, draft.open("wb") as file:
        np.savez(file, **{_DIGEST: np.array(digest)} | kept | rows.predicted)


def _restore(rows: Rows, place: Path, digest: str) -> bool:
    """Whether the same was kept before; a file that is damaged, or of something else, counts as none."""
    try:
        with np.load(place, allow_pickle=False) as kept:
            if str(kept[_DIGEST]) != digest:
                return False
            values = {name: kept[name] for name in kept.files if name != _DIGEST}
    except (*DECODING_ERRORS, KeyError, TokenError, NotImplementedError, BadZipFile):
        return False
    features = {name.removeprefix(_FEATURES): array for name, array in values.items() if name.startswith(_FEATURES)}
    if len(rows.train) and set(features) != set(FROM_PIXELS):
        return False
    rows.features |= features
    rows.predicted = {name: array for name, array in values.items() if not name.startswith(_FEATURES)}
    return True


def _look(rows: Rows, patches: Patches, index: NDArray[np.int64], request: Request) -> None:
    """Read every patch once: for the features of all rows, and the predictions for the test rows."""
    source, predictions = patches.source(index), _Predictions(rows, request)
    inputs = input_source(patches, backbone_of(request.model), index)
    features: dict[str, list[NDArray[np.floating]]] = {name: [] for name in FROM_PIXELS}
    with progress_bar(f"look at {rows.sample}", total=len(index), unit="patch") as bar:
        for start in range(0, len(index), BATCH):
            batch = np.arange(start, min(start + BATCH, len(index)))
            images = read_patches(source, batch)
            stains = stain_amounts(images)
            features["colour"].append(colour_statistics(images))
            features["density"].append(nuclear_density(stains))
            features["hand"].append(hand_features(stains, um_per_px=patches.spec.um_per_px))
            predictions.add(read_inputs(inputs, batch) if isinstance(inputs, FeatureSource) else images, batch)
            bar.advance(len(batch))
    if len(index):
        rows.features |= {name: np.concatenate(parts) for name, parts in features.items()}
    rows.predicted = predictions.scores


class _Predictions:
    """Predictions of the model on the test rows, filled batch by batch."""

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
