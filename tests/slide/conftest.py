"""Cohort of three small slides, and models for it."""

from pathlib import Path

import pytest

import spatialsig as sp

SAMPLES = ("A", "B", "C")


@pytest.fixture(scope="module")
def models() -> dict[str, object]:
    study = sp.datasets.toy_study()
    autoencoder = sp.tl.train_autoencoder(
        study, signatures="seed", n_latent=4, hidden=(8,), test_fold=None, max_epochs=1
    )
    return {"vit": sp.datasets.toy_model(study), "autoencoder": autoencoder}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    for seed, sample in enumerate(SAMPLES):
        slide = sp.datasets.toy_study(seed=seed)
        slide.attrs["spatialsig"] |= {"sample": sample, "patient": sample}
        slide["table"].obs["sample"] = sample
        sp.io.write(slide, root / f"{sample}.zarr")
    sp.tl.score_cells(sp.Cohort(root), "seed")
    sp.tl.aggregate_patches(sp.Cohort(root), use_rep=None)
    return root
