"""Gene signatures: built-in sets with their sources, and readers for GMT, CSV, JSON and YAML."""

from ._coverage import Coverage, coverage_table, measured_genes, overlap_matrix, weights
from ._genes import scored_genes, shared_genes
from ._read import builtin_names, read_signatures

__all__ = [
    "Coverage",
    "builtin_names",
    "coverage_table",
    "measured_genes",
    "overlap_matrix",
    "read_signatures",
    "scored_genes",
    "shared_genes",
    "weights",
]
