"""Features of every patch by an image network, as a table of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig._hashing import content_hash
from spatialsig.data.features import compute_features
from spatialsig.inference.inputs import check_patches
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.backbones import build_backbone, warn_of_scale
from spatialsig.nn.vit import ViT
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from spatialsig.slide.slides import Data


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

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    >>> network = sp.tl.pretrain_vit(sdata, size=size, max_epochs=1)
    >>> sp.tl.embed_patches(sdata, network)
    >>> len(sdata["embedding"]) == len(sdata["patches"])
    True
    """
    check_positive(batch_size=batch_size)
    network = _network(backbone, backbone_options)
    record = {"backbone": str(getattr(network, "spec", type(network).__name__)), "weights_sha256": _hash(network)}
    for slide in open_slides(data):
        patches = slide.patches(patches_key)
        if isinstance(backbone, SignatureViT):
            check_patches(patches, backbone)
        sizes = {"patch_px": patches.spec.patch_px, "um_per_px": patches.spec.um_per_px}
        warn_of_scale(network, **sizes)  # type: ignore[arg-type]
        features = compute_features(patches.source(), network, batch_size=batch_size).features
        names = [f"feature_{k}" for k in range(features.shape[1])]
        table = patches.table(features, names, n_cells=patches.n_cells(signatures_key))
        table.uns[_keys.NAMESPACE] = {"embed_patches": record | sizes}
        slide.put(key_added, table)


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
