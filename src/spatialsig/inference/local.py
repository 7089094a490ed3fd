"""Places inside the patches of a slide: their scores in the units of the labels, and what the networks see there.

Floor 5, above slide. Used by maps/dense, maps/nucleus_features, maps/signature_map, maps/train_cell_head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialsig.errors import InputError
from spatialsig.models.ensemble import members_of
from spatialsig.nn.device import computed_in, fast_matmul, microbatch_size
from spatialsig.nn.local import features_at, has_places, local_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel


def reads_places(model: SignatureModel) -> bool:
    """Whether :func:`scores_of_places` can be asked of a model."""
    return all(has_places(member.net) for member in members_of(model))


def check_places(model: SignatureModel, what: str) -> None:
    """Refuse a model of which nothing below its patches is known; ``what`` was asked for."""
    if not reads_places(model):
        kinds = sorted({type(getattr(member.net, "backbone", member.net)).__name__ for member in members_of(model)})
        msg = (
            f"`{what}` reads the tokens of a network that averages them, as `sp.tl.train_vit` makes by default; the backbone of "
            f"this model ({', '.join(kinds)}) gives one vector for a patch: of its scores there is only one per patch (`method='patch'`)."
        )
        raise InputError(msg)


def scores_of_places(
    model: SignatureModel, images: NDArray[np.uint8], *, edges: int, precision: str
) -> NDArray[np.float32]:
    """Scores ``(n, n_signatures, edges, edges)`` of the squares of patches, the mean over the members, from the H&E alone.

    Their mean over a patch is the score that :meth:`~spatialsig.models.SignatureViT.predict` gives it. The model lies on
    its device already.
    """
    total = np.zeros((len(images), len(model.signatures), edges, edges), np.float64)
    members = members_of(model)
    for member in members:
        device = next(member.net.parameters()).device
        scale, offset = (np.asarray(values)[:, None, None] for values in (member.target_std, member.target_mean))
        size = microbatch_size(images.shape, device)
        with fast_matmul(), computed_in(precision, device):
            for start in range(0, len(images), size):
                pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).to(device)
                found = local_scores(member.net, pixels, edges=edges)  # type: ignore[arg-type]
                total[start : start + size] += (found.float().cpu().numpy() * scale + offset) / len(members)
    return total.astype(np.float32)


def features_of_points(
    model: SignatureModel, images: NDArray[np.uint8], points: Sequence[NDArray[np.float64]], *, precision: str
) -> NDArray[np.float32]:
    """What the members see at points of patches, side by side, ``(n_points, d)``; see :func:`spatialsig.nn.local.features_at`."""
    seen = []
    for member in members_of(model):
        device = next(member.net.parameters()).device
        size, parts = microbatch_size(images.shape, device), []
        with fast_matmul(), computed_in(precision, device):
            for start in range(0, len(images), size):
                rows = slice(start, start + size)
                pixels = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
                at = [torch.from_numpy(one) for one in points[rows]]
                parts.append(features_at(member.net, pixels, at).float().cpu().numpy())  # type: ignore[arg-type]
        seen.append(np.concatenate(parts))
    return np.concatenate(seen, axis=1)
