"""Preprocessing: from cells and images to patches ready for labels."""

from ._assign import assign_cells
from ._filter import filter_cells
from ._hvg import highly_variable_genes
from ._patches import make_patches
from ._split import split

__all__ = ["assign_cells", "filter_cells", "highly_variable_genes", "make_patches", "split"]
