"""Predict a whole slide: ours beside ImageTilesDataset and a plain loop, with the same network on the same patches.

``default`` is what ``sdata.write`` makes of an image in planes of 4,096 px; ``512`` the same with chunks of 3 x 512 x 512.
Rounds are interleaved; medians of wall time per patch. The share of reading is what a round takes beyond the network alone.

    python benchmarks/whole_slide.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import spatialdata as sd
import torch
from machine import machine
from spatialdata.dataloader import ImageTilesDataset
from tissue_image import peer_store, squares, tissue

import spatialsig as sp
from spatialsig.data.slides import Slide
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import vit_config
from spatialsig.tl._predict import predict_rows

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
PX = 512
GOALS = {"default": 9.0, "512": 4.0, "share_of_reading": 0.12}


def new_model() -> sp.models.SignatureViT:
    """The smallest network of the package, untrained: speed does not depend on the weights."""
    torch.manual_seed(0)
    return sp.models.SignatureViT(
        SignatureConfig(vit_config("tiny"), 9), [f"s{k}" for k in range(9)],
        target_mean=np.zeros(9), target_std=np.ones(9), patch_px=PX, um_per_px=0.5,
    )  # fmt: skip


def ours(path: Path, model: sp.models.SignatureViT) -> Callable[[np.ndarray], None]:
    """``predict`` on chosen patches of a store."""
    sdata = sd.read_zarr(path)
    sdata.attrs["spatialsig"] = {"sample": path.stem, "um_per_global_px": 0.5}
    sdata["he_image"] = sdata.images["he"]
    sp.pp.make_patches(sdata, patch_px=PX, um_per_px=0.5, stride_um=PX / 2, min_tissue=0, image_key="he_image")
    return lambda rows: predict_rows(Slide(sdata), model, "patches", rows, None)


def peer(path: Path, model: sp.models.SignatureViT) -> Callable[[np.ndarray], None]:
    """Tiles of spatialdata, stacked and predicted."""
    dataset = ImageTilesDataset(sd.read_zarr(path), {"patches": "he"}, {"patches": "global"}, tile_dim_in_units=PX)

    def predict(rows: np.ndarray) -> None:
        model.predict(np.stack([np.asarray(dataset[int(row)]["he"].data) for row in rows]))

    return predict


def measure(directory: Path, px: int, rounds: int, n: int, n_peer: int) -> dict[str, object]:
    """Median ms per patch of every way."""
    model, (_, shapes) = new_model(), squares(px, PX)
    images = {"default": tissue(px, chunk_px=4096), "512": tissue(px).rechunk((3, PX, PX))}
    ways: dict[str, tuple[Callable[[np.ndarray], object], int]] = {}
    for name, image in images.items():
        path = directory / f"{name}.zarr"
        peer_store(path, image, shapes)
        ways[f"ours, {name}"] = (ours(path, model), n)
        ways[f"ImageTilesDataset, {name}"] = (peer(path, model), n_peer)
    pixels = np.random.default_rng(0).integers(0, 256, (min(n, 16), 3, PX, PX), dtype=np.uint8)
    ways["network alone"] = (lambda rows: model.predict(pixels[: len(rows)]), len(pixels))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,048 px instead of 20,480")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "whole_slide.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        size = (2048, 1, 8, 2) if args.quick else (20480, 5, 512, 16)
        ms = measure(Path(scratch), *size)
    ratios = {name: ms[f"ImageTilesDataset, {name}"] / ms[f"ours, {name}"] for name in ("default", "512")}
    ratios["share_of_reading"] = max(0.0, 1 - ms["network alone"] / ms["ours, default"])
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
