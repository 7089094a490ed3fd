"""Plots: signature maps over the H&E, agreement, training curves, methods against the ceiling.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
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
    from ._scatter import scatter

__all__ = [
    "alignment",
    "attention",
    "calibration",
    "compare",
    "coverage",
    "gallery",
    "history",
    "ladder",
    "napari",
    "patches",
    "scatter",
]

# matplotlib is loaded by the first plot, not by the first import
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={f"_{name}": [name] for name in __all__})
