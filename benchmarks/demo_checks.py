"""What the demo's cohort, with its known truth, says of labels and embedding. Run after ``make demo``.

1. Labels against the truth: Pearson r over patches between ``tables["signatures"]`` and the same score of the noiseless
   rates, per slide and signature.
2. Autoencoder against PCA with the same number of components: mean squared error of reconstructed z-scores on the
   held-out slides, PCA fitted on the training slides.

3. With ``--figure FILE``: the maps of one signature on a held-out slide, as in the README.

    python benchmarks/demo_checks.py [--demo demo] [--figure docs/images/compare.webp]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

import spatialsig as sp

HERE = Path(__file__).resolve().parent


def zscores(counts: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Dense float64 z-scores of log1p(1e4 * x / library)."""
    x = np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9))
    return (x - mean) / std


def labels_against_truth(cohort: sp.Cohort, bundles: Path) -> pd.DataFrame:
    """Pearson r, slides by signatures."""
    rows = {}
    for sample in cohort.stores:
        sdata = cohort[sample]
        cells, labels = sdata["table"], sdata["signatures"]
        truth = ad.read_h5ad(bundles / f"{sample}_truth.h5ad")
        truth = truth[pd.Index(truth.obs["cell_id"]).get_indexer(cells.obs["cell_id"])]
        scored = labels.uns["spatialsig"]["score_cells"]
        rates = np.asarray(truth[:, list(scored["genes"])].X, np.float64)
        x = np.log1p(1e4 * rates / rates.sum(axis=1, keepdims=True))
        score = (x - x.mean(axis=0)) / x.std(axis=0) @ scored["weights"]
        member = cells.obsm["patch_membership"].astype(np.float64)
        expected = (member.T @ score) / np.maximum(np.asarray(member.sum(axis=0)).ravel()[:, None], 1)
        seen = np.isfinite(labels.X).all(axis=1)
        rows[sample] = [np.corrcoef(a, b)[0, 1] for a, b in zip(labels.X[seen].T, expected[seen].T, strict=True)]
    return pd.DataFrame(rows, index=list(labels.var_names)).T


def autoencoder_against_pca(cohort: sp.Cohort, model: sp.models.Autoencoder) -> dict[str, float]:
    """Held-out mean squared error of the z-scores: autoencoder, PCA, and the mean of the training cells."""
    z = {}
    for sample in cohort.stores:
        counts = cohort[sample]["table"][:, list(model.genes)].X.toarray().astype(np.float64)
        z[sample] = zscores(counts, np.asarray(model.mean, np.float64), np.asarray(model.std, np.float64))
    held_out = [s for s in cohort.stores if cohort[s].attrs["spatialsig"]["split"]["fold"] == model.run["test_fold"]]
    train = np.concatenate([values for sample, values in z.items() if sample not in held_out])
    pca = PCA(model.config.n_latent, random_state=0).fit(train)
    errors = {"autoencoder": [], "pca": [], "mean": []}
    for sample in held_out:
        truth = z[sample]
        ours = model.reconstruct(cohort[sample]["table"][:, list(model.genes)].X)
        theirs = pca.inverse_transform(pca.transform(truth))
        guesses = {"autoencoder": ours, "pca": theirs, "mean": train.mean(axis=0)}
        for name, guess in guesses.items():
            errors[name].append(float(((truth - guess) ** 2).mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def main() -> None:
    """Print and record both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=HERE.parent / "demo")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    demo, cohort = args.demo, sp.Cohort.open(args.demo / "stores")
    truth = labels_against_truth(cohort, demo / "bundles")
    print("labels against the truth, Pearson r")
    print(truth.round(4).to_string())
    print(f"mean {truth.to_numpy().mean():.4f}, least {truth.to_numpy().min():.4f}")
    errors = autoencoder_against_pca(cohort, sp.models.Autoencoder.load(demo / "models" / "autoencoder"))
    print("\nheld-out mean squared error of z-scores (same number of components)")
    for name, value in errors.items():
        print(f"  {name:12s} {value:.5f}")
    evaluation = pd.read_csv(demo / "evaluation.csv")
    r = evaluation.groupby("method")[["pearson", "share_of_ceiling"]].mean().sort_values("pearson", ascending=False)
    print("\nheld-out patients, mean over signatures and slides")
    print(r.round(4).to_string())
    if args.figure:
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        sp.pl.compare(cohort[evaluation["sample"].iloc[0]], "Proliferation", figure=Figure(), save=args.figure)
    result = {"labels_vs_truth": truth.round(4).to_dict("index"), "reconstruction_mse": errors}
    result["methods"] = r.round(4).to_dict("index")
    (HERE / "results" / "demo.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
