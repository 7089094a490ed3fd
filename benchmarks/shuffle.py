"""Is shuffling by blocks as good as a full shuffle? Labels in the stream, and what a network learns from it.

Four slides with smooth labels (as tissue has them), a patch's features its label under noise. Orders: the full shuffle,
blocks of 8 x 8 patches with the window that the default cache allows for patches of 512 px and of 224 px, as the bad
example, slide after slide in rows, and, for what chance alone makes of the loss, the full shuffle once more.

1. Correlation of the labels of two patches of the stream, 1 to 31 apart (the mean over labels, lags and seeds, of the
   deviation from the mean of the epoch). A full shuffle balanced over slides has about 0.
   With blocks in any order and patches evenly spread over their window it was .035 at 512 px; predicted: .025 with all of
   the cache in use and waits by a falling density. Found (3 epochs, 3 seeds): .026, then .021; and the loss of the
   network 1.11 -> 1.06, of the linear model 1.07 -> 1.01, half of it by blocks that follow each other from all parts of
   a slide. What is left is the memory: a window of about 640 waiting patches is ten blocks of 64 patches at a time.
2. Loss on other slides of a small network, and of a linear model, trained by SGD over batches of 32 in that order.

    python benchmarks/shuffle.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1")

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from machine import record_options
from scipy.ndimage import gaussian_filter
from torch import nn

from spatialsig.data.order import MAX_WINDOW, WAITING, block_shuffle, full_shuffle, on_curve

if TYPE_CHECKING:
    from collections.abc import Callable

N_SLIDES, ACROSS, BLOCK, BATCH = 4, 39, 8, 32  # 39 x 39 patches of 512 px are a slide of 20,000 px
N_LABELS, N_FEATURES = 6, 24
CACHE_MB = 512
GOALS = {"correlation": 0.03, "loss_ratio": 1.02}


def slides(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels ``(n_patches, N_LABELS)``, noisy features of them, slide and block of each patch."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(2 * N_LABELS, N_FEATURES))
    labels = []
    for _ in range(n):
        fields = gaussian_filter(rng.normal(size=(ACROSS, ACROSS, N_LABELS)), (4, 4, 0), mode="reflect")
        labels.append((fields / fields.std((0, 1)) + 0.4 * rng.normal(size=N_LABELS)).reshape(-1, N_LABELS))
    y = np.concatenate(labels)
    x = np.concatenate([y, y**2 - 1], axis=1) @ mixing + 2.0 * rng.normal(size=(len(y), N_FEATURES))
    slide = np.repeat(np.arange(n), ACROSS**2)
    row, column = np.divmod(np.tile(np.arange(ACROSS**2), n), ACROSS)
    place = on_curve(np.stack([row, column], axis=1) // BLOCK)
    block = np.unique(slide * (place.max() + 1) + place, return_inverse=True)[1]
    return y.astype(np.float32), x.astype(np.float32), slide, block


def orders(slide: np.ndarray, block: np.ndarray) -> dict[str, Callable[[int, int], np.ndarray]]:
    """Each order as a function of seed and epoch."""
    found: dict[str, Callable[[int, int], np.ndarray]] = {
        "full": lambda seed, epoch: full_shuffle(slide, seed=seed, epoch=epoch, slide_balanced=True),
        "full, drawn again": lambda seed, epoch: full_shuffle(slide, seed=seed + 99, epoch=epoch, slide_balanced=True),
        "in rows": lambda seed, epoch: np.arange(len(slide)),
    }
    for px in (512, 224):
        window = min(MAX_WINDOW, int((CACHE_MB * 2**20 / (3 * px * px) - BLOCK**2) / WAITING))  # as the loader has it
        found[f"blocks, {px} px"] = lambda seed, epoch, window=window: block_shuffle(
            slide, block, window=window, seed=seed, epoch=epoch, slide_balanced=True
        )[0]
    return found


def stream_correlation(order: np.ndarray, y: np.ndarray) -> float:
    """Mean correlation of labels 1 to 31 patches apart in the stream."""
    stream = (y[order] - y.mean(0)) / y.std(0)
    return float(np.mean([(stream[lag:] * stream[:-lag]).mean() for lag in range(1, BATCH)]))


def final_loss(x: np.ndarray, y: np.ndarray, order: Callable[[int], np.ndarray], test, *, epochs: int, seed: int,
               hidden: int) -> float:  # fmt: skip
    """Mean squared error on other slides after training in that order; hidden 0 is a linear model."""
    torch.manual_seed(seed)
    layers = [nn.Linear(N_FEATURES, hidden), nn.GELU(), nn.Linear(hidden, N_LABELS)] if hidden else [
        nn.Linear(N_FEATURES, N_LABELS)]  # fmt: skip
    net = nn.Sequential(*layers)
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, cycle_momentum=False)
    mean, std = x.mean(0), x.std(0)
    inputs, targets = torch.from_numpy((x - mean) / std), torch.from_numpy(y)
    for epoch in range(epochs):
        for batch in torch.from_numpy(order(epoch)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        return float(nn.functional.mse_loss(net(torch.from_numpy((test[1] - mean) / std)), torch.from_numpy(test[0])))


def main() -> None:
    """Print and record."""
    parser = record_options(__doc__, "shuffle", quick="2 seeds and 3 epochs instead of 5 and 8")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n_seeds, epochs = (2, 3) if args.quick else (5, 8)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(n_seeds):
        y, x, slide, block = slides(N_SLIDES, 2 * seed)
        test = slides(2, 2 * seed + 1)[:2]
        for name, order in orders(slide, block).items():
            row = found.setdefault(name, {"correlation": [], "network": [], "linear": []})
            row["correlation"].append(np.mean([stream_correlation(order(seed, e), y) for e in range(epochs)]))
            for model, hidden in (("network", 64), ("linear", 0)):
                loss = final_loss(
                    x, y, lambda e, o=order, s=seed: o(s, e), test, epochs=epochs, seed=seed, hidden=hidden
                )
                row[model].append(loss)
    result: dict[str, dict[str, float]] = {}
    for name, row in found.items():
        ratios = {m: np.array(row[m]) / np.array(found["full"][m]) for m in ("network", "linear")}
        result[name] = {
            "correlation": round(float(np.mean(row["correlation"])), 4),
            **{f"{m}_loss": round(float(np.mean(row[m])), 4) for m in ratios},
            **{f"{m}_loss_ratio": round(float(r.mean()), 4) for m, r in ratios.items()},
        }
        told = "  ".join(f"{key} {value:7.4f}" for key, value in result[name].items())
        print(f"{name:16s} {told}")
    print(f"goals: correlation within {GOALS['correlation']} of the full shuffle's, loss ratio at most "
          f"{GOALS['loss_ratio']}")  # fmt: skip
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"orders": result, "goals": GOALS, "seeds": n_seeds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
