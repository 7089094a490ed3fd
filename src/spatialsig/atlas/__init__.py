"""Slides in one page that zooms: the H&E below, measured and predicted scores over it.

Floor 8: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation, io, pl, pp, tl.
"""

from .page import atlas

__all__ = ["atlas"]
