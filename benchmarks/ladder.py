"""The ladder: how much of what can be predicted is predicted, by number of slides, under other stain, without the AE.

    python benchmarks/ladder.py [--quick] [--parts curve stain fresh modality signal] [--slides 2 4 6] [--seeds 0 1 2]
                                [--um-per-px 0.7] [--out FOLDER] [--json FILE]

Eight synthetic slides of 2 mm, each of its own patient; two are held out in every part. A score is the mean over held-out
slides and signatures of Pearson r within the slide, divided by the noise ceiling of the slide. Patches of 112 µm are read at
.7 µm per pixel in one reference stain (``sp.pp.normalize_stain``), and their 8 turned and mirrored views are averaged;
``curve`` also tells what one view reaches.

- ``curve``: H&E alone, learned from 2, 4 and 6 slides, every seed; wall and CPU minutes of each training. Goals: >= .95 with
  6 slides in 30 minutes, >= .92 with 2.
- ``stain``: the models of ``curve`` with 6 slides on the same held-out tissue in another stain (``stain_sd=.3``). Goal:
  at most .03 lost.
- ``fresh``: the models of ``curve`` with 6 slides on four slides of a second cohort, by which no setting was chosen.
- ``modality``: learned from 2 slides, fused, as by default and without modality dropout and distillation: shown the
  embedding, and shown the H&E alone; beside the model of H&E alone and a ridge on the embedding. Goals: the fused model
  shown H&E alone within .02 of the model of H&E alone; at most .03 of the fused score lost by dropout and distillation;
  fused above either alone.
- ``signal``: the share of the tissue that shows in the image goes 1, .6, .3, 0. Goal: r falls to 0.

Every finished training is kept below ``--out`` and every row in ``--json``; neither is repeated: remove them to measure
anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from machine import machine

import spatialsig as sp
from spatialsig import _keys
from spatialsig.models import SignatureViT
from spatialsig.stats.agreement import pearson
from spatialsig.stats.baselines import ridge

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SIGNALS = (1.0, 0.6, 0.3, 0.0)
OTHER_STAIN = 0.3
FRESH_SEED = 1000
SIGNAL_EPOCHS = 12  # a sign shows early
N_VIEWS = 8
PATCH_UM = 112.0


@dataclass(frozen=True)
class Scale:
    """Size of the whole benchmark."""

    n_slides: int = 8
    size_um: float = 2000.0
    curve: tuple[int, ...] = (2, 4, 6)
    ae_epochs: int = 8
    um_per_px: float = 0.7
    options: tuple[tuple[str, Any], ...] = ()  # of train_vit; none: the defaults


QUICK = Scale(n_slides=4, size_um=450.0, curve=(1, 2), ae_epochs=1, options=(("max_epochs", 1),))


class Ladder:
    """Cohorts, trainings and scores of one run."""

    def __init__(self, out: Path, scale: Scale) -> None:
        self.out, self.scale = out, scale
        self.cohort = self.stores("plain")
        folds = {name: self.cohort[name].attrs["spatialsig"]["split"]["fold"] for name in self.cohort}
        self.test = [name for name in folds if folds[name] == 0]
        self.train = [name for name in folds if folds[name] != 0]
        self.ceiling = ceiling_of(self.cohort.subset(self.test))

    def stores(self, name: str, **knobs: Any) -> sp.Cohort:
        """Cohort of that name, with labels and embeddings; made once."""
        place = self.out / name
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            self._make(place, knobs)
            (place / "done").touch()
        return sp.Cohort.open(place / "stores")

    def _make(self, place: Path, knobs: dict[str, Any]) -> None:
        knobs = {"n_slides": self.scale.n_slides, "size_um": self.scale.size_um, "transcripts": False} | knobs
        sp.datasets.synthetic_xenium(place / "bundles", **knobs)
        cohort = sp.Cohort.from_bundles(place / "bundles" / "bundles.csv", place / "stores", overwrite=True)
        sp.pp.filter_cells(cohort)
        sp.pp.split(cohort, by="patient", n_folds=knobs["n_slides"] // 2)
        sp.pp.highly_variable_genes(cohort, n_top_genes=2000, test_fold=0)
        sp.tl.embed_cells(
            cohort, sp.tl.train_autoencoder(cohort, signatures="seed", test_fold=0, max_epochs=self.scale.ae_epochs)
        )
        sp.pp.make_patches(cohort, patch_um=PATCH_UM, um_per_px=self.scale.um_per_px, stride_um=PATCH_UM / 2)
        sp.pp.normalize_stain(cohort)
        sp.pp.assign_cells(cohort)
        sp.tl.score_cells(cohort, "seed", test_fold=0)
        sp.tl.aggregate_patches(cohort)
        shutil.rmtree(place / "bundles")

    def trained(self, name: str, cohort: sp.Cohort, n_slides: int, seed: int, **options: Any) -> SignatureViT:
        """Model of that name, learned from the first slides; trained once."""
        place = self.out / "models" / f"{name}-{n_slides}-{seed}"
        if not place.exists():
            started = time.perf_counter(), time.process_time()
            subset = cohort.subset([*self.train[:n_slides], *self.test])
            model = sp.tl.train_vit(subset, test_fold=0, seed=seed, **(dict(self.scale.options) | options))
            model.run["minutes"] = (time.perf_counter() - started[0]) / 60
            model.run["cpu_minutes"] = (time.process_time() - started[1]) / 60
            model.save(place, overwrite=True)
        return SignatureViT.load(place)

    def score(
        self, cohort: sp.Cohort, model: SignatureViT, *, use_rep: str | None = None, n_views: int = N_VIEWS
    ) -> float:
        """Share of the ceiling, mean over held-out slides and signatures."""
        return share(cohort.subset(self.test), model, self.ceiling, use_rep=use_rep, n_views=n_views)

    def embedding_alone(self, cohort: sp.Cohort, n_slides: int) -> float:
        """Ridge on the embedding of the patches of the first slides."""
        train = self.train[:n_slides]
        tables = {name: _labelled(cohort[name]) for name in [*train, *self.test]}
        features, targets = (np.concatenate([tables[n][k] for n in train]) for k in (1, 0))
        shares = [
            pearson(tables[name][0], ridge(features, targets, tables[name][1]))
            / _ceilings(self.ceiling, name, list(cohort[name][_keys.SIGNATURES].var_names))
            for name in self.test
        ]
        return float(np.nanmean(shares))


def ceiling_of(cohort: sp.Cohort) -> pd.Series:
    """Noise ceiling of slides, by sample and signature."""
    return sp.tl.noise_ceiling(cohort).set_index(["sample", "signature"])["ceiling"]


def share(
    cohort: sp.Cohort, model: SignatureViT, ceiling: pd.Series, *, use_rep: str | None = None, n_views: int = N_VIEWS
) -> float:
    """Share of the ceiling, mean over all slides and signatures."""
    sp.tl.predict(cohort, model, use_rep=use_rep, n_views=n_views)
    shares = [pearson(*_measured(cohort[name])) / _ceilings(ceiling, name, model.signatures) for name in cohort]
    return float(np.nanmean(shares))


def _ceilings(ceiling: pd.Series, sample: str, signatures: Any) -> np.ndarray:
    return ceiling[sample].reindex(list(signatures)).to_numpy()


def _measured(sdata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of the labelled patches."""
    labels, predicted = sdata[_keys.SIGNATURES], sdata[_keys.SIGNATURES_PRED]
    known = np.isfinite(labels.X).any(axis=1)
    return np.asarray(labels.X)[known], np.asarray(predicted.X)[known]


def _labelled(sdata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels and embeddings of the labelled patches."""
    table = sdata[_keys.SIGNATURES]
    known = np.isfinite(table.X).any(axis=1)
    return np.asarray(table.X)[known], np.asarray(table.obsm[_keys.X_AE])[known]


class Record:
    """The rows of every part, written as they are found: a run cut short loses none, and two may share the work."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def rows(self, part: str) -> list[dict[str, Any]]:
        return self.read().get(part, {}).get("runs", [])

    def add(self, part: str, row: dict[str, Any]) -> None:
        self.set(part, runs=[*self.rows(part), row])

    def set(self, part: str, **values: Any) -> None:
        found = self.read() | {"machine": machine()}
        found[part] = found.get(part, {}) | values
        self.path.write_text(json.dumps(found, indent=1) + "\n")


def curve(ladder: Ladder, slides: int, seed: int) -> dict[str, float]:
    model = ladder.trained("he", ladder.cohort, slides, seed, use_rep=None)
    return {
        "share": ladder.score(ladder.cohort, model),
        "share_one_view": ladder.score(ladder.cohort, model, n_views=1),
        "minutes": model.run["minutes"],
        "cpu_minutes": model.run["cpu_minutes"],
        "least_busy": min(model.run["history"]["busy"]),
    }


def stain(ladder: Ladder, slides: int, seed: int) -> dict[str, float]:
    other = ladder.stores("stain", stain_sd=OTHER_STAIN)
    model = ladder.trained("he", ladder.cohort, slides, seed, use_rep=None)
    same, shifted = ladder.score(ladder.cohort, model), ladder.score(other, model)
    return {"same": same, "other": shifted, "lost": same - shifted}


def fresh(ladder: Ladder, slides: int, seed: int) -> dict[str, float]:
    cohort = ladder.stores("fresh", seed=FRESH_SEED, n_slides=4)
    model = ladder.trained("he", ladder.cohort, slides, seed, use_rep=None)
    return {"share": share(cohort, model, ceiling_of(cohort))}


def modality(ladder: Ladder, slides: int, seed: int) -> dict[str, float]:
    """Of the embedding alone, of H&E alone, and of the fused model in its two modes."""
    cohort = ladder.cohort
    row = {
        "ae_only": ladder.embedding_alone(cohort, slides),
        "he_only": ladder.score(cohort, ladder.trained("he", cohort, slides, seed, use_rep=None)),
    }
    for name, options in (("default", {}), ("no_dropout", {"modality_dropout": 0.0})):
        model = ladder.trained(name, cohort, slides, seed, **options)
        row[f"{name}: fused"] = ladder.score(cohort, model, use_rep=_keys.X_AE)
        row[f"{name}: H&E only"] = ladder.score(cohort, model)
    row["lost without the embedding"] = row["he_only"] - row["default: H&E only"]
    row["lost by dropout"] = row["no_dropout: fused"] - row["default: fused"]
    return row


def signal(ladder: Ladder, slides: int, seed: int, shows: float) -> dict[str, float]:
    cohort = ladder.cohort if shows == 1 else ladder.stores(f"signal{shows:g}", image_signal=shows)
    options = {"max_epochs": SIGNAL_EPOCHS} | dict(ladder.scale.options)
    model = ladder.trained(f"signal{shows:g}", cohort, slides, seed, use_rep=None, **options)
    return {"share": ladder.score(cohort, model)}


def keys(part: str, slides: tuple[int, ...], seeds: list[int]) -> list[dict[str, Any]]:
    """What each row of a part is of. Models are compared where slides are few: there they differ by more than seeds do."""
    if part == "signal":
        return [{"slides": slides[0], "seed": seeds[0], "shows": shows} for shows in SIGNALS]
    chosen = {"curve": slides, "stain": slides[-1:], "fresh": slides[-1:], "modality": slides[:1]}[part]
    return [{"slides": n, "seed": seed} for n in chosen for seed in seeds]


def means(part: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds, by number of slides or by how much shows."""
    group = "shows" if part == "signal" else "slides"
    found = pd.DataFrame(rows).groupby(group).mean()
    return {f"{key:g}": row for key, row in found.to_dict("index").items()}


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "curve": curve,
    "stain": stain,
    "fresh": fresh,
    "modality": modality,
    "signal": signal,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--slides", nargs="+", type=int, help="numbers of training slides, instead of 2, 4 and 6")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--um-per-px", type=float, default=Scale.um_per_px, help="resolution at which patches are read")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "ladder")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "ladder.json")
    args = parser.parse_args()
    scale = replace(QUICK if args.quick else Scale(), um_per_px=args.um_per_px)
    ladder, record = Ladder(args.out, scale), Record(args.json)
    for part in args.parts:
        for key in keys(part, tuple(args.slides or scale.curve), args.seeds):
            if not any(key.items() <= row.items() for row in record.rows(part)):
                record.add(part, key | PARTS[part](ladder, **key))
                print(part, record.rows(part)[-1], flush=True)
        record.set(part, mean=means(part, record.rows(part)))


if __name__ == "__main__":
    main()
