"""Expression embeddings on the scale that a signature model learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def standardised_embedding(ae: NDArray[Any], mean: NDArray[Any], std: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Embeddings ``(n, d)`` float32 on the scale of training, 0 where missing, and which rows are measured, ``(n,)``."""
    code = ((np.asarray(ae, np.float64) - mean) / std).astype(np.float32)
    present = np.isfinite(code).all(axis=1)
    return torch.from_numpy(np.where(present[:, None], code, np.float32(0))), torch.from_numpy(present)
