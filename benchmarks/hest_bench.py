"""HEST-Bench: 50 genes from H&E patches by the features of a frozen encoder, by its own protocol and with a tuned penalty.

    python benchmarks/hest_bench.py DATA --encoder transformers:weights/uni2-h [--tasks IDC PRAD] [--cache DIR] [--json PATH]
    python benchmarks/hest_bench.py DATA --embeddings ST_data_emb [--encoder-name uni_v2]
    python benchmarks/hest_bench.py --quick

``DATA`` holds one folder per task, as the benchmark is published (https://huggingface.co/datasets/MahmoodLab/hest-bench):
``splits/train_k.csv`` and ``test_k.csv`` (``sample_id``, ``patches_path``, ``expr_path``), ``patches/ID.h5`` (``img``,
``coords``, ``barcode``), ``adata/ID.h5ad`` (counts), ``var_50genes.json``. Features are computed by any encoder that
``sp.nn.backbones.build_backbone`` builds, or read from ``DIR/TASK/ID.h5`` or ``DIR/TASK/NAME/ID.h5`` (``embeddings``,
``barcodes``), as HEST-Bench itself writes them; ``--cache`` writes what was computed in that form.

Two protocols, on log1p of the counts (not divided by the sum of a spot), Pearson r within a test split, mean over genes,
splits, tasks:

- ``fixed``, that of HEST-Bench (https://github.com/mahmoodlab/HEST, ``bench/trainer.py``): standardised features, 256 principal
  components (seed 1), in float32; ``Ridge(alpha=100 / (components * genes), fit_intercept=False, solver="lsqr")``;
- ``tuned``: the same components, the penalty of every gene chosen on the training patients held out in turn, as
  ``sp.tl.train_probe`` does it. The patients are those of ``--metadata`` (columns ``id``, ``patient``; ``HEST_v1_1_0.csv``),
  else every sample counts as one; a single one is cut into blocks of neighbouring patches.

Published means over the nine tasks, to compare with: fixed penalty H-optimus-1 .423, UNI2-h .414, ResNet50 .325; tuned penalty
UNI2-h about .434. The penalty is worth more than what lies between the last two generations of encoders.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import torch
from machine import keep_record, machine, record_options
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spatialsig.errors import FileMissingError, InputError
from spatialsig.inference.linear_probe import choose_linear_probe, chosen_settings, fit_linear_probe
from spatialsig.inference.stacking import blocks
from spatialsig.nn.backbones import build_backbone
from spatialsig.nn.device import fast_matmul, on_device
from spatialsig.stats.agreement import pearson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Features = Callable[[str, str, Path], tuple[NDArray[np.float32], list[str]]]  # task, sample, its file of patches

COMPONENTS, SEED, BATCH = 256, 1, 64
N_BLOCKS = 8  # of a single training sample
PUBLISHED = {"fixed": {"H-optimus-1": 0.423, "UNI2-h": 0.414, "ResNet50": 0.325}, "tuned": {"UNI2-h": 0.434}}


@dataclass(frozen=True)
class Part:
    """Training or test patches of a split."""

    features: NDArray[np.float32]  # (n, d)
    genes: NDArray[np.float64]  # (n, 50), log1p of counts
    sample: NDArray[np.str_]  # (n,)
    centres: NDArray[np.float64]  # (n, 2), px


def splits_of(task: Path) -> list[tuple[Path, Path]]:
    """Training and test file of every split, in their order."""
    n = len(list((task / "splits").glob("train_*.csv")))
    pairs = [(task / "splits" / f"train_{k}.csv", task / "splits" / f"test_{k}.csv") for k in range(n)]
    missing = [str(path) for pair in pairs for path in pair if not path.is_file()]
    if missing or not pairs:
        msg = f"{task} is no task of HEST-Bench: wanted `splits/train_k.csv` and `test_k.csv` for k from 0; missing: {missing or 'all'}."
        raise FileMissingError(msg)
    return pairs


def genes_of(task: Path, name: str = "var_50genes.json") -> list[str]:
    """Genes to predict."""
    return [str(gene) for gene in json.loads((task / name).read_text())["genes"]]


def read_part(task: Path, split: Path, genes: list[str], features: Features) -> Part:
    """Patches of all samples that a file of a split lists, one sample after the other."""
    rows = pd.read_csv(split)
    parts = []
    for sample, patches, expression in zip(rows["sample_id"], rows["patches_path"], rows["expr_path"], strict=True):
        values, barcodes = features(task.name, str(sample), task / patches)
        counts = ad.read_h5ad(task / expression)[barcodes, genes].X
        dense = np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, np.float64)
        parts.append((values, np.log1p(dense), np.full(len(values), str(sample)), _centres(task / patches, barcodes)))
    return Part(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _centres(patches: Path, barcodes: list[str]) -> NDArray[np.float64]:
    """Places of patches, px of the image."""
    with h5py.File(patches) as file:
        places = pd.DataFrame(np.asarray(file["coords"], np.float64), index=_barcodes(file, "barcode"))
    return places.loc[barcodes].to_numpy()


def _barcodes(file: h5py.File, key: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in np.ravel(file[key][:])]


def precomputed(folder: Path, name: str | None, task: str, sample: str, _patches: Path) -> tuple[Any, list[str]]:
    """Features that were computed before, and the barcodes of their patches."""
    places = [folder / task / f"{sample}.h5", *sorted((folder / task).glob(f"{name or '*'}/{sample}.h5"))]
    found = [place for place in places if place.is_file()]
    if len(found) != 1:
        msg = f"{len(found)} files of features of {sample!r}; wanted one of {folder / task}/[NAME/]{sample}.h5 (`--encoder-name NAME`)."
        raise (InputError if found else FileMissingError)(msg)
    with h5py.File(found[0]) as file:
        return np.asarray(file["embeddings"][:], np.float32), _barcodes(file, "barcodes")


def computed(network: Any, cache: Path, task: str, sample: str, patches: Path) -> tuple[Any, list[str]]:
    """Features of an encoder, computed once."""
    place = cache / task / f"{sample}.h5"
    if not place.is_file():
        with h5py.File(patches) as file, on_device(network) as device, torch.inference_mode(), fast_matmul():
            barcodes, images, found = _barcodes(file, "barcode"), file["img"], []
            for start in range(0, len(images), BATCH):
                pixels = np.ascontiguousarray(np.moveaxis(images[start : start + BATCH], -1, 1))
                found.append(network(torch.from_numpy(pixels).to(device)).float().cpu().numpy())
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(".part")
        with h5py.File(draft, "w") as file:
            file["embeddings"] = np.concatenate(found)
            file["barcodes"] = np.array([[name.encode()] for name in barcodes])
        draft.replace(place)
    return precomputed(cache, None, task, sample, patches)


def fixed(train: Part, test: Part) -> NDArray[np.float64]:
    """Genes of the test patches by the protocol of HEST-Bench."""
    k = min(COMPONENTS, *train.features.shape)
    reduced = make_pipeline(StandardScaler(), PCA(k, random_state=SEED)).fit(train.features)
    x, x_test = (reduced.transform(part.features).astype(np.float32) for part in (train, test))
    alpha = 100 / (k * train.genes.shape[1])
    ridge = Ridge(alpha=alpha, fit_intercept=False, solver="lsqr", max_iter=1000, random_state=SEED)
    return np.asarray(ridge.fit(x, train.genes).predict(x_test), np.float64)


def tuned(train: Part, test: Part, patients: dict[str, str]) -> NDArray[np.float64]:
    """Genes of the test patches with a penalty for each, chosen on patients of the training part."""
    known = [f"{name}" for name in range(train.genes.shape[1])]
    weights, k = np.ones(len(train.genes)), min(COMPONENTS, train.features.shape[1], len(train.features) - 1)
    patient = np.array([patients.get(sample, sample) for sample in train.sample])
    folds = np.unique(patient, return_inverse=True)[1]
    if folds.max() == 0:
        folds = blocks(train.centres, N_BLOCKS)
    table = choose_linear_probe(train.features, train.genes, weights, folds, names=known, n_components=[k])
    sizes, penalties = chosen_settings(table, known)
    probe = fit_linear_probe(train.features, train.genes, weights, n_components=sizes, penalties=penalties)
    return probe.predict(test.features)


def run_task(task: Path, features: Features, patients: dict[str, str]) -> dict[str, Any]:
    """Mean Pearson r over genes of every split of a task, by both protocols."""
    genes = genes_of(task)
    by_split: dict[str, list[float]] = {"fixed": [], "tuned": []}
    for of_train, of_test in splits_of(task):
        train, test = (read_part(task, split, genes, features) for split in (of_train, of_test))
        for protocol, predicted in (("fixed", fixed(train, test)), ("tuned", tuned(train, test, patients))):
            by_split[protocol].append(float(np.nanmean(pearson(test.genes, predicted))))
    return {name: {"pearson": float(np.mean(r)), "std": float(np.std(r)), "splits": r} for name, r in by_split.items()}


class Colours(torch.nn.Module):
    """Mean and deviation of the colours of the quarters of a patch: the encoder of the short form."""

    num_features, takes_tokens, um_per_px, spec = 24, False, None, "memory:Colours"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features ``(b, 24)``."""
        h, w = image.shape[-2] // 2, image.shape[-1] // 2
        quarters = [image[..., i : i + h, j : j + w].float() / 255 for i in (0, h) for j in (0, w)]
        return torch.cat([f(q, dim=(2, 3)) for q in quarters for f in (torch.mean, torch.std)], dim=1)


def make_miniature(folder: Path, *, n_samples: int = 3, n_patches: int = 60, n_genes: int = 6) -> Path:
    """Write a task in the layout of HEST-Bench whose genes follow the colours of its patches."""
    task, rng = folder / "MINI", np.random.default_rng(0)
    genes, names = [f"G{k}" for k in range(n_genes)], [f"S{k}" for k in range(n_samples)]
    for part in ("splits", "patches", "adata"):
        (task / part).mkdir(parents=True)
    (task / "var_50genes.json").write_text(json.dumps({"genes": genes}))
    loading = rng.normal(size=(3, n_genes)) / 2
    for name in names:
        colour = rng.normal(size=(n_patches, 3))
        pixels = 160 + 25 * colour[:, None, None] + rng.normal(0, 40, (n_patches, 16, 16, 3))
        barcodes = np.array([[f"{name}-{k}".encode()] for k in range(n_patches)])
        with h5py.File(task / "patches" / f"{name}.h5", "w") as file:
            file["img"], file["barcode"] = pixels.clip(0, 255).astype(np.uint8), barcodes
            file["coords"] = np.stack(np.divmod(np.arange(n_patches), 8), axis=1) * 224
        counts = rng.poisson(np.exp(1 + colour @ loading)).astype(np.float32)
        order = rng.permutation(n_patches)
        obs = pd.DataFrame(index=[f"{name}-{k}" for k in order])
        ad.AnnData(counts[order], obs, pd.DataFrame(index=genes)).write_h5ad(task / "adata" / f"{name}.h5ad")
    for k, held_out in enumerate(names):
        for part, chosen in (("train", [name for name in names if name != held_out]), ("test", [held_out])):
            rows = [(name, f"patches/{name}.h5", f"adata/{name}.h5ad") for name in chosen]
            frame = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
            frame.to_csv(task / "splits" / f"{part}_{k}.csv", index=False)
    return task


def patients_in(metadata: Path | None) -> dict[str, str]:
    """Patient of every sample; empty where nobody says."""
    if metadata is None:
        return {}
    table = pd.read_csv(metadata, dtype=str).dropna(subset=["id", "patient"])
    study = table["dataset_title"] if "dataset_title" in table else ""
    return dict(zip(table["id"], study + "/" + table["patient"], strict=True))


def main() -> None:
    """Run the tasks, print r of each by both protocols beside what was published, and keep the record."""
    parser = record_options(__doc__, "hest_bench", quick="a miniature in the same layout, by colours alone")
    parser.add_argument("data", type=Path, nargs="?", help="folder of tasks")
    parser.add_argument("--encoder", help="name of a network, such as transformers:DIRECTORY")
    parser.add_argument("--embeddings", type=Path, help="folder of features, DIR/TASK/[NAME/]ID.h5")
    parser.add_argument("--encoder-name", help="NAME in that folder")
    parser.add_argument("--cache", type=Path, help="folder to keep computed features in")
    parser.add_argument("--tasks", nargs="+", help="tasks to run; all where none is named")
    parser.add_argument("--metadata", type=Path, help="csv with columns id and patient")
    args = parser.parse_args()
    if not args.quick and (args.data is None or (args.encoder is None) == (args.embeddings is None)):
        parser.error("wanted DATA, and one of --encoder and --embeddings")
    with tempfile.TemporaryDirectory() as scratch:
        data = make_miniature(Path(scratch)).parent if args.quick else args.data
        cache = Path(scratch) / "features" if args.cache is None else args.cache
        if args.embeddings is not None:
            features: Features = partial(precomputed, args.embeddings, args.encoder_name)
        else:
            network = Colours() if args.quick else build_backbone(args.encoder)
            features = partial(computed, network, cache)
        tasks = args.tasks or sorted(path.parent.name for path in data.glob("*/splits"))
        found = {task: run_task(data / task, features, patients_in(args.metadata)) for task in tasks}
    means = {name: float(np.mean([task[name]["pearson"] for task in found.values()])) for name in PUBLISHED}
    for task, by_protocol in found.items():
        print(task, {name: round(of_task["pearson"], 4) for name, of_task in by_protocol.items()})
    encoder = "colours" if args.quick else args.encoder or args.encoder_name or str(args.embeddings)
    result = {"encoder": encoder, "means": means, "published": PUBLISHED, "tasks": found, "machine": machine()}
    if args.quick:
        print(result["means"])
    else:
        keep_record(args.json, result, shown=("encoder", "means", "published"))


if __name__ == "__main__":
    main()
