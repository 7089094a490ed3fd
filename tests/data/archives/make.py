"""Stores and models as a version of spatialsig wrote them, packed small, with what that version read and computed.

``v0.1`` was made by spatialsig 0.1.0 (commit e6b56a0) with Python 3.11, torch 2.13.0, spatialdata 0.7.3, zarr 3.1.6.
An archive is never made again: a later version must load it. A version that changes a format adds its own::

    python tests/data/archives/make.py tests/data/archives/v0.2

- ``slides.tar.xz``: ``A.zarr`` and ``B.zarr`` (toy slides with everything that ``pp`` and ``tl`` write), ``X.zarr`` (a
  Xenium bundle through the reader).
- ``models.tar.xz``: one directory per model, and ``run/``, the members of an ensemble with their manifest.
- ``expected.npz.xz``: ``stored/...`` what lies in them, ``computed/...`` what follows from them without a network,
  ``network/...`` what networks make of them.

Floating-point arrays are kept whole; pixels and weights as their SHA-256.
"""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from contents import ENSEMBLE, LABELS, SIGNATURES, SLIDES, Arrays, by_networks, computed, open_cohort, stored, unpack

import spatialsig as sp

TRAIN = {"max_epochs": 1, "batch_size": 8}


def make(archive: Path) -> None:
    """Write the three files of an archive."""
    warnings.simplefilter("ignore")  # tiny slides are warned about
    sp.settings.progress = False
    archive.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        slides, models = Path(scratch, "slides"), Path(scratch, "models")
        make_slides(slides, Path(scratch, "bundles"))
        make_models(slides, models)
        for folder in (slides, models):
            pack(folder, archive / f"{folder.name}.tar.xz")
    with tempfile.TemporaryDirectory() as scratch:
        slides, models = unpack(archive, Path(scratch))
        arrays = stored(slides, models) | by_networks(slides, models) | computed(slides)
    write_arrays(archive / "expected.npz.xz", arrays)


def make_slides(slides: Path, bundles: Path) -> None:
    """Two toy slides with patches, labels and an embedding still to come, and a Xenium bundle as it is read."""
    slides.mkdir()
    for seed, name in enumerate(SLIDES):
        toy = sp.datasets.toy(seed=seed, size_um=150, he_um_per_px=2.0, sample=name, patient=f"P{name}")
        toy["table"] = few_genes(toy["table"])
        sp.io.write(toy, slides / f"{name}.zarr", image_layout="speed" if name == "B" else "default")
    cohort = open_cohort(slides)
    sp.pp.split(cohort, n_folds=2)
    sp.pp.qc_alignment(cohort)
    sp.pp.find_tissue(cohort)
    sp.pp.filter_cells(cohort, min_counts=2, min_genes=2)
    sp.pp.normalize(cohort)
    sp.pp.highly_variable_genes(cohort, n_top_genes=40)
    sp.pp.make_patches(cohort, patch_px=24, um_per_px=2.0, stride_um=24.0, tissue_key="tissue")
    sp.pp.qc_patches(cohort)
    sp.pp.normalize_stain(cohort)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, SIGNATURES)
    recipe = {"n_slides": 1, "size_um": 60, "counts_per_cell": 30.0, "he_um_per_px": 1.0, "pixel_size_um": 0.5}
    sp.datasets.synthetic_xenium(bundles, **recipe)
    (bundle,) = (path for path in bundles.iterdir() if (path / "experiment.xenium").is_file())
    sp.io.read_xenium(bundle, morphology=True, boundaries=True, transcripts=True, out=slides / "X.zarr")


def few_genes(table: ad.AnnData) -> ad.AnnData:
    """The genes of the signatures and sixty others: an archive is to stay small."""
    scored = table.var_names.isin([gene for genes in SIGNATURES.values() for gene in genes])
    return table[:, scored | (np.arange(table.n_vars) < 60)].copy()


def make_models(slides: Path, models: Path) -> None:
    """Every kind of model, and on the slides what they write there."""
    from spatialsig.nn.vit import ViTConfig

    vit = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0))
    cohort, small = open_cohort(slides), {"hidden": (8,), "n_latent": 4, "max_epochs": 1, "signatures": SIGNATURES}
    autoencoder = sp.tl.train_autoencoder(cohort, **small)
    autoencoder.save(models / "autoencoder")
    plain_one = sp.tl.train_autoencoder(cohort, linear_path=False, **small)
    plain_one.save(models / "autoencoder_plain")
    sp.models.export_seed_autoencoder(plain_one, models / "seed_files")
    sp.tl.embed_cells(cohort, autoencoder)
    sp.tl.aggregate_patches(cohort, min_cells=3, **LABELS)
    pretrained = sp.tl.pretrain_vit(cohort, size=vit, **TRAIN)
    pretrained.save(models / "pretrained")
    sp.tl.embed_patches(cohort, pretrained)
    trained = {
        "vit": sp.tl.train_vit(cohort, size=vit, fusion="token", **TRAIN),
        "vit_gaussian": sp.tl.train_vit(cohort, size=vit, use_rep=None, loss="gaussian", **TRAIN),
        "vit_lora": sp.tl.train_vit(cohort, size=vit, use_rep=None, pretrained=pretrained, tune="lora", **TRAIN),
        "vit_table": sp.tl.train_vit(cohort, size=vit, use_rep=None, backbone="table:embedding", **TRAIN),
        "ensemble": sp.tl.train_ensemble(cohort, size=vit, use_rep=None, run_dir=models / "run", **ENSEMBLE),
    }
    sp.tl.calibrate(cohort, trained["ensemble"], fold=0, coverage=0.8)
    for name, model in trained.items():
        model.save(models / name)
    sp.tl.predict(cohort, trained["ensemble"])
    sp.tl.predict(cohort, trained["vit"], use_rep="X_ae", key_added="signatures_fused")
    sp.tl.attention(cohort, trained["vit"], patches=[0, 3])


def pack(folder: Path, archive: Path) -> None:
    """One compressed file with the contents of a folder; whose they are and when they were made is left out."""
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(folder.rglob("*")):
            member = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            with path.open("rb") if path.is_file() else open("/dev/null", "rb") as content:
                tar.addfile(member, content)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """One compressed file of arrays; many are equal, so that they are compressed together."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.write_bytes(lzma.compress(content.getvalue()))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
