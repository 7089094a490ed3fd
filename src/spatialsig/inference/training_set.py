"""Training sets of image models: labelled patches of every slide with their pixels, embeddings and weights.

Floor 5, above slide. Used by inference/domain, inference/probe, inference/stacking, inference/tuning, inference/vit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice
from spatialsig.data.features import FeatureBatches, FeatureSource
from spatialsig.data.loader import PatchBatches
from spatialsig.errors import InputError
from spatialsig.inference.inputs import input_source, usable
from spatialsig.inference.patch_weights import WEIGHTS, patch_weights
from spatialsig.inference.provenance import BY_HAND, check_same, edited, recorded
from spatialsig.nn.backbones import table_key
from spatialsig.nn.signature import VIT
from spatialsig.signatures import shared_genes
from spatialsig.slide.folds import BUFFER
from spatialsig.slide.parts import FOLDS
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Data, Slide
    from spatialsig.slide.table_rows import PatchMatrix


@dataclass(frozen=True)
class TrainingTables:
    """Names of the tables and entries that a model learns from, and how patches are weighted."""

    patches_key: str = _keys.PATCHES
    signatures_key: str = _keys.SIGNATURES
    targets_key: str = _keys.SIGNATURES
    use_rep: str | None = None
    backbone: str = VIT  # only a table matters here
    weights: str | None = "n_cells"

    def __post_init__(self) -> None:
        check_choice(self.weights, WEIGHTS, name="weights")

    def targets(self, patches: Patches) -> PatchMatrix:
        """Targets to predict, for every patch."""
        name = "signatures_key" if self.targets_key == self.signatures_key else "targets_key"
        return patches.labels(self.targets_key, name=name)

    def embedding(self, patches: Patches) -> NDArray[np.float32] | None:
        """Embedding of every patch; None where the model learns from the image alone."""
        fix = "Embed the cells with `sp.tl.embed_cells` and call `sp.tl.aggregate_patches` again, or learn from the H&E alone: `use_rep=None`."
        return patches.embedding(self.signatures_key, self.use_rep, fix=fix)

    def origins(self, patches: Patches) -> dict[str, dict[str, Any]]:
        """Records of how embedding, features, stain and targets of a slide were made."""
        return recorded(patches.slide, **self._read, patches=patches)

    def edited(self, slide: Slide) -> Iterator[str]:
        """Which of these were changed by hand since, see :func:`spatialsig.inference.provenance.edited`."""
        return edited(slide, **self._read)

    @property
    def _read(self) -> dict[str, Any]:
        return {
            "embedding": None if self.use_rep is None else (self.signatures_key, self.use_rep),
            "features_key": table_key(self.backbone),
            "targets_key": self.targets_key,
        }

    def shared_genes(self, slide: Slide) -> list[str]:
        """Genes that both the embedding and the scores were made from, sorted; none without an embedding."""
        if self.use_rep is None or self.signatures_key not in slide.sdata.tables:
            return []
        params = slide.params(self.signatures_key)
        shared = shared_genes(params.get("score_cells") or {}, params.get("embed_cells") or {})
        return sorted({gene for genes in shared.values() for gene in genes})


@dataclass(frozen=True)
class FoldChoice:
    """Folds that a model is tested on and chosen by; all others train."""

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

    def rows(self, patches: Patches) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Patches to train on and patches to choose the best epoch by, ``(n_patches,)`` each."""
        rows = patches.training(self.test)
        held_out = np.zeros_like(rows)
        if self.inner is not None and self.test is not None:
            inner = patches.inner_folds(self.test)
            held_out = inner == self.inner
            rows = rows & (inner != BUFFER)
        elif self.validation is not None:
            held_out = rows & (patches.folds == self.validation)
        return rows & ~held_out, held_out


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of one slide with their labels, embeddings and weights; rows fit each other."""

    source: PatchSource | FeatureSource
    targets: NDArray[np.float32]  # (n, t)
    embedding: NDArray[np.float32] | None  # (n, d)
    weights: NDArray[np.float32]  # (n,)
    patient: str
    centres: NDArray[np.float64]  # (n, 2), µm

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.targets)

    def rows(self, rows: NDArray[np.int64]) -> LabelledPatches:
        """Some of the patches."""
        embedding = None if self.embedding is None else self.embedding[rows]
        own = {name: getattr(self, name)[rows] for name in ("targets", "weights", "centres")}
        return replace(self, source=self.source.rows(rows), embedding=embedding, **own)


@dataclass
class TrainingSet:
    """Labelled patches of all slides, and what the slides have in common."""

    spec: PatchSpec  # spec, names: how patches were cut, what the targets are called; the same on all slides
    names: list[str]
    inputs: dict[str, dict[str, Any]]  # how embedding, features and targets were made
    train: list[LabelledPatches] = field(default_factory=list)  # train, held_out: per slide that has any
    held_out: list[LabelledPatches] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)  # slides that train
    folds: dict[str, str] = field(default_factory=dict)  # slide -> hash of how it was split
    # slide -> genes that both its embedding and its scores were made from
    shared_genes: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # targets that no slide that trains has measured

    def leave_out_unmeasured(self) -> None:
        """Leave out the targets that no training patch has, unless that is all of them."""
        has = np.any([np.isfinite(patches.targets).any(axis=0) for patches in self.train], axis=0)
        if has.all() or not has.any():
            return
        self.left_out = [name for name, known in zip(self.names, has, strict=True) if not known]
        self.names = [name for name, known in zip(self.names, has, strict=True) if known]
        for part in (self.train, self.held_out):
            part[:] = [replace(patches, targets=patches.targets[:, has]) for patches in part]

    @property
    def n_patches(self) -> int:
        """Patches that train."""
        return sum(len(patches.targets) for patches in self.train)


def gather_training_set(data: Data, tables: TrainingTables, folds: FoldChoice) -> TrainingSet:
    """Gather the labelled patches of every slide; each slide is opened once.

    Raises
    ------
    KeyMissingError
        If a table or an entry is not there.
    InputError
        If slides differ in their patches, targets, or the origin of embeddings, or no labelled patch is left.
    """
    training_set: TrainingSet | None = None
    first = ""
    for slide in open_slides(data):
        patches = slide.patches(tables.patches_key)
        targets = tables.targets(patches)
        if training_set is None:
            training_set, first = TrainingSet(patches.spec, targets.names, tables.origins(patches)), slide.name
        else:
            _check_design(training_set, patches, targets.names, tables.origins(patches), first=first)
        train, held_out = folds.rows(patches)
        training_set.held_out += labelled_patches(patches, targets, held_out, tables)
        new = labelled_patches(patches, targets, train, tables)
        training_set.train += new
        training_set.samples += [slide.name] * len(new)
        for kind in tables.edited(slide) if new else ():
            training_set.inputs.setdefault(kind, {}).setdefault(BY_HAND, []).append(slide.name)
        training_set.shared_genes[slide.name] = tables.shared_genes(slide)
        if (split := slide.lineage.fingerprint(FOLDS)) is not None:
            training_set.folds[slide.name] = split
    if training_set is None:
        msg = "no slide to train on."
        raise InputError(msg)
    if not training_set.train:
        msg = (
            f"no labelled patch outside `test_fold={folds.test}`, `validation_fold={folds.validation}` and "
            f"`inner_fold={folds.inner}` to train on."
        )
        raise InputError(msg)
    if folds.validation is not None and not training_set.held_out:
        msg = (
            f"`validation_fold={folds.validation}` holds no labelled patch beside `test_fold={folds.test}`, so nothing would be "
            "chosen by it; choose a fold that is neither the test fold nor empty."
        )
        raise InputError(msg)
    training_set.leave_out_unmeasured()
    return training_set


def labelled_patches(
    patches: Patches, targets: PatchMatrix, rows: NDArray[np.bool_], tables: TrainingTables
) -> list[LabelledPatches]:
    """Chosen patches that can be seen and have at least one label, as a list of one; empty where there are none."""
    chosen = np.flatnonzero(rows & usable(patches, targets, tables.backbone))
    if not len(chosen):
        return []
    embedding = tables.embedding(patches)
    return [
        LabelledPatches(
            source=input_source(patches, tables.backbone, chosen),
            targets=targets.values[chosen],
            embedding=None if embedding is None else embedding[chosen],
            weights=patch_weights(patches.slide, targets, chosen, tables.weights),
            patient=patches.slide.patient,
            centres=patches.centres_um[chosen],
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


def _check_design(
    first_slide: TrainingSet, patches: Patches, names: list[str], inputs: dict[str, dict[str, Any]], *, first: str
) -> None:
    """Refuse a slide whose patch sizes, targets or origins differ from those of the first one."""
    spec, other, name = patches.spec, first_slide.spec, patches.slide.name
    if spec.design != other.design:
        msg = (
            f"slide {name!r} has patches of {spec.patch_px} px at {spec.um_per_px} µm/px, slide {first!r} of "
            f"{other.patch_px} px at {other.um_per_px} µm/px; call `sp.pp.make_patches` on all slides together."
        )
        raise InputError(msg)
    if names != first_slide.names:
        msg = (
            f"slide {name!r} has the signatures {names}, slide {first!r} {first_slide.names}; call "
            "`sp.tl.score_cells` on all slides together."
        )
        raise InputError(msg)
    check_same(first_slide.inputs, inputs, slide=name, other=f"slide {first!r}")
