"""Elements that every reader returns: the image, the table of cells and the circles it annotates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata import SpatialData, read_zarr
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Scale

from spatialsig import _keys
from spatialsig.io.images.lazy import lazy_image
from spatialsig.store.commit import create_store
from spatialsig.store.pixels.stream import StreamedImage

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.io.images.rgb import RgbFile

DEFAULT_RADIUS_UM = 5.0


def cell_table(
    counts: sparse.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame, xy_um: NDArray[np.float64], *, info: dict[str, Any]
) -> ad.AnnData:
    """Table of cells that annotates the circles of the cells.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)`` raw counts.
    obs
        One row per cell with a column ``cell_id`` (str), which also becomes the index.
    var
        One row per gene.
    xy_um
        ``(n_cells, 2)`` centres, um.
    info
        What the reader did; goes to ``uns["spatialsig"]``.
    """
    obs = obs.set_index(pd.Index(obs[_keys.CELL_ID].to_numpy(object)))
    obs[_keys.REGION_KEY] = pd.Categorical([_keys.CIRCLES] * len(obs))
    table = ad.AnnData(counts.tocsr().astype(np.float32), obs=obs, var=var)
    table.obsm[_keys.SPATIAL] = np.ascontiguousarray(xy_um, dtype=np.float64)
    table.uns[_keys.NAMESPACE] = info
    return TableModel.parse(table, region=_keys.CIRCLES, region_key=_keys.REGION_KEY, instance_key=_keys.CELL_ID)


def cell_circles(
    xy_um: NDArray[np.float64], radius_um: NDArray[np.float64], index: pd.Index, *, um_per_global_px: float
) -> GeoDataFrame:
    """Circles in um, ``(n_cells,)``, scaled to ``global``; the index equals the instance column of the table."""
    return ShapesModel.parse(
        np.ascontiguousarray(xy_um, dtype=np.float64),
        geometry=0,
        radius=radius_um,
        index=index,
        transformations={_keys.GLOBAL: Scale([1 / um_per_global_px] * 2, axes=("x", "y"))},
    )


def slide_attrs(*, sample: str, patient: str, um_per_global_px: float, source: dict[str, Any]) -> dict[str, Any]:
    """Attributes of an object: whose slide it is, how long a unit of ``global`` is, and the files it was read from."""
    attrs = {_keys.SAMPLE: sample, _keys.PATIENT: patient, "um_per_global_px": um_per_global_px, "source": source}
    return {_keys.NAMESPACE: attrs}


def assemble(
    elements: dict[str, Any],
    file: RgbFile | None,
    to_global: dict[str, Any],
    *,
    attrs: dict[str, Any],
    image_key: str,
    out: str | Path | None,
    overwrite: bool,
) -> SpatialData:
    """Object in memory with a lazy image, or (``out``) a store with a streamed one, read back."""
    if out is None:
        lazy = {} if file is None else {image_key: lazy_image(file, to_global)}
        return SpatialData.init_from_elements(elements | lazy, attrs=attrs)
    streamed = {} if file is None else {image_key: StreamedImage(file.pixels, to_global)}
    sdata = SpatialData.init_from_elements(elements, attrs=attrs)
    try:
        create_store(out, sdata, images=streamed, overwrite=overwrite)
    finally:
        if file is not None:
            file.close()
    return read_zarr(out)


def labelled(obs: pd.DataFrame, *, sample: str, patient: str) -> pd.DataFrame:
    """Copy of ``obs`` with the categorical columns ``sample`` and ``patient``."""
    return obs.assign(
        **{_keys.SAMPLE: pd.Categorical([sample] * len(obs)), _keys.PATIENT: pd.Categorical([patient] * len(obs))}
    )
