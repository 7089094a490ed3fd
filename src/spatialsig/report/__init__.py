"""One HTML file that says what was found, how far to trust it, and how it was made.

Floor 10: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide,
expression, inference, labels, evaluation, io, pl, pp, tl, atlas, datasets, maps, cohort.
"""

from .document import write_report

__all__ = ["write_report"]
