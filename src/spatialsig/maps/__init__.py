"""Predicted scores below the size of a patch: dense maps over the H&E, single cells.

Floor 8: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation, io, pl, pp, tl.
"""

from .evaluate_cells import evaluate_cells
from .predict_cells import predict_cells
from .signature_map import signature_map
from .train_cell_head import train_cell_head

__all__ = ["evaluate_cells", "predict_cells", "signature_map", "train_cell_head"]
