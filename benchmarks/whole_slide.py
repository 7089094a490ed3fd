"""Predict a whole slide with the prototype's network: ours beside its own code fed by ImageTilesDataset, on all cores.

Then train that network, the fastest of all on such patches, from the same store for an epoch: what share of the epoch is
not spent waiting for patches? Goal: 95 %.

``default`` is what ``sdata.write`` makes of an image in planes of 4,096 px; ``512`` the same with chunks of 3 x 512 x 512.
Rounds are interleaved; medians of wall time per patch. The share of reading is what a round takes beyond the network alone.

    python benchmarks/whole_slide.py [--quick] [--json PATH]
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import spatialdata as sd
import torch
from machine import machine, record_options
from spatialdata.dataloader import ImageTilesDataset
from tissue_image import peer_store, squares, tissue
from vit_speed import AE_DIM, N_TARGETS, Naive

import spatialsig as sp
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import PatchSource, image_levels
from spatialsig.inference.inputs import ModelInputs
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import SignatureConfig
from spatialsig.slide.slides import Slide
from spatialsig.train.vit import fit_vit

if TYPE_CHECKING:
    from collections.abc import Callable

PX = 512
BATCH = 16
NAMES = [f"s{k}" for k in range(N_TARGETS)]
GOALS = {"default": 9.0, "512": 4.0, "share_of_reading": 0.12, "busy": 0.95}


def new_model() -> sp.models.SignatureViT:
    """The prototype's network, untrained: speed does not depend on the weights."""
    torch.manual_seed(0)
    config = SignatureConfig(n_targets=N_TARGETS, n_latent=AE_DIM, fusion="add", backbone=SEED, image_px=PX)
    return sp.models.SignatureViT(
        config, NAMES, target_mean=np.zeros(N_TARGETS), target_std=np.ones(N_TARGETS), patch_px=PX, um_per_px=0.5
    )


def ours(path: Path, model: sp.models.SignatureViT) -> Callable[[np.ndarray], None]:
    """``predict`` on chosen patches of a store."""
    sdata = sd.read_zarr(path)
    sdata.attrs["spatialsig"] = {"sample": path.stem, "um_per_global_px": 0.5}
    sdata["he_image"] = sdata.images["he"]
    sp.pp.make_patches(sdata, patch_px=PX, um_per_px=0.5, stride_um=PX / 2, min_tissue=0, image_key="he_image")
    patches = Slide(sdata).patches()
    inputs = ModelInputs(patches, model, embedding(len(patches)))
    return inputs.predict


def peer(path: Path, network: Naive) -> Callable[[np.ndarray], None]:
    """Tiles of spatialdata, stacked and predicted batch by batch."""
    dataset = ImageTilesDataset(sd.read_zarr(path), {"patches": "he"}, {"patches": "global"}, tile_dim_in_units=PX)

    @torch.inference_mode()
    def predict(rows: np.ndarray) -> None:
        for first in range(0, len(rows), BATCH):
            tiles = np.stack([np.asarray(dataset[int(row)]["he"].data) for row in rows[first : first + BATCH]])
            network(torch.from_numpy(tiles), torch.from_numpy(embedding(len(tiles))))

    return predict


def embedding(n: int) -> np.ndarray:
    """Expression of ``n`` patches."""
    return np.zeros((n, AE_DIM), np.float32)


def busy(path: Path, n: int) -> float:
    """Share of an epoch of the prototype's training that is not spent waiting for random patches of a store."""
    sdata, rng = sd.read_zarr(path), np.random.default_rng(0)
    levels = image_levels(sdata, "he")
    corners, _ = squares(levels[0].shape[0], PX)
    source = PatchSource("slide", levels, rng.permutation(corners)[:n], PX, PX)
    target = rng.normal(size=(len(source), N_TARGETS)).astype(np.float32)
    batches = PatchBatches([source], targets=[target], ae=[embedding(len(source))], batch_size=BATCH)
    _, history = fit_vit(batches, signatures=NAMES, um_per_px=0.5, size=SEED, max_epochs=2)
    return float(history["busy"].iloc[-1])  # the first epoch opens files


def measure(directory: Path, px: int, rounds: int, n: int, n_peer: int) -> dict[str, object]:
    """Median ms per patch of every way."""
    model, network, (_, shapes) = new_model(), Naive().eval(), squares(px, PX)
    images = {"default": tissue(px, chunk_px=4096), "512": tissue(px).rechunk((3, PX, PX))}
    ways: dict[str, tuple[Callable[[np.ndarray], object], int]] = {}
    for name, image in images.items():
        path = directory / f"{name}.zarr"
        peer_store(path, image, shapes)
        ways[f"ours, {name}"] = (ours(path, model), n)
        ways[f"ImageTilesDataset, {name}"] = (peer(path, network), n_peer)
    pixels = np.random.default_rng(0).integers(0, 256, (min(n, 64), 3, PX, PX), dtype=np.uint8)
    ways["network alone"] = (lambda rows: model.predict(pixels[: len(rows)], embedding(len(rows))), len(pixels))
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first round opens files
        for name, (way, count) in ways.items():
            rows = np.arange(min(count, len(shapes)))
            start = time.perf_counter()
            way(rows)
            spent[name].append((time.perf_counter() - start) / len(rows) * 1e3)
    return {name: float(np.median(times[1:])) for name, times in spent.items()}


def main() -> None:
    """Print and record."""
    parser = record_options(__doc__, "whole_slide", quick="2,048 px instead of 20,480")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    with tempfile.TemporaryDirectory() as scratch:
        size = (2048, 1, 8, 2) if args.quick else (20480, 5, 512, 16)
        ms = measure(Path(scratch), *size)
        waits = {name: busy(Path(scratch) / f"{name}.zarr", size[2]) for name in ("default", "512")}
    ratios = {name: ms[f"ImageTilesDataset, {name}"] / ms[f"ours, {name}"] for name in ("default", "512")}
    ratios["share_of_reading"] = max(0.0, 1 - ms["network alone"] / ms["ours, default"])
    ratios["busy"] = min(waits.values())
    result = {
        "quick": args.quick,
        "machine": machine(),
        "ms_per_patch": {name: round(value, 3) for name, value in ms.items()},
        "ratios": {name: {"found": round(value, 3), "goal": GOALS[name]} for name, value in ratios.items()},
    }
    print(json.dumps(result, indent=2))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
