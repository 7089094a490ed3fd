"""Predict signature scores for every patch of a slide, with or without expression."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._errors import InputError
from spatialsig._progress import progress_bar
from spatialsig.data.patch_table import patch_source, patch_spec, patch_table
from spatialsig.data.patches import read_patches
from spatialsig.data.slides import open_slides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide
    from spatialsig.models import SignatureViT

BATCH = 64


def predict(
    data: Data,
    model: SignatureViT,
    *,
    use_rep: str | None = None,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    key_added: str = _keys.SIGNATURES_PRED,
) -> None:
    """Predict the signature scores of every patch.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place. Slides need an H&E with patches, nothing else.
    model
        Trained model.
    use_rep
        Patch embedding in ``tables[signatures_key].obsm`` to give to the model; ``None`` (default) predicts from the
        H&E alone.
    patches_key, signatures_key
        Shapes element of the patches, table of the labels (only read for ``use_rep``).
    key_added
        Name of the new table; a table of that name is replaced.

    Returns
    -------
    Nothing; writes ``tables[key_added]``, one row per patch: ``X`` predicted scores float32, ``obs`` and ``obsm`` as in
    the table of the labels, ``uns["spatialsig"]["predict"]`` with the inputs used and the samples the model learned from.

    Raises
    ------
    InputError
        If the patches were not cut as the model needs them.
    """
    for slide in open_slides(data):
        check_patches(slide, model, patches_key)
        embedding = patch_embedding(slide, signatures_key, use_rep)
        rows = np.arange(len(slide.sdata.shapes[patches_key]))
        scores = predict_rows(slide, model, patches_key, rows, embedding)
        table = patch_table(slide, patches_key, scores, model.signatures, n_cells=_n_cells(slide, signatures_key))
        table.uns[_keys.NAMESPACE] = {
            "predict": {
                "inputs": "H&E" if use_rep is None else f"H&E + {use_rep}",
                "training_samples": list(model.run.get("training_samples", [])),
                "weights_sha256": _weights_hash(model),
            }
        }
        slide.put(key_added, table)


def predict_rows(
    slide: Slide,
    model: SignatureViT,
    patches_key: str,
    rows: NDArray[np.int64],
    embedding: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Scores ``(len(rows), n_signatures)`` of chosen patches; ``embedding`` has one row for each of ``rows``."""
    source = patch_source(slide, patches_key, rows)
    out = np.empty((len(rows), len(model.signatures)), np.float32)
    with progress_bar(f"predict {slide.name}", total=len(rows), unit="patch") as bar:
        for start in range(0, len(rows), BATCH):
            part = slice(start, min(start + BATCH, len(rows)))
            images = read_patches(source, np.arange(part.start, part.stop))
            out[part] = model.predict(images, None if embedding is None else embedding[part])
            bar.advance(part.stop - part.start)
    return out


def check_patches(slide: Slide, model: SignatureViT, patches_key: str) -> None:
    """Refuse patches of another size or resolution than the model was trained on."""
    spec = patch_spec(slide, patches_key)
    if (spec.patch_px, spec.um_per_px) != (model.patch_px, model.um_per_px):
        msg = (
            f"slide {slide.name!r}: patches are {spec.patch_px} px at {spec.um_per_px} µm/px; the model wants "
            f"{model.patch_px} px at {model.um_per_px} µm/px. Call `sp.pp.make_patches(slide, "
            f"patch_px={model.patch_px}, um_per_px={model.um_per_px})`."
        )
        raise InputError(msg)


def patch_embedding(slide: Slide, signatures_key: str, use_rep: str | None) -> NDArray[np.float32] | None:
    """Embedding of every patch, ``(n_patches, d)``, or None when none is asked for."""
    if use_rep is None:
        return None
    table = slide.table(signatures_key, name="signatures_key")
    check_key(table.obsm, use_rep, name="use_rep", where=f"the obsm of {signatures_key!r} of slide {slide.name!r}")
    return np.asarray(table.obsm[use_rep], np.float32)


def _weights_hash(model: SignatureViT) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _n_cells(slide: Slide, signatures_key: str) -> NDArray[np.int64] | None:
    if signatures_key not in slide.sdata.tables:
        return None
    return np.asarray(slide.sdata.tables[signatures_key].obs[_keys.N_CELLS])
