"""Hash of what a run reads from the slides, by which it knows whether its finished parts still hold."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import issparse

from spatialsig import _keys
from spatialsig._hashing import array_hash, json_hash
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from spatialsig.slide.slides import Data, Slide


def run_hash(parameters: object) -> str:
    """Hash of parameters and of the version of this package."""
    return json_hash([version("spatialsig"), parameters])


def data_hash(
    data: Data, *, patches_key: str, signatures_key: str, use_rep: str | None, table_key: str | None
) -> list[str]:
    """Hash of every slide: patches and their folds, labels, embedding, and the counts of ``table_key``."""
    return [_slide_hash(slide, patches_key, signatures_key, use_rep, table_key) for slide in open_slides(data)]


def _slide_hash(slide: Slide, patches_key: str, signatures_key: str, use_rep: str | None, table_key: str | None) -> str:
    labels = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
    arrays = [np.asarray(labels.X), np.asarray(labels.obs[_keys.N_CELLS])]
    if use_rep is not None and use_rep in labels.obsm:
        arrays.append(np.asarray(labels.obsm[use_rep]))
    if table_key is not None:
        cells = slide.table(table_key)
        arrays += [cells.X.data, cells.X.indices] if issparse(cells.X) else [np.asarray(cells.X)]
        if _keys.HIGHLY_VARIABLE in cells.var:
            arrays.append(np.asarray(cells.var[_keys.HIGHLY_VARIABLE], bool))
    return json_hash([slide.patches(patches_key).content_hash, list(labels.var_names), array_hash(*arrays)])
