"""Inputs of a model on one slide: pixels or features of the patches, and their embedding, checked against the model.

Floor 5, above slide. Used by 16 modules of evaluation, inference, maps, tl.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._progress import progress_bar
from spatialsig.data.features import FeatureSource, in_batches
from spatialsig.data.passes import ahead
from spatialsig.errors import InputError
from spatialsig.inference.domain import DomainWatch
from spatialsig.inference.provenance import backbone_of, check_inputs
from spatialsig.models.ensemble import placed, predict_with_deviation
from spatialsig.nn.backbones import table_key
from spatialsig.nn.device import FLOAT32, kept_memory
from spatialsig.slide.parts import obsm_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.models.domain import OutOfDomain
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.table_rows import PatchMatrix

BATCH = 64
AHEAD = 2  # batches read while one is computed


def input_source(patches: Patches, backbone: str, rows: NDArray[np.int64] | None = None) -> PatchSource | FeatureSource:
    """Pixels of the patches (of ``rows`` only), or their features in a table, as the network takes them.

    Raises
    ------
    KeyMissingError
        If the table is not there.
    InputError
        If its rows cannot be matched to the patches.
    """
    key = table_key(backbone)
    if key is None:
        return patches.source(rows)
    features = patches.matrix(key, name="backbone").values
    chosen = features if rows is None else features[rows]
    return FeatureSource(patches.slide.name, chosen, patches.spec.patch_px)


def usable(patches: Patches, labels: PatchMatrix, backbone: str) -> NDArray[np.bool_]:
    """Patches with a label that a network can see, ``(n_patches,)``: those that any fit or evaluation may use."""
    key = table_key(backbone)
    if key is None:
        return labels.measured
    return labels.measured & patches.matrix(key, name="backbone", fix="`sp.tl.embed_patches` writes one.").complete


def check_patches(patches: Patches, model: SignatureModel) -> None:
    """Refuse patches of another size or resolution than the model was trained on."""
    spec = patches.spec
    if spec.design != (model.patch_px, model.um_per_px):
        msg = (
            f"slide {patches.slide.name!r}: patches are {spec.patch_px} px at {spec.um_per_px} µm/px; the model wants "
            f"{model.patch_px} px at {model.um_per_px} µm/px. Call `sp.pp.make_patches(slide, "
            f"patch_px={model.patch_px}, um_per_px={model.um_per_px})`."
        )
        raise InputError(msg)


def features_part(key: str) -> str:
    """Part of a slide that is a table of features, or with ``"table/entry"`` an entry of its ``obsm``."""
    table, _, entry = key.partition(_keys.ENTRY)
    return obsm_of(table, entry) if entry else table


def inputs_name(use_rep: str | None) -> str:
    """Name of the inputs that a prediction is made from."""
    return "H&E" if use_rep is None else f"H&E + {use_rep}"


def check_reads_images(model: SignatureModel) -> None:
    """Raise :class:`InputError` for a model that reads a table of features, and so knows only the patches of that table."""
    if (table := table_key(backbone_of(model))) is not None:
        msg = f"the model reads the features of table {table!r} in place of images, so that it can be asked of those patches only."
        raise InputError(msg)


@dataclass(frozen=True)
class ModelInputs:
    """A model and the patches of one slide that it is given."""

    # patches, model: patches that were cut, stained and embedded as the model needs them; see :meth:`of`
    patches: Patches
    model: SignatureModel
    embedding: NDArray[np.float32] | None  # ``(n_patches, d)``, or None to predict from the image alone

    @classmethod
    def of(cls, patches: Patches, model: SignatureModel, *, signatures_key: str, use_rep: str | None) -> ModelInputs:
        """Check the patches of a slide and read their embedding.

        Raises
        ------
        InputError
            If patches, stain, embedding or features were made otherwise than those the model learned from.
        """
        check_patches(patches, model)
        check_inputs(patches, model, use_rep=use_rep, signatures_key=signatures_key)
        return cls(patches, model, patches.embedding(signatures_key, use_rep))

    def source(self, rows: NDArray[np.int64] | None = None) -> PatchSource | FeatureSource:
        """Pixels or features of the patches (of ``rows`` only)."""
        return input_source(self.patches, backbone_of(self.model), rows)

    def parts(self, signatures_key: str, use_rep: str | None) -> list[str]:
        """Parts of the slide that a prediction is made from."""
        features = table_key(backbone_of(self.model))
        seen = self.patches.pixel_parts if features is None else [self.patches.key, features_part(features)]
        return seen if use_rep is None else [*seen, obsm_of(signatures_key, use_rep)]

    def embedding_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Embedding of ``rows``; None where the model is given none."""
        return None if self.embedding is None else self.embedding[rows]

    def predict(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores ``(len(rows), n_signatures)`` of chosen patches."""
        return self.predict_with_deviation(rows)[0]

    def predict_with_deviation(
        self, rows: NDArray[np.int64], *, n_views: int = 1, precision: str = FLOAT32
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores and, where the model knows it, their deviation; patches are read while others are computed."""
        mean, std, _ = self.predict_watched(rows, n_views=n_views, precision=precision, watch=False)
        return mean, std

    def predict_watched(
        self, rows: NDArray[np.int64], *, n_views: int = 1, precision: str = FLOAT32, watch: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, OutOfDomain | None]:
        """The same, and how far the patches lie from what the model learned from, where it knows that and with ``watch``."""
        model, embedding = self.model, self.embedding_of(rows)
        mean = np.empty((len(rows), len(model.signatures)), np.float32)
        std = np.empty_like(mean) if model.knows_uncertainty else None
        title = f"predict {self.patches.slide.name}"
        seen = DomainWatch(model, len(rows), n_views=n_views, with_expression=embedding is not None) if watch else None
        watching = nullcontext() if seen is None else seen.watching()
        with placed(model), kept_memory(), watching, progress_bar(title, total=len(rows), unit="patch") as bar:
            for batch, images in ahead(in_batches(self.source(rows), BATCH), depth=AHEAD):
                of_batch = None if embedding is None else embedding[batch]
                mean[batch], spread = predict_with_deviation(
                    model, images, of_batch, n_views=n_views, precision=precision
                )
                if std is not None:
                    std[batch] = spread
                if seen is not None:
                    seen.see(batch, images)
                bar.advance(len(batch))
        return mean, std, None if seen is None else seen.result()
