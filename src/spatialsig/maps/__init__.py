"""Predicted scores below the size of a patch: dense maps over the H&E.

Floor 8: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation, io, pl, pp, tl.
"""

from .signature_map import signature_map

__all__ = ["signature_map"]
