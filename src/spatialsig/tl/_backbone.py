"""An image network trained without labels on the H&E of every slide, and its features of every patch.

Floor 7, above evaluation. Called as sp.tl.embed_patches, sp.tl.pretrain_vit; used by 2 modules of pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, NewKey, Seed, check_fit, checked
from spatialsig._checks import check_options, option_names
from spatialsig._hashing import content_hash
from spatialsig.data.features import compute_features
from spatialsig.data.loader import PatchBatches
from spatialsig.errors import InputError
from spatialsig.inference.inputs import ModelInputs
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.backbones import MEMORY, build_backbone, warn_of_scale
from spatialsig.nn.device import choose_device, on_device
from spatialsig.nn.vit import ViT, ViTConfig
from spatialsig.slide.added import check_added
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.each import map_slides
from spatialsig.slide.seen import PATIENTS, SAMPLES, noted, patients_of
from spatialsig.slide.slides import Data, open_slides
from spatialsig.train.pretrain import fit_masked

if TYPE_CHECKING:
    from spatialsig.data.patches import PatchSource
    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Slide

FIT_OPTIONS = option_names(fit_masked, without=("um_per_px", "validation", "size", "seed"))


@checked
def pretrain_vit(
    data: Data,
    *,
    size: str | ViTConfig = "tiny",
    test_fold: Natural | None = 0,
    batch_size: Count = 32,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    **fit_options: Any,
) -> PretrainedViT:
    """Train an image network on patches without labels: blocks of each are hidden, and it paints what was there.

    Masked image modelling [1]_ [2]_. Patches come from the training slides and from slides without labels, an H&E alone
    being enough. Patches of the test fold are left out: their images would be allowed (no label is seen), but a model
    that has seen them says less about slides of a new hospital. ``test_fold=None`` takes them in.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with patches; not modified.
    size
        ``"tiny"``, ``"small"``, ``"base"``, or a configuration; :func:`train_vit` must be given the same.
    test_fold
        Fold that is left out, with every slide of its patients; ``None`` learns from all slides.
    batch_size
        Patches per step.
    seed
        Of the weights, the order of patches, augmentation and masks.
    patches_key, signatures_key
        Shapes element of the patches; table by which a slide counts as labelled.
    **fit_options
        Passed on to :func:`spatialsig.train.pretrain.fit_masked`: ``max_epochs``, ``mask_share``, ``run_dir``, ...

    Returns
    -------
    The network, for ``train_vit(..., pretrained=...)``, with ``save`` and ``load``; ``run["history"]`` holds the losses
    per epoch, ``run["training_samples"]`` the slides.

    Raises
    ------
    KeyMissingError
        If a labelled slide has no folds, or patches are missing.
    InputError
        If slides differ in their patches, or none is left.

    References
    ----------
    .. [1] He K, Chen X, Xie S, Li Y, Dollár P, Girshick R. Masked autoencoders are scalable vision learners. Conference
       on Computer Vision and Pattern Recognition (2022). https://doi.org/10.1109/CVPR52688.2022.01553
    .. [2] Xie Z, Zhang Z, Cao Y, et al. SimMIM: a simple framework for masked image modeling. Conference on Computer
       Vision and Pattern Recognition (2022). https://doi.org/10.1109/CVPR52688.2022.00943

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    >>> network = sp.tl.pretrain_vit(sdata, size=size, max_epochs=1)
    >>> network.run["training_samples"]
    ['toy']
    """
    fit_options = check_fit(fit_options, fit_masked, FIT_OPTIONS, function="pretrain_vit")
    choose_device(None)  # which checks that it is there
    refuse_leaks(data, [] if test_fold is None else [test_fold])
    spec, sources = _sources(data, test_fold, patches_key, signatures_key)
    nothing = [np.empty((len(source), 0), np.float32) for source in sources]
    batches = PatchBatches(sources, targets=nothing, batch_size=batch_size, seed=seed)
    model, history = fit_masked(batches, um_per_px=spec.um_per_px, size=size, seed=seed, **fit_options)
    samples = [source.sample for source in sources]
    model.run |= {"test_fold": test_fold, SAMPLES: samples, PATIENTS: patients_of(data, samples)}
    model.run |= {"seed": seed, "n_patches": batches.n_patches, "history": history.to_dict("list")}
    return model


def _sources(
    data: Data, test_fold: int | None, patches_key: str, signatures_key: str
) -> tuple[PatchSpec, list[PatchSource]]:
    """Sizes of the patches, and the images to learn from: none of a patient who is tested."""
    candidates: list[tuple[str | None, PatchSource]] = []  # with the patient of a slide without labels
    tested: set[str | None] = set()
    spec: PatchSpec | None = None
    for slide in open_slides(data):
        patches = slide.patches(patches_key)
        spec = _same(slide, patches.spec, spec)
        if test_fold is not None and _fold(slide) == test_fold:
            tested.add(slide.patient)
        if "split" not in slide.attrs and signatures_key not in slide.sdata.tables:
            candidates.append((slide.patient, patches.source()))
        else:
            candidates.append((None, patches.source(np.flatnonzero(patches.training(test_fold)))))
    sources = [source for patient, source in candidates if patient not in tested and len(source)]
    if spec is None or not sources:
        msg = f"no patch outside `test_fold={test_fold}` to learn from."
        raise InputError(msg)
    return spec, sources


def _fold(slide: Slide) -> int | None:
    """Fold of a whole slide; None where it has none, or several."""
    fold = slide.attrs.get("split", {}).get("fold")
    return None if fold is None else int(fold)


def _same(slide: Slide, spec: PatchSpec, first: PatchSpec | None) -> PatchSpec:
    if first is not None and spec.design != first.design:
        msg = (
            f"slide {slide.name!r} has patches of {spec.patch_px} px at {spec.um_per_px} µm/px, others of "
            f"{first.patch_px} px at {first.um_per_px} µm/px; call `sp.pp.make_patches` on all slides together."
        )
        raise InputError(msg)
    return spec


@checked
def embed_patches(
    data: Data,
    backbone: str | nn.Module | Callable[..., Any] | SignatureViT | PretrainedViT,
    *,
    batch_size: Count = 64,
    skip_done: bool = False,
    device: str | None = None,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    key_added: NewKey = "embedding",
    **backbone_options: Any,
) -> None:
    """Write the features that an image network makes of every patch as a table, for scanpy and :func:`train_vit`.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    backbone
        A name, module or callable, see :func:`spatialsig.nn.backbones.build_backbone`; or a trained or pre-trained model,
        of which the image network is taken.
    batch_size
        Patches per forward pass.
    skip_done
        Leave slides alone whose table was made by the same network from the same patches.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    patches_key, signatures_key
        Shapes element of the patches; table that counts their cells, where there is one.
    key_added
        Name of the new table; a table of that name is replaced.
    **backbone_options
        More for ``build_backbone``: ``um_per_px``, ``mean``, ``std``, ``input_px``, ``pool``, ``download``.

    Returns
    -------
    Nothing; writes ``tables[key_added]``, one row per patch: ``X`` features float32; ``obs`` and ``obsm`` as in the table
    of the labels; ``uns["spatialsig"]["embed_patches"]`` with ``backbone``, ``weights_sha256``, ``patch_px``,
    ``um_per_px``.

    Raises
    ------
    InputError
        If the network cannot be built, or a trained model wants patches of another size, resolution or stain.

    Warns
    -----
    SpatialsigWarning
        If the network was trained at another resolution.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> sp.tl.embed_patches(sdata, sp.datasets.toy_model(sdata))
    >>> len(sdata["embedding"]) == len(sdata["patches"])
    True
    """
    known = (*option_names(build_backbone), *option_names(embed_patches))
    check_options(backbone_options, known, function="sp.tl.embed_patches")
    network = _network(backbone, backbone_options)
    record = {"backbone": str(getattr(network, "spec", type(network).__name__)), "weights_sha256": _hash(network)}
    record |= noted(getattr(backbone, "run", {}))
    record |= {"options": json.dumps(backbone_options, sort_keys=True, default=str)} if backbone_options else {}
    asked = _Asked(
        network, backbone if isinstance(backbone, SignatureViT) else None, record, batch_size, skip_done, device,
        patches_key, signatures_key, key_added,
    )  # fmt: skip
    map_slides(data, partial(_embed, asked=asked), "embed patches")


@dataclass(frozen=True)
class _Asked:
    """What all slides are embedded by."""

    network: nn.Module
    model: SignatureViT | None  # whose patches are wanted
    record: dict[str, Any]
    batch_size: int
    skip_done: bool
    device: str | None
    patches_key: str
    signatures_key: str
    key_added: str


def _embed(slide: Slide, *, asked: _Asked) -> None:
    check_added(slide, asked.key_added, made_by="tl.embed_patches")
    patches = slide.patches(asked.patches_key)
    if asked.model is not None:
        ModelInputs.of(patches, asked.model, signatures_key=asked.signatures_key, use_rep=None)
    sizes = {"patch_px": patches.spec.patch_px, "um_per_px": patches.spec.um_per_px}
    if asked.skip_done and _is_done(slide, asked.key_added, asked.record | sizes, len(patches)):
        return
    warn_of_scale(asked.network, **sizes)  # type: ignore[arg-type]
    with on_device(asked.network, device=asked.device):
        features = compute_features(patches.source(), asked.network, batch_size=asked.batch_size).features
    names = [f"feature_{k}" for k in range(features.shape[1])]
    table = patches.table(features, names, n_cells=patches.n_cells(asked.signatures_key))
    table.uns[_keys.NAMESPACE] = {"embed_patches": asked.record | sizes}
    slide.put(asked.key_added, table, made_by="tl.embed_patches", sources=patches.pixel_parts)


def _is_done(slide: Slide, key: str, record: dict[str, Any], n: int) -> bool:
    if str(record["backbone"]).startswith(f"{MEMORY}:"):  # of a function nobody knows what it does
        return False
    if key not in slide.sdata.tables or len(slide.sdata.tables[key]) != n or any(slide.lineage.stale(key)):
        return False
    # before the record: what was changed by hand is no longer what the network makes
    return not slide.lineage.is_edited(key) and bool(slide.params(key).get("embed_patches") == record)


def _network(backbone: Any, options: dict[str, Any]) -> nn.Module:
    if isinstance(backbone, PretrainedViT):
        return backbone.net
    if isinstance(backbone, SignatureViT):
        return backbone.net.backbone
    return backbone if isinstance(backbone, ViT) else build_backbone(backbone, **options)


def _hash(network: nn.Module) -> str:
    """SHA-256 of all weights, as hex digits."""
    weights = sorted(network.state_dict().items())
    return content_hash(part for name, tensor in weights for part in (name, tensor.detach().cpu().numpy()))
