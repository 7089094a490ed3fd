"""Plots: signature maps over the H&E, agreement, training curves, methods against the ceiling.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ._alignment import alignment
    from ._attention import attention
    from ._calibration import calibration
    from ._compare import compare
    from ._coverage import coverage
    from ._gallery import gallery
    from ._history import history
    from ._ladder import ladder
    from ._napari import napari
    from ._patches import patches
    from ._power import power
    from ._scales import scales
    from ._scatter import scatter
    from ._vitessce import vitessce

    atlas: Callable[..., Path]

__all__ = [
    "alignment",
    "atlas",
    "attention",
    "calibration",
    "compare",
    "coverage",
    "gallery",
    "history",
    "ladder",
    "napari",
    "patches",
    "power",
    "scales",
    "scatter",
    "vitessce",
]

# plots made of functions of `io`, `pp` and `pl` lie above these rooms: name -> the room that holds it
ABOVE = {"atlas": "spatialsig.atlas"}

# matplotlib is loaded by the first plot, not by the first import
_of_this_room, _, _ = lazy_loader.attach(
    __name__, submod_attrs={f"_{name}": [name] for name in __all__ if name not in ABOVE}
)


def __getattr__(name: str) -> Any:
    return getattr(import_module(ABOVE[name]), name) if name in ABOVE else _of_this_room(name)


def __dir__() -> list[str]:
    return sorted(__all__)
