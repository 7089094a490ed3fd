"""What pre-training on unlabelled H&E buys with few labelled slides: r on held-out slides, same training budget."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import machine

import spatialsig as sp
from spatialsig.nn.vit import ViTConfig

PREDICTED = {2: 0.03, 4: 0.02, 8: 0.0}  # gain in r that we expected before measuring


def cohort(directory: Path, *, n_slides: int, size_um: float) -> sp.Cohort:
    """Slides of one patient each; the last quarter is held out, the others train or stay unlabelled."""
    stores = {}
    for k in range(n_slides):
        sdata = sp.datasets.toy(seed=k, size_um=size_um, sample=f"S{k}", patient=f"P{k}")
        stores[f"S{k}"] = directory / f"S{k}.zarr"
        sp.io.write(sdata, stores[f"S{k}"])
    slides = sp.Cohort(stores)
    sp.pp.make_patches(slides, patch_px=64, um_per_px=1.0, stride_um=32.0)
    sp.pp.assign_cells(slides)
    sp.tl.score_cells(slides, "seed", test_fold=None)
    sp.tl.aggregate_patches(slides, min_cells=5, use_rep=None)
    return slides


def held_out_r(slides: sp.Cohort, names: list[str], model: sp.models.SignatureViT) -> float:
    """Mean correlation over signatures and slides."""
    rows = []
    test = sp.Cohort({name: slides.stores[name] for name in names})
    sp.tl.predict(test, model)
    for name in names:
        sdata = test[name]
        measured, predicted = sdata["signatures"].to_df(), sdata["signatures_pred"].to_df()
        rows.append(measured.corrwith(predicted).mean())
    return float(np.mean(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small slides, few epochs: only shows that it runs")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/pretraining.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sp.settings.progress = False
    n_slides, size_um, epochs, seeds = (4, 220, 1, (0,)) if options.quick else (16, 800, 12, (0, 1))
    size = (
        ViTConfig(dim=16, depth=1, heads=2, mlp_dim=32, stem=(8, 16), stem_blocks=(0, 0)) if options.quick else "tiny"
    )
    rows = []
    with tempfile.TemporaryDirectory() as where:
        slides = cohort(Path(where), n_slides=n_slides, size_um=size_um)
        names = list(slides.stores)
        test, rest = names[-n_slides // 4 :], names[: -n_slides // 4]
        unlabelled = sp.Cohort({name: slides.stores[name] for name in rest})
        for seed in seeds:
            pretrained = sp.tl.pretrain_vit(unlabelled, size=size, test_fold=None, max_epochs=epochs, seed=seed)
            for n in (2, 4, 8):
                if n > len(rest):
                    continue
                few = sp.Cohort({name: slides.stores[name] for name in rest[:n]})
                for start in (None, pretrained):
                    train = {"size": size, "test_fold": None, "use_rep": None, "max_epochs": epochs, "seed": seed}
                    model = sp.tl.train_vit(few, pretrained=start, **train)
                    r = held_out_r(slides, test, model)
                    rows.append({"labelled": n, "pretrained": start is not None, "seed": seed, "r": r})
    frame = pd.DataFrame(rows)
    means = frame.pivot_table(index="labelled", columns="pretrained", values="r", aggfunc="mean")
    means.columns = ["labels alone", "pre-trained"]
    means["gain"] = means["pre-trained"] - means["labels alone"]
    means["predicted gain"] = [PREDICTED[n] for n in means.index]
    print(means.round(3).to_string())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "mean": {str(n): row for n, row in means.to_dict("index").items()}, "rows": rows}
    options.json.write_text(json.dumps({"quick": options.quick} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
