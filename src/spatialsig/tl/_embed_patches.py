"""Features of every patch by an image network, as a table of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig.data.features import compute_features
from spatialsig.data.patch_table import patch_source, patch_spec, patch_table
from spatialsig.data.slides import open_slides
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.backbones import build_backbone, warn_of_scale
from spatialsig.nn.vit import ViT
from spatialsig.tl._predict import check_patches, n_cells_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spatialsig.data.slides import Data


def embed_patches(
    data: Data,
    backbone: str | nn.Module | Callable[..., Any] | SignatureViT | PretrainedViT,
    *,
    batch_size: int = 64,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    key_added: str = "embedding",
    **backbone_options: Any,
) -> None:
    """Write features of every patch, for scanpy as they are and for ``train_vit(backbone="table:embedding")``.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    backbone
        A name, module or callable, see :func:`spatialsig.nn.backbones.build_backbone`; or a trained or pre-trained model,
        of which the image network is taken.
    batch_size
        Patches per forward pass; on a CPU they are read together and computed in smaller passes.
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
        If the network cannot be built, or a trained model wants other patches.

    Warns
    -----
    SpatialsigWarning
        If the network was trained at another resolution.
    """
    check_positive(batch_size=batch_size)
    known = backbone if isinstance(backbone, SignatureViT) else None
    network = _network(backbone, backbone_options)
    record = {"backbone": str(getattr(network, "spec", type(network).__name__)), "weights_sha256": _hash(network)}
    for slide in open_slides(data):
        spec = patch_spec(slide, patches_key)
        if known is not None:
            check_patches(slide, known, patches_key)
        warn_of_scale(network, patch_px=spec.patch_px, um_per_px=spec.um_per_px)
        features = compute_features(patch_source(slide, patches_key), network, batch_size=batch_size).features
        names = [f"feature_{k}" for k in range(features.shape[1])]
        table = patch_table(slide, patches_key, features, names, n_cells=n_cells_of(slide, signatures_key))
        facts = {"patch_px": spec.patch_px, "um_per_px": spec.um_per_px}
        table.uns[_keys.NAMESPACE] = {"embed_patches": record | facts}
        slide.put(key_added, table)


def _network(backbone: Any, options: dict[str, Any]) -> nn.Module:
    if isinstance(backbone, PretrainedViT):
        return backbone.net
    if isinstance(backbone, SignatureViT):
        return backbone.net.backbone
    return backbone if isinstance(backbone, ViT) else build_backbone(backbone, **options)


def _hash(network: nn.Module) -> str:
    """SHA-256 of all weights, as hex digits."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
