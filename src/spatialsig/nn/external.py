"""Networks that others made, as backbones with the interface of our own.

Floor 1, above the ground floor. Used by 7 modules of inference, models, nn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialsig._arguments import Count, Natural, UmPerPx, checked_class
from spatialsig._checks import check_choice
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what most networks were trained with
POOLS = ("class", "mean")
TRIAL_PX = 224  # edge of the image that tells the width of the features, where the network names no size


@checked_class
@dataclass(frozen=True)
class Inputs:
    """What a network wants to be shown, and how to read its answer.

    Parameters
    ----------
    mean, std
        Scale of red, green and blue, in shares of 255.
    input_px
        Edge of the image; None takes patches as they are.
    um_per_px
        Resolution it was trained at; None where nobody says.
    pool
        ``"class"`` or ``"mean"``, for networks that give tokens.
    n_prefix
        Tokens before those of the image.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_px: Count | None = None
    um_per_px: UmPerPx | None = None
    pool: str = "mean"
    n_prefix: Natural = 0

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(v) and (v > 0 or name == "mean") for v in values):
                msg = f"`{name}={values}` must be 3 finite numbers, for red, green and blue{', above 0' * (name == 'std')}."
                raise InputError(msg)
        check_choice(self.pool, POOLS, name="pool")
        if self.pool == "class" and self.n_prefix < 1:
            msg = "`pool='class'` asks for a class token, which this network has not; use 'mean'."
            raise InputError(msg)


class ExternalBackbone(nn.Module):
    """Features of H&E patches by any network: pixels are scaled and resized for it, tokens are pooled.

    Parameters
    ----------
    model
        Takes ``(b, 3, h, w)`` float and returns ``(b, d)``, tokens ``(b, n, d)``, maps ``(b, d, h, w)``, or an object
        that holds one of them as ``pooler_output`` or ``last_hidden_state``.
    spec
        Name by which it is built again.
    inputs
        What it wants to be shown.
    num_features
        Width of its features; None asks it.
    """

    takes_tokens = False

    def __init__(
        self, model: nn.Module | Callable[[Tensor], Any], spec: str, inputs: Inputs, *, num_features: int | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.spec, self.inputs, self.um_per_px = spec, inputs, inputs.um_per_px
        self.register_buffer("mean", torch.tensor(inputs.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(inputs.std).view(3, 1, 1), persistent=False)
        self.eval()
        self.num_features = self._width() if num_features is None else num_features

    mean: Tensor
    std: Tensor

    def forward(self, image: Tensor, extra: Tensor | None = None) -> Tensor:
        """Features ``(b, num_features)`` of ``(b, 3, h, w)``: uint8 pixels, or float optical densities."""
        if extra is not None:
            msg = f"backbone {self.spec!r} takes images only; use fusion 'gated', 'film' or 'add'."
            raise InputError(msg)
        return self._pooled(self.model(self._shown(image)))

    def _shown(self, image: Tensor) -> Tensor:
        """Scaled RGB of the size that the network wants."""
        # densities are -ln((value + 1) / 256)
        rgb = (torch.exp(-image) * 256 - 1) / 255 if image.is_floating_point() else image.float() / 255
        px = self.inputs.input_px
        if px is not None and rgb.shape[-2:] != (px, px):
            rgb = F.interpolate(rgb, (px, px), mode="bilinear", antialias=True)
        return (rgb - self.mean) / self.std

    def _pooled(self, answer: Any) -> Tensor:
        out = getattr(answer, "last_hidden_state", answer)
        if isinstance(out, Tensor) and out.ndim == 3:
            out = out[:, 0] if self.inputs.pool == "class" else out[:, self.inputs.n_prefix :].mean(dim=1)
        elif isinstance(out, Tensor) and out.ndim == 4:
            out = out.mean(dim=(2, 3))
        if not isinstance(out, Tensor) or out.ndim != 2:
            shape = f"of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            msg = f"backbone {self.spec!r} returned {shape}; wanted features (b, d), tokens (b, n, d) or maps (b, d, h, w)."
            raise InputError(msg)
        return out

    @torch.no_grad()
    def _width(self) -> int:
        """Width of the features of a white image."""
        px = self.inputs.input_px or TRIAL_PX
        return int(self(torch.full((1, 3, px, px), 255, dtype=torch.uint8)).shape[1])


class TableBackbone(nn.Module):
    """Stands for the network that made a table of features: takes them in place of an image.

    Parameters
    ----------
    key
        The table.
    num_features
        Its width.
    """

    takes_tokens = False
    um_per_px = None

    def __init__(self, key: str, num_features: int, spec: str) -> None:
        super().__init__()
        self.key, self.num_features, self.spec = key, num_features, spec

    def check(self, features: NDArray[Any], *, n_views: int = 1) -> None:
        """Raise :class:`InputError` unless these are features ``(n, num_features)`` float32, in one view."""
        if features.ndim != 2 or features.shape[1] != self.num_features or features.dtype != np.float32:
            msg = (
                f"this model learned from table {self.key!r} and wants its features (n, {self.num_features}) float32 in "
                f"place of images; got {tuple(features.shape)} of {features.dtype}."
            )
            raise InputError(msg)
        if n_views != 1:
            msg = f"`n_views={n_views}`: this model learned from table {self.key!r}, and features cannot be turned; use 1."
            raise InputError(msg)

    def forward(self, image: Tensor, extra: Tensor | None = None) -> Tensor:
        """The features ``(b, num_features)`` that were given."""
        return image
