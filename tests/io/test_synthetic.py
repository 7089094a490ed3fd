"""Whole bundles with a planted truth, through the cohort and against the reader of spatialdata-io."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.geometry.affine import apply

SLIDES = ["S1", "S2", "S3", "S4"]  # turned by about 90, mirrored, -90 and 180 degrees


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        bundles = sp.datasets.synthetic_xenium(root, n_slides=4, size_um=300.0, transcripts=False)
        return root, bundles, sp.Cohort.from_bundles(root / "bundles.csv", root / "stores")


def test_the_manifest_becomes_a_cohort(made) -> None:
    _, bundles, cohort = made
    assert list(cohort) == bundles["sample"].tolist() == SLIDES
    assert cohort.obs["patient"].tolist() == bundles["patient"].tolist()
    assert cohort.failures == {}


@pytest.mark.parametrize("sample", SLIDES)
def test_cells_lie_on_their_planted_pixels(made, sample) -> None:
    root, _, cohort = made
    sdata, truth = cohort[sample], ad.read_h5ad(root / f"{sample}_truth.h5ad")
    truth = truth[pd.Index(truth.obs["cell_id"].astype(str)).get_indexer(sdata["table"].obs["cell_id"])]
    circles = sd.transform(sdata["cell_circles"], to_coordinate_system="global")
    to_he = get_transformation(sdata["he_image"]).inverse().to_affine_matrix(("x", "y"), ("x", "y"))
    he_px = apply(to_he, np.c_[circles.geometry.x, circles.geometry.y])
    np.testing.assert_allclose(he_px, truth.obsm["he_px"], atol=0.01)
    # the tissue agrees: nuclei are darker than what lies around them
    red = sdata["he_image"]["scale0"]["image"].values[0]
    x, y = np.clip(he_px.astype(int), 0, np.array(red.shape[::-1]) - 1).T
    assert red[y, x].mean() < red.mean() - 20


def test_the_reader_of_spatialdata_io_agrees(made) -> None:
    from spatialdata_io import xenium

    _, bundles, cohort = made
    off = ["cells_boundaries", "nucleus_boundaries", "cells_labels", "nucleus_labels", "transcripts"]
    off += ["morphology_mip", "morphology_focus"]
    peer = xenium(bundles["bundle"][1], cells_as_circles=True, **dict.fromkeys(off, False))
    ours = cohort["S2"]
    assert (ours["table"].X != peer["table"].X).nnz == 0
    assert ours["table"].var["gene_ids"].tolist() == peer["table"].var["gene_ids"].tolist()
    np.testing.assert_array_equal(ours["table"].obsm["spatial"], peer["table"].obsm["spatial"])
    np.testing.assert_allclose(ours["cell_circles"]["radius"], peer["cell_circles"]["radius"])
    image = peer["he_image"]
    theirs = image.data.compute() if isinstance(image, sd.models.models.DataArray) else image["scale0"]["image"].values
    np.testing.assert_array_equal(ours["he_image"]["scale0"]["image"].values, theirs)
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    one, two = (get_transformation(s["he_image"]).to_affine_matrix(**axes) for s in (ours, peer))
    np.testing.assert_allclose(one, two, rtol=1e-9)
