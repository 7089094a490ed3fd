"""Two processes train as one with the double batch."""

import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from spatialsig.errors import InputError
from spatialsig.train.cells import CellBatches
from spatialsig.train.checkpoint_file import checkpoint_files
from spatialsig.train.distributed import synchronised_norms
from spatialsig.train.loop import TrainerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills

ONE = TrainerConfig(precision="32")  # two roundings in bfloat16 differ by more than what is shown here
DDP = TrainerConfig(precision="32", strategy="ddp", devices=2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def in_two(work, codes: tuple[int, int] = (0, 0)) -> None:
    """Run ``work(rank)`` in two forked processes, as torchrun or SLURM would start them, and see how they end."""
    port = str(free_port())

    def one(rank: int) -> None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="localhost", MASTER_PORT=port)
        work(rank)
        torch.distributed.destroy_process_group()

    pids = [kills.child(lambda rank=rank: one(rank)) for rank in (0, 1)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == list(codes)


def both(rank: int, directory: Path) -> None:
    """Train both networks."""
    log = directory / f"log{rank}"
    with kills.recorded(log), pytest.MonkeyPatch.context() as patch:
        patch.setattr("spatialsig.train.vit.start_from_ridge", lambda *_: None)
        trainer = ONE if rank < 0 else DDP
        size = 32 if rank < 0 else 16
        vit = kills.train_vit(
            directory / "vit",
            trainer,
            batches=kills.patches(0, batch_size=size, ae=None),
            validation=kills.patches(1, shuffle=False, ae=None),
            fusion="none",
        )[1]
        cells = kills.train_autoencoder(
            directory / "ae",
            trainer,
            batch_size=2 * size,
            config=kills.AutoencoderConfig(hidden=(16,), n_latent=3, dropout=0.0),
        )[1]
    vit.to_csv(directory / f"vit{rank}.csv")
    cells.to_csv(directory / f"ae{rank}.csv")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    in_two(lambda rank: both(rank, tmp_path / "two"))
    both(-1, tmp_path / "one")
    for name in ("vit", "ae"):
        one = pd.read_csv(tmp_path / "one" / f"{name}-1.csv")
        for rank in (0, 1):
            two = pd.read_csv(tmp_path / "two" / f"{name}{rank}.csv")
            for column in ("train_loss", "val_loss", "val_pearson", "lr"):
                np.testing.assert_allclose(two[column], one[column], atol=1e-4, err_msg=f"{name} {column} {rank}")


def cells_in_two(rank: int, directory: Path, run_dir: Path | None, *, strike: int) -> None:
    """Train on cells, with genes hidden at random; the second process is told to stop in one of its steps."""
    seen = [0]

    def step(*_: object) -> None:
        seen[0] += 1
        if rank == 1 and seen[0] == strike:
            os.kill(os.getpid(), signal.SIGTERM)

    register_optimizer_step_post_hook(step)
    model, history = kills.train_autoencoder(run_dir, DDP, batch_size=32)
    weights = {name: value.numpy() for name, value in model.net.state_dict().items()}
    np.savez(directory / f"{rank}.npz", losses=history["train_loss"], steps=seen[0], **weights)


def test_a_signal_to_one_process_stops_both_and_both_go_on_exactly(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    in_two(lambda rank: cells_in_two(rank, tmp_path / "whole", None, strike=0))
    stopped, run_dir = tmp_path / "stopped", tmp_path / "run"
    in_two(lambda rank: cells_in_two(rank, stopped, run_dir, strike=13), codes=(143, 143))
    assert [path.stem for path in checkpoint_files(run_dir / "checkpoints")] == ["step-000000013", "step-000000009"]
    in_two(lambda rank: cells_in_two(rank, stopped, run_dir, strike=0))
    for rank in (0, 1):
        with np.load(tmp_path / "whole" / f"{rank}.npz") as one, np.load(stopped / f"{rank}.npz") as two:
            assert (int(one["steps"]), int(two["steps"])) == (27, 14)
            assert all(np.array_equal(one[name], two[name]) for name in set(one.files) - {"steps"})


def test_two_processes_see_every_cell_once_and_together_the_batches_of_one() -> None:
    slides = [kills.counts(0), kills.counts(1)]
    options = {"mean": np.zeros(kills.N_GENES), "std": np.ones(kills.N_GENES), "seed": 3}
    one = [batch.z for batch in CellBatches(slides, batch_size=64, **options)]
    halves = [CellBatches(slides, batch_size=32, **options).shared(rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(half) for half in halves] == [len(one)] * 2
    for whole, first, second in zip(one, *halves, strict=True):
        assert torch.equal(torch.stack([first.z, second.z], dim=1).flatten(0, 1), whole)


def test_two_processes_see_every_patch_once() -> None:
    batches = kills.patches(0)
    halves = [batches.shared(rank=rank, world_size=2) for rank in (0, 1)]
    assert [half.world_size for half in halves] == [2, 2]
    assert (batches.world_size, len(batches)) == (1, 7)
    seen = torch.cat([batch["id"] for half in halves for batch in half])
    assert sorted(seen.tolist()) == list(range(100))


def test_validation_cells_are_shared_too_and_none_is_left_out() -> None:
    options = {"mean": np.zeros(kills.N_GENES), "std": np.ones(kills.N_GENES), "shuffle": False}
    for n in (300, 129):  # 129 = 64 + 64 + a single cell
        batches = CellBatches([kills.counts(0, n)], batch_size=64, **options)
        halves = [batches.shared(rank=rank, world_size=2) for rank in (0, 1)]
        sizes = [[len(batch.z) for batch in half] for half in halves]
        assert sum(map(sum, sizes)) == n
        assert [len(half) for half in halves] == [len(sizes[0]), len(sizes[0])]
        assert min(map(min, sizes)) > 0


def test_more_processes_than_cells_are_refused() -> None:
    options = {"mean": np.zeros(kills.N_GENES), "std": np.ones(kills.N_GENES), "batch_size": 8}
    with pytest.raises(InputError, match="3 cells cannot be shared by 4 processes"):
        CellBatches([kills.counts(0, 3)], **options).shared(rank=0, world_size=4)


def test_norms_are_synchronised_for_a_block_only() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    with synchronised_norms(net, world_size=2):
        assert type(net[1]) is not torch.nn.BatchNorm2d
        assert net(torch.rand(2, 3, 4, 4)).shape == (2, 4, 4, 4)  # alone, it is the usual norm
    assert type(net[1]) is torch.nn.BatchNorm2d
    with synchronised_norms(net, world_size=1):
        assert type(net[1]) is torch.nn.BatchNorm2d


def norm_alone(rank: int, directory: Path) -> None:
    """Moments, output and gradients of a shared norm, for this process's half of 12 images."""
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    net, x = shared_norm()
    mine = x[rank::2].clone().requires_grad_()
    with synchronised_norms(net, world_size=2):
        (net(mine) ** 3).sum().backward()
    np.savez(directory / f"{rank}.npz", grad=mine.grad, mean=net[0].running_mean, var=net[0].running_var)


def shared_norm() -> tuple[torch.nn.Sequential, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.randn(12, 3, 5, 4, generator=draw) * 3 + 2


def test_a_shared_norm_is_the_norm_of_the_whole_batch(tmp_path: Path) -> None:
    in_two(lambda rank: norm_alone(rank, tmp_path))
    net, x = shared_norm()
    x.requires_grad_()
    (net(x) ** 3).sum().backward()
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as found:
            np.testing.assert_allclose(found["grad"], x.grad[rank::2], atol=1e-4)
            np.testing.assert_allclose(found["mean"], net[0].running_mean, rtol=1e-5)
            np.testing.assert_allclose(found["var"], net[0].running_var, rtol=1e-5)
