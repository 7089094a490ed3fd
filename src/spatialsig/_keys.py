"""Names of elements, tables, columns and layers that several modules share (drawn in ``docs/store.md``).

Ground floor. Used by 132 modules of 19 rooms.
"""

from __future__ import annotations

# elements of a SpatialData object
IMAGE = "he_image"  # images: the H&E, (c, y, x) uint8 RGB, multi-scale
TABLE = "table"  # tables: one row per cell (or spot)
PATCHES = "patches"  # shapes: one square per row, in H&E pixels
CIRCLES = "cell_circles"  # shapes: one circle per cell, in µm
ATTENTION = "attention"  # images: where the scores of the patches come from, one channel per signature
SIGNATURE_MAP = "signature_map"  # images: predicted scores below the size of a patch, one channel per signature
TISSUE = "tissue"  # shapes: outlines of the tissue, in H&E pixels
NUCLEI = "nuclei"  # shapes: one circle per nucleus, in H&E pixels
CELLS_PRED = "cells_pred"  # tables: predicted scores, one row per cell
SIGNATURES = "signatures"  # tables: measured scores, one row per patch
SIGNATURES_PRED = "signatures_pred"  # tables: predicted scores, one row per patch
SIGNATURES_OUTSIDE = "signatures_outside"  # tables: scores that another model predicted, one row per patch

# coordinate system of every element (Xenium: morphology pixels at full resolution)
GLOBAL = "global"

# columns that link a table to its element
REGION_KEY = "region"
PATCH_ID = "patch_id"

# obs
SAMPLE = "sample"
PATIENT = "patient"
FOLD = "fold"  # int; -1 where no fold may use the row (buffer)
N_CELLS = "n_cells"
N_COUNTS = "n_counts"  # mean counts per cell of the patch
CELL_ID = "cell_id"

# columns of the patches
Y0 = "y0"
X0 = "x0"
ROW = "row"
COL = "col"
TISSUE_FRACTION = "tissue_fraction"
AREA_UM2 = "area_um2"  # of the outlines of the tissue
# ... and what pp.qc_patches finds
FOCUS = "focus"
WHITE_SHARE = "white_share"
PEN_SHARE = "pen_share"
FOLD_SHARE = "fold_share"
STAIN_OUTLIER = "stain_outlier"
QC_PASS = "qc_pass"

OOD = "ood"  # how far a predicted patch lies from those that the model learned from; above 1: outside
OOD_REASON = "ood_reason"  # what it differs in: stain, sharpness, tissue; empty within

# obsm
SPATIAL = "spatial"  # um, (n, 2) as x, y
X_AE = "X_ae"  # autoencoder embedding, (n, n_latent) float32
CELL_SIGNATURES = (
    "signatures"  # cell scores, (n_cells, n_signatures) float32; names in uns["spatialsig"]["score_cells"]
)
MEMBERSHIP = "patch_membership"  # CSR (n_cells, n_patches) of 0/1: which patches hold the cell

# layers and var
SEM = "sem"
STD = "std"  # of a prediction, where the model knows it
LOWER = "lower"  # ends of the interval of a prediction, after tl.calibrate
UPPER = "upper"
HIGHLY_VARIABLE = "highly_variable"
N_GENES_PANEL = "n_genes_panel"
N_GENES_MEASURED = "n_genes_measured"

# one dictionary of parameters per table (uns) and per object (attrs)
NAMESPACE = "spatialsig"
FILE_UM_PER_PX = "file_um_per_px"  # attrs: image -> edges of its px, x and y, as the file it was read from states them

# between a table and an entry of its obsm, where one argument names both
ENTRY = "/"


def entry(table_key: str, obsm_key: str) -> str:
    """Name of an entry of a table's obsm: ``"signatures/X_ae"``."""
    return f"{table_key}{ENTRY}{obsm_key}"
