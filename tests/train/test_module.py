"""The optimiser and the clipping that all training runs share, in every precision."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spatialsig.nn.vit import ViTConfig
from spatialsig.train.loop import TrainerConfig
from spatialsig.train.module import TrainedModule
from spatialsig.train.pretrain import fit_masked

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills


def pretrain(run_dir: None, trainer: TrainerConfig):
    size = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=32, stem=(8, 8), stem_blocks=(0, 0))
    return fit_masked(kills.patches(0), um_per_px=0.5, size=size, max_epochs=3, run_dir=run_dir, trainer=trainer)


def clipped_vit(run_dir: None, trainer: TrainerConfig):
    return kills.train_vit(run_dir, trainer, clip=0.5)


@pytest.mark.parametrize(
    "train", [clipped_vit, *(pytest.param(one, marks=pytest.mark.slow) for one in (kills.train_autoencoder, pretrain))]
)
def test_bfloat16_trains_as_float32_does(train) -> None:
    losses = [train(None, TrainerConfig(precision=name))[1]["train_loss"] for name in ("bf16", "32")]
    np.testing.assert_allclose(*losses, rtol=0.03)


def module_of(precision: str, gradient: float) -> tuple[TrainedModule, torch.optim.Optimizer]:
    module = TrainedModule()
    module.weight = torch.nn.Parameter(torch.zeros(3, 4))
    module.bias = torch.nn.Parameter(torch.zeros(4))
    module.trainer = SimpleNamespace(precision=precision)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    return module, module.adamw(module.parameters(), lr=0.1)


@pytest.mark.parametrize("gradient", [3.0, 0.1])
def test_gradients_are_scaled_to_the_norm_together(gradient: float) -> None:
    module, optimizer = module_of("bf16-mixed", gradient)
    module.configure_gradient_clipping(optimizer, 2.0)
    wanted = min(gradient, 2.0 / 16**0.5)  # of 16 equal ones
    for parameter in module.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, wanted))


def test_gradients_stay_where_nothing_is_to_be_clipped() -> None:
    module, optimizer = module_of("32-true", 3.0)
    module.configure_gradient_clipping(optimizer, None)
    assert all((parameter.grad == 3).all() for parameter in module.parameters())


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_one_kernel_unless_gradients_are_scaled(precision: str, fused: bool) -> None:
    """A fused step scales float16 gradients back itself, after the clipping, which would see them too large."""
    assert module_of(precision, 1.0)[1].defaults["fused"] is fused


@pytest.mark.parametrize("rising", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("n_steps", [1, 2, 4, 10, 20, 40])
def test_rates_rise_and_fall_over_any_number_of_steps(n_steps: int, rising: float) -> None:
    """torch divides by 0 where just one step rises."""
    module = TrainedModule()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = module.one_cycle(optimizer, 1.0, n_steps=n_steps, rising=rising)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < n_steps:
            schedule.step()
    assert np.isfinite(rates).all()
    assert max(rates) <= 1.0
