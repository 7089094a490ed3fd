"""Images per second through the prototype's vision transformer: its own code, vit-pytorch, and ours.

    python benchmarks/vit_speed.py [--quick] [--json FILE]

All ways run the same architecture (512-px images, 257 tokens of 128, four blocks, 32 numbers of expression added to the
class token) on the same uint8 images, in turn in this process, several rounds: one step of AdamW per batch, and the
forward pass alone, ours in passes of the size that ``predict`` chooses (and, for comparison, all in such). Each starts from the same kind of random weights and fits the same small set, and the losses are
compared. ``matmul`` is the time of the products alone, in the same arithmetic.

Written down before: attention in one kernel and squares taken by a reshape save memory traffic, the last block for the
class token alone saves a fifth of the forward pass, and the faster float32 library (where it is accurate) helps the
products. Expected: train 2 x, infer 2.5 x the prototype in float32, train 2.5 x in bf16 where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn

from spatialsig.nn.device import fast_matmul, microbatch_size, training_precision
from spatialsig.nn.seed_vit import seed_preset

GOALS = {"train, float32": 2.0, "infer, float32": 2.5, "train, bf16": 2.5}
TIMED = ("train", "infer", "infer in passes")
N_TARGETS, AE_DIM = 3, 32


class NaiveAttention(nn.Module):
    """Attention as it is written in a textbook."""

    def __init__(self, dim: int = 128, heads: int = 4, dim_head: int = 64) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head**-0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (part.reshape(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        weights = ((q @ k.transpose(-1, -2)) * self.scale).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, -1))


class Naive(nn.Module):
    """The prototype's network, every token through every block."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(3072), nn.Linear(3072, 128), nn.LayerNorm(128))
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 128)), nn.Parameter(torch.randn(1, 257, 128))
        self.attention = nn.ModuleList(NaiveAttention() for _ in range(4))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(128), nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128)) for _ in range(4)
        )
        self.norm, self.ae, self.head = nn.LayerNorm(128), nn.Linear(AE_DIM, 128), nn.Linear(128, N_TARGETS)

    def forward(self, image: Tensor, ae: Tensor) -> Tensor:
        x = (image.float() / 255).unfold(2, 32, 32).unfold(3, 32, 32)  # (b, 3, 16, 16, 32, 32)
        x = self.embed(x.permute(0, 2, 3, 1, 4, 5).reshape(len(x), 256, 3072))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        return self.head(self.norm(x)[:, 0] + self.ae(ae))


class Peer(nn.Module):
    """vit-pytorch's network of this shape, with the prototype's input and output."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit, self.ae, self.head = vit, nn.Linear(AE_DIM, 128), nn.Linear(128, N_TARGETS)

    def forward(self, image: Tensor, ae: Tensor) -> Tensor:
        return self.head(self.vit(image.float() / 255) + self.ae(ae))


def peer() -> nn.Module | None:
    package = find_spec("vit_pytorch")
    if package is None or package.origin is None:
        return None
    # the file of the network alone: the package imports torchvision, which does not load beside every build of torch
    spec = spec_from_file_location("vit_pytorch_vit", Path(package.origin).with_name("vit.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    shape = {"dim": 128, "depth": 4, "heads": 4, "dim_head": 64, "mlp_dim": 512}
    vit = module.ViT(image_size=512, patch_size=32, num_classes=1, **shape)
    vit.mlp_head = nn.Identity()
    return Peer(vit)


def mode(name: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def optimizer_of(net: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=0.05, fused=fused)


def step(
    net: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor, Tensor], precision: str
) -> float:
    image, ae, target = batch
    with mode(precision):
        loss = F.mse_loss(net(image, ae).float(), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def infer(net: nn.Module, image: Tensor, ae: Tensor, *, in_passes: bool) -> None:
    size = microbatch_size(image.shape, image.device) if in_passes else len(image)
    for part in zip(image.split(size), ae.split(size), strict=True):
        net(*part)


def data(n: int, batch_size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Images whose brightness carries the first score, and expression that carries the second."""
    draw = torch.Generator().manual_seed(0)
    shade = torch.rand(n, 1, 1, 1, generator=draw)
    noise = torch.rand(n, 3, 512, 512, generator=draw)
    image = ((0.5 * shade + 0.5 * noise) * 255).to(torch.uint8)
    ae = torch.randn(n, AE_DIM, generator=draw)
    target = torch.cat([4 * shade.view(n, 1) - 2, ae[:, :1], torch.zeros(n, 1)], dim=1)
    rows = range(0, n, batch_size)
    return [(image[i : i + batch_size], ae[i : i + batch_size], target[i : i + batch_size]) for i in rows]


def products(batch_size: int, precision: str, *, train: bool) -> float:
    """Seconds of the matrix products of one batch alone (the last block for one token, as ours)."""
    tokens = 256 * batch_size
    shapes = [(tokens, 3072, 128)] + 3 * [
        (tokens, 128, 768),
        (tokens, 256, 128),
        (tokens, 128, 512),
        (tokens, 512, 128),
    ]
    shapes.append((tokens, 128, 512))
    pairs = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in shapes]
    q, k = torch.randn(batch_size * 4, 257, 64), torch.randn(batch_size * 4, 64, 257)
    with mode(precision), torch.no_grad():
        start = time.perf_counter()
        for i, (a, b) in enumerate(pairs):
            out = a @ b
            if train:
                a.T @ out
                if i:  # pixels take no gradient
                    out @ b.T
        for _ in range(3 * (3 if train else 1)):
            (q @ k) @ q
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "vit_speed.json")
    arguments = parser.parse_args()
    rounds, n_steps, batch_size, fit_steps = (2, 1, 2, 4) if arguments.quick else (7, 4, 16, 60)
    batches = data(4 * batch_size, batch_size)
    torch.manual_seed(0)
    ways: dict[str, tuple[nn.Module, str, bool]] = {"prototype": (Naive(), "float32", False)}
    other = peer()
    if other is not None:
        ways["vit-pytorch"] = (other, "float32", False)
    ways["ours, float32"] = (seed_preset(N_TARGETS, AE_DIM), "float32", True)
    precisions = ["float32"]
    if training_precision(torch.device("cpu")) != "32-true":
        precisions.append("bf16")
        ways["ours, bf16"] = (seed_preset(N_TARGETS, AE_DIM), "bf16", True)
    seconds = {name: {what: [] for what in TIMED} for name in ways}
    seconds |= {f"matmul, {p}": {"train": [], "infer": []} for p in precisions}
    optimizers = {name: optimizer_of(net, fused=ours) for name, (net, _, ours) in ways.items()}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first round warms up
        for name, (net, precision, ours) in ways.items():
            with fast_matmul() if ours else nullcontext():
                start = time.perf_counter()
                losses[name] += [step(net, optimizers[name], batches[i % 4], precision) for i in range(n_steps)]
                seconds[name]["train"].append((time.perf_counter() - start) / n_steps)
                for what, in_passes in (("infer", ours), ("infer in passes", True)):
                    start = time.perf_counter()
                    with torch.inference_mode(), mode(precision):
                        for i in range(n_steps):
                            infer(net, *batches[i % 4][:2], in_passes=in_passes)
                    seconds[name][what].append((time.perf_counter() - start) / n_steps)
        for precision in precisions:
            with fast_matmul():
                for what in ("train", "infer"):
                    found = products(batch_size, precision, train=what == "train")
                    seconds[f"matmul, {precision}"][what].append(found)
        if number == 0:
            for times in seconds.values():
                for values in times.values():
                    values.clear()
    for name, (net, precision, ours) in ways.items():
        with fast_matmul() if ours else nullcontext():
            losses[name] += [step(net, optimizers[name], batches[i % 4], precision) for i in range(fit_steps)]
    speed = {
        name: {what: batch_size / statistics.median(values) for what, values in times.items()}
        for name, times in seconds.items()
    }
    ratios = {
        f"{what}, {precision}": speed[f"ours, {precision}"][what] / speed["prototype"][what]
        for precision in precisions
        for what in TIMED
    }
    final = {name: statistics.mean(values[-4:]) for name, values in losses.items()}
    for name, found in speed.items():
        print(f"{name:16s} train {found['train']:7.1f} images/s   infer {found['infer']:7.1f} images/s")
    for name, ratio in ratios.items():
        goal = f" (goal {GOALS[name]})" if name in GOALS else ""
        print(f"ours / prototype, {name}: {ratio:.2f}{goal}")
    print("final loss:", {name: round(value, 4) for name, value in final.items()})
    if other is None:
        print("vit-pytorch is not installed: skipped.")
    result = {
        "quick": arguments.quick,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "images_per_s": speed,
        "ratio_to_prototype": ratios,
        "goals": GOALS,
        "final_loss": final,
        "vit_pytorch": other is not None,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
