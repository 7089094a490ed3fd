"""A small slide in memory, laid out as the readers of this package lay out a real one.

Floor 8, above io, pl, pp, tl. Called as sp.datasets.toy, sp.datasets.toy_model, sp.datasets.toy_study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Scale

from spatialsig import _keys as keys
from spatialsig import pp, tl
from spatialsig._arguments import Fraction, Key, Micrometres, NotNegative, Seed, UmPerPx, checked
from spatialsig.datasets.synthetic.bundle.cells import cell_table, make_cell_ids, segment
from spatialsig.datasets.synthetic.image.render import render_he
from spatialsig.datasets.synthetic.slide import Depth, Recipe, check_recipe, make_slide
from spatialsig.datasets.synthetic.truth import HE_PX, cell_scores, true_cells
from spatialsig.io._elements import slide_attrs
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.vit import ViTConfig

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataTree

    from spatialsig.datasets.synthetic.slide import SyntheticSlide

_CIRCLES = "cell_circles"
_CHUNK_PX = 256
_PYRAMID = 2  # levels below full resolution
_TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


@checked
def toy(
    *,
    seed: Seed = 0,
    size_um: Micrometres = 500.0,
    sample: Key = "toy",
    patient: Key = "P1",
    counts_per_cell: Depth = 150.0,
    image_signal: Fraction = 1.0,
    registration_error_um: NotNegative = 0.0,
    he_um_per_px: UmPerPx = 1.0,
    pixel_size_um: Micrometres = 0.2125,
) -> SpatialData:
    """Make one small synthetic slide, for examples and tests; nothing is written.

    Parameters
    ----------
    seed
        Seed of everything.
    size_um
        Side of the square tissue.
    sample, patient
        Names the slide carries.
    counts_per_cell, image_signal, registration_error_um, he_um_per_px, pixel_size_um
        As in :func:`synthetic_xenium`; the H&E is coarse by default, which keeps the call below a second.

    Returns
    -------
    SpatialData with

    - ``images["he_image"]``: ``(3, y, x)`` uint8, three scales, turned by about 90 degrees through an affine to
      ``global`` (morphology pixels).
    - ``tables["table"]``: raw counts of the genes (CSR float32); ``obsm["spatial"]`` um; ``obs``: ``cell_id``,
      ``sample``, ``patient``, ``region``, the count columns of Xenium; ``var["gene_ids"]``. The truth lies beside:
      ``obs["cell_type"]``, ``obs["programme"]``, ``obsm["true_scores"]`` (one column per signature),
      ``obsm["he_px"]`` (nucleus centres in H&E px).
    - ``shapes["cell_circles"]``: what the table annotates, um, scaled to ``global``.
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``.

    Raises
    ------
    InputError
        A number is out of range.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy(size_um=200)
    >>> sorted(name for _, name, _ in sdata.gen_elements())
    ['cell_circles', 'he_image', 'table']
    """
    recipe = Recipe(
        size_um=size_um, counts_per_cell=counts_per_cell, image_signal=image_signal,
        registration_error_um=registration_error_um, he_um_per_px=he_um_per_px, pixel_size_um=pixel_size_um,
    )  # fmt: skip
    check_recipe(recipe)
    slide = make_slide(recipe, seed=seed, index=0, sample=sample, patient=patient, patient_index=0)
    _, cell_ids = make_cell_ids(np.random.default_rng(slide.file_seed), len(slide.tissue.xy_um))
    cells = cell_table(slide, segment(slide.nuclei, slide.tissue.xy_um), cell_ids)
    return SpatialData(
        images={keys.IMAGE: _image(slide)},
        shapes={_CIRCLES: _circles(slide, cells)},
        tables={keys.TABLE: _table(slide, cells)},
        attrs=slide_attrs(sample=sample, patient=patient, um_per_global_px=pixel_size_um, source={}),
    )


@checked
def toy_study(*, seed: Seed = 0, predicted: bool = False, sample: Key = "toy", patient: Key = "P1") -> SpatialData:
    """Make a toy slide that is ready to train on, for examples and tests; nothing is written.

    Parameters
    ----------
    seed
        Seed of the slide.
    predicted
        Train :func:`toy_model` on it, and add its predictions.
    sample, patient
        Names the slide carries.

    Returns
    -------
    The slide of :func:`toy` after :func:`spatialsig.pp.split` (two folds), :func:`spatialsig.pp.make_patches` (81 patches
    of 28 px, 56 um), :func:`spatialsig.pp.assign_cells`, :func:`spatialsig.tl.score_cells` (signatures ``"seed"``) and
    :func:`spatialsig.tl.aggregate_patches`. It has, beside what :func:`toy` gives, ``shapes["patches"]``,
    ``tables["signatures"]`` and, with ``predicted``, ``tables["signatures_pred"]``.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> sorted(sdata.tables)
    ['signatures', 'signatures_pred', 'table']
    """
    sdata = toy(seed=seed, sample=sample, patient=patient)
    pp.split(sdata, by="block", n_folds=2, block_um=100, buffer_um=0)
    pp.make_patches(sdata, patch_px=28, um_per_px=2.0)
    pp.assign_cells(sdata)
    tl.score_cells(sdata, "seed")
    tl.aggregate_patches(sdata, min_cells=5, use_rep=None)
    if predicted:
        tl.predict(sdata, toy_model(sdata))
    return sdata


@checked
def toy_model(sdata: SpatialData) -> SignatureViT:
    """Train the smallest network for one epoch on a slide of :func:`toy_study`; what it predicts means nothing.

    Parameters
    ----------
    sdata
        Slide with patches and labels; not modified.

    Returns
    -------
    Model of the H&E alone; fold 0 is held out.

    Examples
    --------
    >>> import spatialsig as sp
    >>> model = sp.datasets.toy_model(sp.datasets.toy_study())
    >>> model.run["test_fold"]
    0
    """
    return tl.train_vit(sdata, use_rep=None, size=_TINY, max_epochs=1)


def _image(slide: SyntheticSlide) -> DataTree:
    pixels = render_he(slide.nuclei, slide.tissue, slide.frames, slide.stain, seed=slide.pixel_seed)
    affine = Affine(slide.frames.alignment, input_axes=("x", "y"), output_axes=("x", "y"))
    image: DataTree = Image2DModel.parse(
        np.ascontiguousarray(pixels.transpose(2, 0, 1)), dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        scale_factors=[2] * _PYRAMID, chunks=(3, _CHUNK_PX, _CHUNK_PX), transformations={keys.GLOBAL: affine},
    )  # fmt: skip
    return image


def _circles(slide: SyntheticSlide, cells: pd.DataFrame) -> GeoDataFrame:
    scale = 1 / slide.recipe.pixel_size_um
    return ShapesModel.parse(
        slide.tissue.xy_um, geometry=0, radius=np.sqrt(cells["cell_area"].to_numpy() / np.pi),
        index=pd.Index(cells["cell_id"]), transformations={keys.GLOBAL: Scale([scale, scale], axes=("x", "y"))},
    )  # fmt: skip


def _table(slide: SyntheticSlide, cells: pd.DataFrame) -> ad.AnnData:
    truth = true_cells(slide, list(cells["cell_id"]))
    measured = cells.drop(columns=["x_centroid", "y_centroid"]).set_index("cell_id", drop=False).rename_axis(None)
    obs = measured.join(truth.obs.drop(columns=keys.CELL_ID))
    obs[keys.REGION_KEY] = pd.Categorical([_CIRCLES] * len(obs))
    adata = ad.AnnData(
        X=slide.counts.matrix[:, : slide.counts.n_genes].astype(np.float32),
        obs=obs,
        var=truth.var,
        obsm={
            keys.SPATIAL: truth.obsm[keys.SPATIAL],
            HE_PX: truth.obsm[HE_PX],
            "true_scores": cell_scores(slide).set_index(obs.index),
        },
    )
    return TableModel.parse(adata, region=_CIRCLES, region_key=keys.REGION_KEY, instance_key=keys.CELL_ID)
