"""Preprocessing: from cells and images to patches ready for labels.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from ._align_he import align_he
from ._assign import assign_cells
from ._filter import filter_cells
from ._find_nuclei import find_nuclei
from ._find_tissue import find_tissue
from ._hvg import highly_variable_genes
from ._import_patches import import_patches
from ._normalize import normalize
from ._normalize_stain import normalize_stain
from ._patches import make_patches
from ._qc_alignment import qc_alignment
from ._qc_patches import qc_patches
from ._split import split

__all__ = [
    "align_he",
    "assign_cells",
    "filter_cells",
    "find_nuclei",
    "find_tissue",
    "highly_variable_genes",
    "import_patches",
    "make_patches",
    "normalize",
    "normalize_stain",
    "qc_alignment",
    "qc_patches",
    "split",
]
