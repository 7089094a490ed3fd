"""Features of patches in place of their pixels: from a table, or from a network that does not learn.

Floor 2, above geometry, nn, signatures, stats, store. Used by 12 modules of evaluation, inference, maps, tl, train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig._checks import check_positive
from spatialsig._hashing import content_hash
from spatialsig._progress import progress_bar
from spatialsig.data.loader import PatchBatches
from spatialsig.data.order import blocks_of
from spatialsig.data.passes import ahead
from spatialsig.data.patches import PatchSource, read_patches
from spatialsig.errors import InputError
from spatialsig.nn.device import fast_matmul, kept_memory, on_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import nn

AHEAD = 2  # batches read while one is computed


@dataclass(frozen=True)
class FeatureSource:
    """The patches of one slide by their features."""

    sample: str  # name of the slide
    features: NDArray[np.float32]  # ``(n_patches, d)`` float32; NaN rows where a patch has none
    out_px: int  # edge of the patches that the features are of, px
    amplification: float = 1.0  # as of pixels in memory

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.features)

    def rows(self, rows: NDArray[np.int64]) -> FeatureSource:
        """Some of the patches."""
        return replace(self, features=self.features[rows])


class FeatureBatches(PatchBatches):
    """:class:`~spatialsig.data.loader.PatchBatches` whose ``image`` are features ``(b, d)`` float32.

    Parameters
    ----------
    sources
        One per slide, all of one width, every value finite.
    **options
        As of :class:`~spatialsig.data.loader.PatchBatches`.

    Raises
    ------
    InputError
        If widths differ, or a value is not finite.
    """

    def __init__(self, sources: list[FeatureSource], **options: Any) -> None:
        widths = {source.sample: source.features.shape[1] for source in sources}
        if len(set(widths.values())) > 1:
            msg = f"slides with features of different width: {widths}; make them with one network."
            raise InputError(msg)
        for source in sources:
            if not np.isfinite(source.features).all():
                msg = f"slide {source.sample!r}: features of patches must be finite; leave out those without."
                raise InputError(msg)
        super().__init__(sources, **options | {"by_block": False})  # type: ignore[arg-type]
        self.features = np.concatenate([source.features for source in sources])

    def identity(self) -> dict[str, Any]:
        """Description of these batches, by which a checkpoint knows them."""
        arrays = (self.features, self.target, self.weight, *(() if self.ae is None else (self.ae,)))
        hashes = [content_hash([array], short=True) for array in arrays]
        names = ("seed", "batch_size", "shuffle", "slide_balanced", "drop_last")
        own = {name: int(getattr(self, name)) for name in names}
        return own | {"slides": [source.sample for source in self.sources], "values": hashes}

    def _cache_of(self, n_workers: int) -> Any:
        return _Kept(self.features)


@dataclass(frozen=True)
class _Kept:
    """Features where a cache would give pixels."""

    features: NDArray[np.float32]

    def read(self, patches: NDArray[np.int64], due: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        return self.features[patches]


def read_inputs(source: PatchSource | FeatureSource, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Pixels ``(n, 3, px, px)`` uint8 of ``rows``, or their features ``(n, d)`` float32 (NaN rows where there are none)."""
    return source.features[rows] if isinstance(source, FeatureSource) else read_patches(source, rows)


def in_batches(
    source: PatchSource | FeatureSource, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Patches and what is seen of them, neighbours together: large chunks are then decoded about once."""
    if not len(source):
        return
    blocks = np.zeros(len(source)) if isinstance(source, FeatureSource) else blocks_of([source])
    order = np.argsort(blocks, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield chosen, read_inputs(source, chosen)


@torch.inference_mode()
def compute_features(source: PatchSource, backbone: nn.Module, *, batch_size: int = 64) -> FeatureSource:
    """Features of every patch by a network, each patch seen once as it is; on ``sp.settings.device``."""
    check_positive(batch_size=batch_size)
    features = np.empty((len(source), int(backbone.num_features)), np.float32)  # type: ignore[arg-type]
    bar_of = progress_bar(f"features of {source.sample}", total=len(source), unit="patch")
    with on_device(backbone) as device, fast_matmul(), kept_memory(), bar_of as bar:
        for chosen, images in ahead(in_batches(source, batch_size), depth=AHEAD):
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            features[chosen] = backbone(pixels).float().cpu().numpy()
            bar.advance(len(chosen))
    return FeatureSource(source.sample, features, source.out_px)
