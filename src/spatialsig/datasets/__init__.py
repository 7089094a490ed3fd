"""Data with a known truth: whole synthetic Xenium bundles on disk, and toy slides in memory.

Floor 8: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation, io, pl, pp, tl.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._toy import toy, toy_model, toy_study
    from ._xenium import synthetic_xenium

__all__ = ["synthetic_xenium", "toy", "toy_model", "toy_study"]

# the generator pulls numba, tifffile and zarr: only for who asks
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={"_toy": ["toy", "toy_model", "toy_study"], "_xenium": ["synthetic_xenium"]}
)
