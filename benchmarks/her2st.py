"""Leave-one-patient-out on real breast tissue: learn from patient C, test on patient B, and the reverse.

Six sections of her2st (legacy Spatial Transcriptomics, spots of 100 um) come in through ``sp.io.from_anndata``; the rest
is the same pipeline as for Xenium. Prints Pearson r per signature beside nuclear density and the noise ceiling.

    python benchmarks/her2st.py [--normalize-stain] [--distil W] [--data DIR] [--out DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from machine import machine
from scipy import sparse
from scipy.spatial import cKDTree

import spatialsig as sp

HERE = Path(__file__).resolve().parent
SECTIONS = ("C2", "C3", "C4", "C5", "C6", "B4")
PITCH_UM = 200.0  # centre to centre distance of neighbouring spots
SPOT_UM = 100.0
METHODS = ("he_only", "fused", "ae_only", "colour", "density", "coordinates", "he_only_permuted", "fused_permuted")


def read_section(data: Path, name: str) -> tuple[ad.AnnData, float]:
    """Spots of one section with their positions in image pixels, and um per pixel."""
    counts = pd.read_csv(data / "counts" / f"{name}.tsv.gz", sep="\t", index_col=0)
    spots = pd.read_csv(data / "spotfiles" / f"{name}_selection.tsv", sep="\t")
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    both = counts.index.intersection(spots.index)
    adata = ad.AnnData(sparse.csr_matrix(counts.loc[both].to_numpy(np.float32)))
    adata.obs_names, adata.var_names = both, counts.columns
    adata.obsm["spatial"] = spots.loc[both, ["pixel_x", "pixel_y"]].to_numpy(np.float64)
    # the scale of the scans is not given, but spots sit on a grid of known pitch
    nearest = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], k=2)[0][:, 1]
    return adata, PITCH_UM / float(np.median(nearest))


def make_stores(data: Path, stores: Path) -> sp.Cohort:
    """One store per section."""
    for name in SECTIONS:
        adata, um_per_px = read_section(data, name)
        image = data / "images" / f"{name}.jpg"
        sdata = sp.io.from_anndata(adata, image, um_per_px=um_per_px, sample=name, patient=name[0], spot_um=SPOT_UM)
        sp.io.write(sdata, stores / f"{name}.zarr", overwrite=True)
    return sp.Cohort({name: stores / f"{name}.zarr" for name in SECTIONS})


def run_fold(cohort: sp.Cohort, test_fold: int, args: argparse.Namespace) -> pd.DataFrame:
    """Train without one patient and judge on that patient."""
    sp.pp.highly_variable_genes(cohort, n_top_genes=2000, test_fold=test_fold)
    autoencoder = sp.tl.train_autoencoder(cohort, signatures="seed", test_fold=test_fold, seed=args.seed)
    sp.tl.embed_cells(cohort, autoencoder)
    sp.tl.score_cells(cohort, "seed", test_fold=test_fold)
    sp.tl.aggregate_patches(cohort, min_cells=1)
    model = sp.tl.train_vit(cohort, test_fold=test_fold, seed=args.seed, max_epochs=args.epochs, distil=args.distil)
    return sp.tl.evaluate(cohort, model, seed=args.seed).assign(test_fold=test_fold)


def table(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Pearson r, methods by signatures, averaged over the held-out sections, with the ceiling as last row."""
    r = evaluation.pivot_table(index="method", columns="signature", values="pearson", sort=False)
    r = r.reindex([m for m in METHODS if m in r.index])
    r.loc["ceiling"] = evaluation[evaluation["method"] == "he_only"].groupby("signature")["ceiling"].mean()
    r.insert(0, "mean", r.mean(axis=1))
    return r


def main() -> None:
    """Run both directions and record the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "her2st")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "her2st")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "her2st.json")
    parser.add_argument("--normalize-stain", action="store_true", help="read every section in one stain")
    parser.add_argument("--distil", type=float, help="of train_vit; its default where none is given")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()
    cohort = make_stores(args.data, args.out / "stores")
    sp.pp.filter_cells(cohort)
    sp.pp.split(cohort, by="patient", n_folds=2)
    sp.pp.make_patches(cohort, around="table", patch_px=112, um_per_px=1.0)
    if args.normalize_stain:
        sp.pp.normalize_stain(cohort)
    sp.pp.assign_cells(cohort)
    evaluation = pd.concat([run_fold(cohort, fold, args) for fold in (0, 1)], ignore_index=True)
    seconds = time.perf_counter() - started

    result = {"seconds": round(seconds), "machine": machine(), "epochs": args.epochs, "one stain": args.normalize_stain}
    for patient, part in evaluation.groupby("patient"):
        print(f"\nlearned from the other patient, tested on patient {patient} ({part['sample'].nunique()} sections)")
        print(table(part).round(3).to_string())
        result[f"test_{patient}"] = table(part).round(4).to_dict("index")
    print("\nmean over both directions, patients weighing the same")
    both = (table(evaluation[evaluation.patient == "B"]) + table(evaluation[evaluation.patient == "C"])) / 2
    print(both.round(3).to_string())
    result["both"] = both.round(4).to_dict("index")
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{seconds:.0f} s; recorded in {args.json}")


if __name__ == "__main__":
    main()
