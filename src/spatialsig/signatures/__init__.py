"""Gene signatures: built-in sets with their sources, and readers for GMT, CSV, JSON and YAML.

Floor 1: may import the ground floor.
"""

from ._coverage import (
    Coverage,
    coverage_table,
    measured_genes,
    overlap_matrix,
    scored_genes,
    shared_genes,
    weights,
)
from ._names import describe_names, in_panel_names
from ._read import Genes, Source, builtin_names, read_signatures

__all__ = [
    "Coverage",
    "Genes",
    "Source",
    "builtin_names",
    "coverage_table",
    "describe_names",
    "in_panel_names",
    "measured_genes",
    "overlap_matrix",
    "read_signatures",
    "scored_genes",
    "shared_genes",
    "weights",
]
