"""Patients that were held out, predicted from their image files alone: r is what the evaluation of the H&E-only mode says."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import spatialsig as sp
from spatialsig.stats.agreement import pearson

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::spatialsig.errors.SpatialsigWarning")
def test_six_patients_train_and_two_are_predicted_from_their_files(
    tmp_path: Path, pyramid: Callable[..., Path]
) -> None:
    bundles = sp.datasets.synthetic_xenium(tmp_path / "bundles", n_slides=8, size_um=300.0, seed=7, transcripts=False)
    cohort = sp.Cohort.from_bundles(tmp_path / "bundles" / "bundles.csv", tmp_path / "stores")
    sp.pp.split(cohort, by="patient", n_folds=4)
    sp.pp.find_tissue(cohort)
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    sp.pp.normalize_stain(cohort)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed")
    genes = sp.tl.train_autoencoder(cohort, signatures="seed", max_epochs=1, hidden=(8,), n_latent=4)
    sp.tl.embed_cells(cohort, genes)
    sp.tl.aggregate_patches(cohort, min_cells=3)
    model = sp.tl.train_vit(cohort, size=TINY, max_epochs=2, test_fold=0)  # image and expression
    judged = sp.tl.evaluate(cohort, model)
    judged = judged[judged["method"] == "he_only"].set_index(["sample", "signature"])["pearson"]
    held_out = [name for name in cohort if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0]
    assert len(held_out) == 2
    assert judged.index.get_level_values(0).unique().tolist() == held_out
    files = bundles.set_index("sample")["he_image"]
    for sample in held_out:
        image = cohort[sample]["he_image"]
        levels = [level["image"].transpose("y", "x", "c").to_numpy() for level in image.children.values()]
        scans = tmp_path / "scans"
        scans.mkdir(exist_ok=True)
        um = sp.io.mpp(cohort[sample])
        forms = {
            "OME-TIFF": shutil.copy(files[sample], scans / f"{sample}.ome.tif"),
            "store": cohort.stores[sample],
            "SVS": pyramid(scans / f"{sample}.svs", levels, um_per_px=um),
        }
        labels = cohort[sample]["signatures"]
        for form, path in forms.items():
            out = tmp_path / "out" / form
            (name,) = sp.tl.predict_files(model, path, out, formats=["h5ad"])["sample"]
            table = ad.read_h5ad(out / name / f"{name}.h5ad")
            assert table.n_obs == labels.n_obs
            r = pearson(np.asarray(labels.X, np.float64), np.asarray(table.X, np.float64))
            np.testing.assert_allclose(r, judged[sample][list(labels.var_names)], atol=1e-6, err_msg=f"{sample} {form}")
