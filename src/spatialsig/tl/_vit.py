"""Train the image model straight from the stores."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._errors import InputError, SpatialsigWarning
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patch_table import PatchSpec, patch_extent_um, patch_source, patch_spec
from spatialsig.data.slides import open_slides
from spatialsig.data.splits import BUFFER, folds_of, inner_folds_of, training_rows
from spatialsig.train import fit_vit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.data.slides import Data, Slide
    from spatialsig.models import SignatureViT


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of one slide and what is known of them; rows fit each other."""

    source: PatchSource
    targets: NDArray[np.float32]  # (n, t)
    embedding: NDArray[np.float32] | None  # (n, d)
    weights: NDArray[np.float32]  # (n,)


def train_vit(
    data: Data,
    *,
    test_fold: int | None = 0,
    validation_fold: int | None = None,
    inner_fold: int | None = None,
    fusion: str = "gated",
    use_rep: str | None = _keys.X_AE,
    size: str = "tiny",
    batch_size: int = 32,
    seed: int = 0,
    signatures_key: str = _keys.SIGNATURES,
    patches_key: str = _keys.PATCHES,
    **fit_options: Any,
) -> SignatureViT:
    """Train a vision transformer to predict the signature scores of a patch from its H&E.

    Patches are read from the Zarr stores while the model trains. Patches weigh by their number of cells. With an
    embedding, a share of the training samples is shown without it, so that the model also works on the H&E alone.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    test_fold
        Fold that is not used; ``None`` trains on every slide.
    validation_fold
        Fold that does not train but chooses the best epoch; ``None`` trains for the full schedule.
    inner_fold
        The same, by the folds that ``sp.pp.split`` laid inside the training part: needed where every other fold trains.
    fusion
        How the embedding joins the image: ``"gated"``, ``"token"``, ``"film"``, ``"add"`` or ``"none"``.
    use_rep
        Patch embedding in ``tables[signatures_key].obsm``; ``None`` trains on H&E only.
    size
        ``"tiny"``, ``"small"`` or ``"base"``.
    batch_size
        Patches per step.
    seed
        Of the weights, the order of patches and the augmentation.
    signatures_key, patches_key
        Table of the labels, shapes element of the patches.
    **fit_options
        Passed on to :func:`spatialsig.train.fit_vit`: ``max_epochs``, ``learning_rate``, ...

    Returns
    -------
    The trained model; ``run["history"]`` holds the losses per epoch.

    Raises
    ------
    InputError
        If no labelled patch is left to train on, or the slides' patches or signatures differ.
    """
    if inner_fold is not None and (test_fold is None or validation_fold is not None):
        msg = f"`inner_fold={inner_fold}` lies inside a `test_fold` and replaces `validation_fold`; give it with one alone."
        raise InputError(msg)
    spec, names = _common_design(data, patches_key, signatures_key)
    _warn_if_embedding_knows_the_answer(data, signatures_key, use_rep)
    train, held_out, samples = [], [], []
    for slide in open_slides(data):
        table = slide.table(signatures_key, name="signatures_key")
        xy_um, extent_um = table.obsm[_keys.SPATIAL], patch_extent_um(slide, patches_key)
        rows = training_rows(slide, xy_um, test_fold=test_fold, extent_um=extent_um)
        if inner_fold is not None and test_fold is not None:
            inner = inner_folds_of(slide, xy_um, test_fold=test_fold, extent_um=extent_um)
            held_out += _labelled(slide, inner == inner_fold, patches_key, signatures_key, use_rep)
            rows &= (inner != BUFFER) & (inner != inner_fold)
        if validation_fold is not None:
            validation = folds_of(slide, xy_um, extent_um=extent_um) == validation_fold
            held_out += _labelled(slide, rows & validation, patches_key, signatures_key, use_rep)
            rows &= ~validation
        found = _labelled(slide, rows, patches_key, signatures_key, use_rep)
        train += found
        samples += [slide.name] * len(found)
    if not train:
        msg = (
            f"no labelled patch outside `test_fold={test_fold}`, `validation_fold={validation_fold}` and "
            f"`inner_fold={inner_fold}` to train on."
        )
        raise InputError(msg)
    model, history = fit_vit(
        _batches(train, batch_size=batch_size, seed=seed, shuffle=True),
        validation=_batches(held_out, batch_size=batch_size, seed=seed, shuffle=False) if held_out else None,
        signatures=names,
        um_per_px=spec.um_per_px,
        size=size,
        fusion="none" if use_rep is None else fusion,
        seed=seed,
        **fit_options,
    )
    model.run |= {"test_fold": test_fold, "validation_fold": validation_fold, "training_samples": samples}
    model.run |= {"inner_fold": inner_fold, "use_rep": use_rep, "seed": seed, "history": history.to_dict("list")}
    return model


def _common_design(data: Data, patches_key: str, signatures_key: str) -> tuple[PatchSpec, list[str]]:
    """Patch sizes and signatures, which every slide must share."""
    seen: dict[str, tuple[PatchSpec, list[str]]] = {}
    for slide in open_slides(data):
        table = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
        seen[slide.name] = patch_spec(slide, patches_key), list(table.var_names)
    (first, (spec, names)), *others = seen.items()
    for name, (other, other_names) in others:
        if (other.patch_px, other.um_per_px) != (spec.patch_px, spec.um_per_px):
            msg = (
                f"slide {name!r} has patches of {other.patch_px} px at {other.um_per_px} µm/px, slide {first!r} of "
                f"{spec.patch_px} px at {spec.um_per_px} µm/px; call `sp.pp.make_patches` on all slides together."
            )
            raise InputError(msg)
        if other_names != names:
            msg = (
                f"slide {name!r} has the signatures {other_names}, slide {first!r} {names}; call `sp.tl.score_cells` on "
                "all slides together."
            )
            raise InputError(msg)
    return spec, names


def _labelled(
    slide: Slide, rows: NDArray[np.bool_], patches_key: str, signatures_key: str, use_rep: str | None
) -> list[LabelledPatches]:
    """Chosen patches with at least one label, as a list of one; empty where there are none."""
    table = slide.table(signatures_key)
    targets = np.asarray(table.X, np.float32)
    chosen = np.flatnonzero(rows & np.isfinite(targets).any(axis=1))
    if not len(chosen):
        return []
    n_cells = table.obs[_keys.N_CELLS].to_numpy(np.float32)[chosen]
    return [
        LabelledPatches(
            source=patch_source(slide, patches_key, chosen),
            targets=targets[chosen],
            embedding=None if use_rep is None else np.asarray(table.obsm[use_rep], np.float32)[chosen],
            weights=n_cells / n_cells.mean(),
        )
    ]


def _batches(patches: list[LabelledPatches], *, batch_size: int, seed: int, shuffle: bool) -> PatchBatches:
    embeddings = [p.embedding for p in patches if p.embedding is not None]
    return PatchBatches(
        [p.source for p in patches],
        targets=[p.targets for p in patches],
        ae=embeddings or None,
        weights=[p.weights for p in patches],
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=False,
    )


def _warn_if_embedding_knows_the_answer(data: Data, signatures_key: str, use_rep: str | None) -> None:
    if use_rep is None:
        return
    for slide in open_slides(data):
        scored = slide.params(signatures_key).get("score_cells", {})
        embedded = slide.params(signatures_key).get("embed_cells", {})
        if not scored or not embedded:
            continue
        used = np.asarray(scored["weights"]).any(axis=1)
        shared = sorted(set(np.asarray(scored["genes"])[used]) & set(embedded["genes"]))
        if shared:
            warnings.warn(
                f"slide {slide.name!r}: the embedding {use_rep!r} was made from {len(shared)} genes of the signatures "
                f"to predict ({', '.join(shared[:5])}, ...), so the model can read the answer from it and ignore the "
                "image. Train the autoencoder with `signatures=` set to the same signatures.",
                SpatialsigWarning,
                stacklevel=3,
            )
            return
