"""What the embedding is worth: cell types found again, and held-out slides rebuilt, beside PCA-32 and scVI.

    python benchmarks/biology.py [--data DIR] [--json FILE] [--quick]

1. Synthetic cohort with known cell types (patients differ in mixture and in depth): everything is fitted on three
   patients and judged on the fourth, once as it is and once with half and a tenth of its molecules (a patient whose
   tissue was worse). Cell types by 15 nearest neighbours among the training cells, and adjusted Rand index of k-means
   against the truth. Autoencoders of z-scores (the default) and of counts (negative binomial).
2. Real tissue: mean squared error of the z-scores of held-out cells, autoencoder against PCA of equal width: a Xenium
   breast crop (cells held out) and her2st (30 sections, each patient held out in turn).

Written down before: the autoencoder starts as that very PCA and may only improve the training loss, so it should rebuild
held-out slides at least as well unless it overfits; with few spots (her2st) the gain is small.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

import spatialsig as sp
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.stats.cell_rows import zscore_rows
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train import fit_autoencoder

HERE = Path(__file__).resolve().parent
N_LATENT, EPOCHS, N_GENES = 32, 20, 2000


def zscores(counts: sparse.csr_matrix, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return zscore_rows(counts, np.arange(counts.shape[0]), library_size(counts), mean, std)


def scaler(slides: list[sparse.csr_matrix]) -> tuple[np.ndarray, np.ndarray]:
    sums = [gene_moments(counts, library_size(counts)) for counts in slides]
    total, squares = (np.sum(part, axis=0) for part in zip(*sums, strict=True))
    return scaler_from_moments(total, squares, sum(counts.shape[0] for counts in slides))


def rebuilt(train: list[sparse.csr_matrix], test: sparse.csr_matrix, epochs: int) -> dict[str, float]:
    """Error on held-out cells of the autoencoder, of a PCA of equal width, and of the training mean."""
    mean, std = scaler(train)
    genes = [f"G{i}" for i in range(test.shape[1])]
    model, _ = fit_autoencoder(train, genes=genes, mean=mean, std=std, max_epochs=epochs)
    z, held_out = np.concatenate([zscores(c, mean, std) for c in train]), zscores(test, mean, std)
    pca = PCA(N_LATENT, random_state=0).fit(z)
    error = float(((held_out - pca.inverse_transform(pca.transform(held_out))) ** 2).mean())
    return {
        "autoencoder": model.get_reconstruction_error(test),
        "pca": error,
        "training_mean": float((held_out**2).mean()),
    }


def thinned(counts: sparse.csr_matrix, share: float) -> sparse.csr_matrix:
    """The same cells with that share of their molecules."""
    kept = np.random.default_rng(0).binomial(counts.data.astype(np.int64), share).astype(np.float32)
    found = sparse.csr_matrix((kept, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    found.eliminate_zeros()  # in place
    return found


def latents(train: list[sparse.csr_matrix], tests: list[sparse.csr_matrix], epochs: int) -> dict[str, tuple]:
    """Embeddings of training and held-out cells by each way."""
    mean, std = scaler(train)
    genes = [f"G{i}" for i in range(train[0].shape[1])]
    found = {}
    for name, loss in (("autoencoder", "mse"), ("autoencoder of counts", "nb")):
        shape = AutoencoderConfig(loss=loss)
        model, _ = fit_autoencoder(train, genes=genes, mean=mean, std=std, max_epochs=epochs, config=shape)
        embed = model.get_latent_representation
        found[name] = (np.concatenate([embed(c) for c in train]), [embed(c) for c in tests])
    pca = PCA(N_LATENT, random_state=0).fit(np.concatenate([zscores(c, mean, std) for c in train]))
    found["pca"] = (
        np.concatenate([pca.transform(zscores(c, mean, std)) for c in train]),
        [pca.transform(zscores(c, mean, std)) for c in tests],
    )
    try:
        from scvi.model import SCVI
    except ImportError:
        return found
    joined = ad.AnnData(sparse.vstack(train).tocsr())
    joined.obs["slide"] = np.repeat([f"S{i}" for i in range(len(train))], [c.shape[0] for c in train])
    SCVI.setup_anndata(joined)
    vae = SCVI(joined, n_latent=N_LATENT, n_layers=2, n_hidden=256)
    vae.train(max_epochs=epochs, batch_size=512, accelerator="cpu", enable_progress_bar=False)
    held_out = [vae.get_latent_representation(ad.AnnData(c)) for c in tests]
    found["scvi"] = (vae.get_latent_representation(), held_out)
    return found


def synthetic(*, quick: bool) -> dict[str, object]:
    """Cell types of a held-out patient."""
    with tempfile.TemporaryDirectory() as folder:
        size_um = 500 if quick else 1200
        manifest = sp.datasets.synthetic_xenium(folder, n_slides=4, seed=11, size_um=size_um, transcripts=False)
        counts, types = [], []
        for sample, bundle in zip(manifest["sample"], manifest["bundle"], strict=True):
            table = sp.io.read_xenium(bundle)["table"]
            truth = ad.read_h5ad(Path(folder) / f"{sample}_truth.h5ad").obs.set_index("cell_id")["cell_type"]
            counts.append(table.X)
            types.append(truth.loc[table.obs["cell_id"].astype(str)].astype(str).to_numpy())
    result: dict[str, object] = {"cells": [c.shape[0] for c in counts]}
    epochs = 3 if quick else EPOCHS
    depths = {"": 1.0, ", half the molecules": 0.5, ", a tenth": 0.1}
    tests = [thinned(counts[3], share) for share in depths.values()]
    for name, (train, held_out) in latents(counts[:3], tests, epochs).items():
        scale = train.std(axis=0) if name == "scvi" else 1.0
        neighbours = KNeighborsClassifier(15).fit(train / scale, np.concatenate(types[:3]))
        for depth, test in zip(depths, held_out, strict=True):
            clusters = KMeans(len(set(types[3])), n_init=10, random_state=0).fit_predict(test / scale)
            result[name + depth] = {
                "knn_accuracy": float(neighbours.score(test / scale, types[3])),
                "ari": float(adjusted_rand_score(types[3], clusters)),
            }
    result["error"] = {
        depth or "as it is": rebuilt(counts[:3], c, epochs) for depth, c in zip(depths, tests, strict=True)
    }
    return result


def crop(data: Path, epochs: int) -> dict[str, float] | None:
    """A Xenium breast crop: 30 % of the cells held out."""
    file = data / "xenium_breast_crop_ghist" / "expr_mat_breast_demo.csv"
    if not file.exists():
        return None
    dense = pd.read_csv(file, index_col=0).drop(columns="cell_id").to_numpy(np.float32)
    order = np.random.default_rng(0).permutation(len(dense))
    cut = int(0.7 * len(dense))
    train, test = (sparse.csr_matrix(dense[part]) for part in (order[:cut], order[cut:]))
    return {"cells": len(dense), "genes": dense.shape[1], **rebuilt([train], test, epochs)}


def her2st(data: Path, epochs: int, *, quick: bool) -> dict[str, object]:
    """All sections, each patient held out in turn (one of them when quick), genes by the training patients."""
    tables = {f.name.split(".")[0]: pd.read_csv(f, sep="\t", index_col=0) for f in sorted(data.glob("her2st/counts/*"))}
    shared = sorted(set.intersection(*(set(t.columns) for t in tables.values())))
    counts = {name: sparse.csr_matrix(t[shared].to_numpy(np.float32)) for name, t in tables.items()}
    result: dict[str, object] = {"sections": len(counts)}
    patients = sorted({name[0] for name in counts})
    for patient in patients[:1] if quick else patients:
        train = [c for name, c in counts.items() if name[0] != patient]
        test = sparse.vstack([c for name, c in counts.items() if name[0] == patient], format="csr")
        mean, std = scaler(train)
        del mean
        genes = np.sort(np.argsort(-std)[:N_GENES])
        result[patient] = rebuilt([c[:, genes] for c in train], test[:, genes], epochs)
    errors = [r for r in result.values() if isinstance(r, dict)]
    result["patients"] = len(errors)
    result["patients_better_than_pca"] = sum(r["autoencoder"] < r["pca"] for r in errors)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "biology.json")
    arguments = parser.parse_args()
    sp.settings.progress = False
    epochs = 2 if arguments.quick else EPOCHS
    result: dict[str, object] = {"epochs": epochs, "synthetic": synthetic(quick=arguments.quick)}
    if arguments.data.is_dir():
        result["breast_crop"] = crop(arguments.data, epochs)
        result["her2st"] = her2st(arguments.data, epochs, quick=arguments.quick)
    print(json.dumps(result, indent=2))
    if not arguments.quick:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
