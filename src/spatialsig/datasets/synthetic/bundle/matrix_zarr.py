"""``cell_feature_matrix.zarr.zip`` of Atera: counts and cells as an AnnData Zarr (v2) in a stored zip.

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/bundle/write.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.tissue.expression import Counts

_CELL_COLUMNS = ("transcript_counts", "total_counts", "cell_area", "nucleus_area")


def write_matrix_zarr(path: Path, counts: Counts, cells: pd.DataFrame, cluster: NDArray[np.integer]) -> None:
    """Write counts of ``cells`` (see :func:`cell_table`) with their centroids in um and their ``cluster``."""
    obs = cells[list(_CELL_COLUMNS)].set_axis(pd.Index(cells["cell_id"], name="barcode"), axis="index")
    obs["centroid_column"], obs["centroid_row"] = cells["x_centroid"].to_numpy(), cells["y_centroid"].to_numpy()
    obs["leiden_res_1.0"] = pd.Categorical([str(number + 1) for number in cluster])
    var = pd.DataFrame(
        {"feature_id": counts.ids, "feature_type": counts.feature_types},
        index=pd.Index(counts.names, name="feature_name"),
    )
    table = ad.AnnData(counts.matrix.sorted_indices().astype(np.int32), obs=obs, var=var)
    with TemporaryDirectory() as folder:
        write_elem(zarr.create_group(folder, zarr_format=2), "/", table)
        pack(Path(folder), path)


def pack(folder: Path, path: Path) -> None:
    """Put the files of a folder into a zip as they are; the same bytes for the same files."""
    with zipfile.ZipFile(path, "w") as zipped:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            zipped.writestr(zipfile.ZipInfo(file.relative_to(folder).as_posix()), file.read_bytes())
