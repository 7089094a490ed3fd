"""Predictions of any outside model, judged on the held-out patients of a cohort beside the controls of this package.

Floor 11: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide,
expression, inference, labels, evaluation, io, pl, pp, tl, atlas, datasets, maps, cohort, report.
"""

from .judge import Refereed, referee

__all__ = ["Refereed", "referee"]
