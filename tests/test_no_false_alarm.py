"""Objects that other packages make, as they leave them, and the demo's own: no step has anything to warn of.

Every :class:`SpatialsigWarning` is an error here, as in all tests (``pyproject.toml``). Right on such data, and asked for in
their own tests: that a cohort has too few patients to split, that a few cells without a position are left out, that a column
had to be renamed, and that the px of a file and of its alignment differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import spatialdata_io
from scipy import sparse

import spatialsig as sp

HER2ST = Path(__file__).parents[2] / "shared" / "data" / "her2st"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = sp.datasets.synthetic_xenium(tmp_path_factory.mktemp("bundle"), n_slides=1, size_um=300.0)
    return Path(manifest["bundle"][0])


def of_spatialdata_io(bundle: Path) -> sd.SpatialData:
    return spatialdata_io.xenium(bundle, cells_as_circles=True)


def of_ours(bundle: Path) -> sd.SpatialData:
    return sp.io.read_xenium(bundle)


def of_squidpy(bundle: Path) -> sd.SpatialData:
    """A table as ``sq.read.visium`` leaves it (places in px in ``obsm``, scale factors in ``uns``), with its scan."""
    plain = sp.io.read_xenium(bundle)
    pixels = np.moveaxis(plain["he_image"]["scale0"]["image"].to_numpy(), 0, 2)
    height, width = pixels.shape[:2]
    rng = np.random.default_rng(0)
    cells = plain["table"]
    adata = ad.AnnData(sparse.csr_matrix(cells.X), var=cells.var[[]])
    adata.obs = pd.DataFrame(
        {"in_tissue": 1, "array_row": 0, "array_col": 0}, index=[f"AAAC{i}-1" for i in range(adata.n_obs)]
    )
    adata.obsm["spatial"] = rng.uniform(0, [width, height], (adata.n_obs, 2))
    scales = {"spot_diameter_fullres": 20.0, "tissue_hires_scalef": 0.2, "fiducial_diameter_fullres": 30.0}
    images = {"hires": pixels[::5, ::5] / 255}
    adata.uns["spatial"] = {
        "V1": {"images": images, "scalefactors": scales, "metadata": {"chemistry_description": "v1"}}
    }
    return sp.io.from_anndata(adata, pixels, um_per_px=sp.io.mpp(plain))


@pytest.mark.parametrize(
    "make",
    [
        of_spatialdata_io,
        pytest.param(of_ours, marks=pytest.mark.slow),
        pytest.param(of_squidpy, marks=pytest.mark.slow),
    ],
)
def test_steps_on_objects_of_others_warn_of_nothing(
    bundle: Path, tmp_path: Path, make: Callable[[Path], sd.SpatialData]
) -> None:
    sdata = make(bundle)
    path = tmp_path / "a.zarr"
    sp.io.write(sdata, path)
    for data in (sdata, path):
        sp.pp.filter_cells(data)
        sp.pp.split(data, by="block", block_um=100, buffer_um=0, n_folds=2)
        sp.pp.find_tissue(data)
        sp.pp.make_patches(data, patch_px=56, um_per_px=1.0)
        sp.pp.normalize_stain(data)
        sp.pp.qc_patches(data)
        sp.pp.assign_cells(data)
        sp.tl.score_cells(data, "seed")
        sp.pp.normalize(data)
        sp.pp.highly_variable_genes(data, n_top_genes=50)
        sp.tl.aggregate_patches(data, min_cells=5, use_rep=None)
        assert set(sp.io.status(data)["state"]) == {"fresh"}
    assert set(sp.io.verify(path)["status"]) == {"ok"}


@pytest.mark.real
def test_steps_on_real_sections_warn_of_nothing(tmp_path: Path) -> None:
    if not HER2ST.exists():
        pytest.skip("real data her2st is not beside the checkout")
    stores = {}
    for name in ("B4", "C2"):
        counts = pd.read_csv(HER2ST / "counts" / f"{name}.tsv.gz", sep="\t", index_col=0)
        spots = pd.read_csv(HER2ST / "spotfiles" / f"{name}_selection.tsv", sep="\t")
        spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
        both = counts.index.intersection(spots.index)
        adata = ad.AnnData(
            sparse.csr_matrix(counts.loc[both]), obs=spots.loc[both], var=pd.DataFrame(index=counts.columns)
        )
        image = HER2ST / "images" / f"{name}.jpg"
        options = {"spatial_key": ("pixel_x", "pixel_y"), "um_per_px": 0.7, "spot_um": 100.0, "patient": name[0]}
        sp.io.from_anndata(adata, image, sample=name, out=tmp_path / f"{name}.zarr", **options)
        stores[name] = tmp_path / f"{name}.zarr"
    cohort = sp.Cohort(stores)
    sp.pp.filter_cells(cohort)
    sp.pp.split(cohort, by="patient", n_folds=2)
    sp.pp.make_patches(cohort, around="table", patch_px=112, um_per_px=1.0)
    sp.pp.normalize_stain(cohort)
    sp.pp.assign_cells(cohort)
    sp.pp.normalize(cohort)
    sp.tl.score_cells(cohort, "seed")
    sp.tl.aggregate_patches(cohort, min_cells=1, use_rep=None)
    assert set(sp.io.status(cohort)["state"]) == {"fresh"}
