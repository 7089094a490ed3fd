"""What the image model learns from: patches, their targets, embeddings and weights, from every slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice, check_key
from spatialsig._errors import InputError
from spatialsig.data.features import FeatureBatches, FeatureSource, has_input, input_source
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patch_matrix import SEPARATOR, PatchMatrix, patch_matrix
from spatialsig.data.patch_table import PatchSpec, patch_centres_um, patch_extent_um, patch_spec
from spatialsig.data.slides import open_slides
from spatialsig.data.splits import BUFFER, folds_of, inner_folds_of, training_rows
from spatialsig.nn.backbones import table_key
from spatialsig.nn.signature import VIT
from spatialsig.tl._provenance import check_same, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.data.slides import Data, Slide

WEIGHTS = ("n_cells", "sem", None)
CLIP = 10.0  # largest ratio between the weight of a patch and the median, either way
FIX = "Call `sp.tl.aggregate_patches` first."


@dataclass(frozen=True)
class Wanted:
    """What to learn from what."""

    patches_key: str = _keys.PATCHES
    signatures_key: str = _keys.SIGNATURES
    targets_key: str = _keys.SIGNATURES
    use_rep: str | None = None
    backbone: str = VIT  # only a table matters here
    weights: str | None = "n_cells"

    def __post_init__(self) -> None:
        check_choice(self.weights, WEIGHTS, name="weights")


@dataclass(frozen=True)
class Folds:
    """Which patches train and which choose the best epoch."""

    test: int | None
    validation: int | None = None
    inner: int | None = None

    def __post_init__(self) -> None:
        if self.inner is not None and (self.test is None or self.validation is not None):
            msg = (
                f"`inner_fold={self.inner}` lies inside a `test_fold` and replaces `validation_fold`; give it with one "
                "alone."
            )
            raise InputError(msg)

    def rows(self, slide: Slide, patches_key: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Patches to train on and patches to choose by, ``(n_patches,)`` each."""
        xy_um, extent_um = patch_centres_um(slide, patches_key), patch_extent_um(slide, patches_key)
        rows = training_rows(slide, xy_um, test_fold=self.test, extent_um=extent_um)
        held_out = np.zeros_like(rows)
        if self.inner is not None and self.test is not None:
            inner = inner_folds_of(slide, xy_um, test_fold=self.test, extent_um=extent_um)
            held_out = inner == self.inner
            rows = rows & (inner != BUFFER)
        elif self.validation is not None:
            held_out = rows & (folds_of(slide, xy_um, extent_um=extent_um) == self.validation)
        return rows & ~held_out, held_out


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of one slide and what is known of them; rows fit each other."""

    source: PatchSource | FeatureSource
    targets: NDArray[np.float32]  # (n, t)
    embedding: NDArray[np.float32] | None  # (n, d)
    weights: NDArray[np.float32]  # (n,)


@dataclass
class TrainingData:
    """All of it.

    Attributes
    ----------
    spec, names
        How patches were cut, what the targets are called; the same on all slides.
    inputs
        How embedding, features and targets were made.
    train, held_out
        Per slide that has any.
    samples
        Slides that train.
    """

    spec: PatchSpec
    names: list[str]
    inputs: dict[str, dict[str, Any]]
    train: list[LabelledPatches] = field(default_factory=list)
    held_out: list[LabelledPatches] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


def training_data(data: Data, wanted: Wanted, folds: Folds) -> TrainingData:
    """Labelled patches of every slide.

    Raises
    ------
    KeyMissingError
        If a table or an entry is not there.
    InputError
        If slides differ in their patches, targets, or the origin of embeddings, or no labelled patch is left.
    """
    found = _common_design(data, wanted)
    for slide in open_slides(data):
        train, held_out = folds.rows(slide, wanted.patches_key)
        found.held_out += labelled(slide, held_out, wanted)
        new = labelled(slide, train, wanted)
        found.train += new
        found.samples += [slide.name] * len(new)
    if not found.train:
        msg = (
            f"no labelled patch outside `test_fold={folds.test}`, `validation_fold={folds.validation}` and "
            f"`inner_fold={folds.inner}` to train on."
        )
        raise InputError(msg)
    return found


def labelled(slide: Slide, rows: NDArray[np.bool_], wanted: Wanted) -> list[LabelledPatches]:
    """Chosen patches that can be seen and have at least one label, as a list of one; empty where there are none."""
    matrix = _targets(slide, wanted)
    seen = has_input(slide, wanted.patches_key, wanted.backbone)
    chosen = np.flatnonzero(rows & seen & np.isfinite(matrix.values).any(axis=1))
    if not len(chosen):
        return []
    embedding = _embedding(slide, wanted)
    return [
        LabelledPatches(
            source=input_source(slide, wanted.patches_key, wanted.backbone, chosen),
            targets=matrix.values[chosen],
            embedding=None if embedding is None else embedding[chosen],
            weights=_weights(slide, matrix, chosen, wanted.weights),
        )
    ]


def batches(patches: Sequence[LabelledPatches], *, batch_size: int, seed: int, shuffle: bool) -> PatchBatches:
    """Batches over the patches of all slides, of pixels or of features."""
    embeddings = [p.embedding for p in patches if p.embedding is not None]
    options: dict[str, Any] = {
        "targets": [p.targets for p in patches],
        "ae": embeddings or None,
        "weights": [p.weights for p in patches],
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "drop_last": False,
    }
    features = [p.source for p in patches if isinstance(p.source, FeatureSource)]
    if features:
        return FeatureBatches(features, **options)
    return PatchBatches([p.source for p in patches if not isinstance(p.source, FeatureSource)], **options)


def _targets(slide: Slide, wanted: Wanted) -> PatchMatrix:
    name = "signatures_key" if wanted.targets_key == wanted.signatures_key else "targets_key"
    return patch_matrix(slide, wanted.patches_key, wanted.targets_key, name=name, fix=FIX)


def _embedding(slide: Slide, wanted: Wanted) -> NDArray[np.float32] | None:
    if wanted.use_rep is None:
        return None
    table = slide.table(wanted.signatures_key, name="signatures_key", fix=FIX)
    where = f"the obsm of {wanted.signatures_key!r} of slide {slide.name!r}"
    fix = "Embed the cells with `sp.tl.embed_cells` and aggregate again, or pass `use_rep=None`."
    check_key(table.obsm, wanted.use_rep, name="use_rep", where=where, fix=fix)
    key = f"{wanted.signatures_key}{SEPARATOR}{wanted.use_rep}"
    return patch_matrix(slide, wanted.patches_key, key, name="use_rep").values


def _weights(slide: Slide, matrix: PatchMatrix, chosen: NDArray[np.int64], kind: str | None) -> NDArray[np.float32]:
    """Weights with mean 1 on the slide; all alike where the table says nothing of cells."""
    if kind == "n_cells" and matrix.n_cells is not None:
        weight = np.nan_to_num(matrix.n_cells[chosen].astype(np.float64))
    elif kind == "sem":
        if matrix.sem is None:
            msg = (
                f"slide {slide.name!r}: `weights='sem'` needs standard errors, and the table of the targets has no layer "
                f"{_keys.SEM!r}; use 'n_cells' or None."
            )
            raise InputError(msg)
        weight = _inverse_variance(matrix.sem[chosen], matrix.values[chosen])
    else:
        weight = np.ones(len(chosen))
    return (weight / weight.mean()).astype(np.float32) if weight.any() else np.ones(len(chosen), np.float32)


def _inverse_variance(sem: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / SE^2 of each patch, averaged over targets in units of their variance, within :data:`CLIP` times the median."""
    variance = np.nanvar(values.astype(np.float64), axis=0)
    relative = sem.astype(np.float64) ** 2 / np.where(variance > 0, variance, np.nan)
    known = np.isfinite(relative)
    mean = np.where(known, relative, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    mean = np.where(known.any(axis=1) & (mean > 0), mean, np.nan)
    if not np.isfinite(mean).any():
        return np.ones(len(sem))
    weight = 1 / np.where(np.isfinite(mean), mean, np.nanmedian(mean))
    middle = float(np.median(weight))
    return np.asarray(np.clip(weight, middle / CLIP, middle * CLIP))


def _common_design(data: Data, wanted: Wanted) -> TrainingData:
    """Patch sizes, targets and origins, which every slide must share."""
    found: TrainingData | None = None
    first = ""
    for slide in open_slides(data):
        spec, names = patch_spec(slide, wanted.patches_key), _targets(slide, wanted).names
        embedding = None if wanted.use_rep is None else (wanted.signatures_key, wanted.use_rep)
        inputs = recorded(
            slide,
            embedding=embedding,
            features_key=table_key(wanted.backbone),
            targets_key=wanted.targets_key,
            patches_key=wanted.patches_key,
        )
        if found is None:
            found, first = TrainingData(spec, names, inputs), slide.name
            continue
        if (spec.patch_px, spec.um_per_px) != (found.spec.patch_px, found.spec.um_per_px):
            msg = (
                f"slide {slide.name!r} has patches of {spec.patch_px} px at {spec.um_per_px} µm/px, slide {first!r} of "
                f"{found.spec.patch_px} px at {found.spec.um_per_px} µm/px; call `sp.pp.make_patches` on all slides "
                "together."
            )
            raise InputError(msg)
        if names != found.names:
            msg = (
                f"slide {slide.name!r} has the signatures {names}, slide {first!r} {found.names}; call "
                "`sp.tl.score_cells` on all slides together."
            )
            raise InputError(msg)
        check_same(found.inputs, inputs, slide=slide.name, other=f"slide {first!r}")
    if found is None:
        msg = "no slide to train on."
        raise InputError(msg)
    return found
