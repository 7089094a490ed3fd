"""The file of a checkpoint, and which checkpoint a training goes on from."""

import errno
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning
from spatialsig.train import checkpoint_file as files
from spatialsig.train.loop import TrainerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills

FLOAT32 = TrainerConfig(precision="32")  # whatever this processor would take
SHARED = torch.arange(6.0)
TREE = {
    "optimizer": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 1: {}},
    "betas": (0.9, 0.98),
    "names": ["a", "b"],
    "types": [torch.tensor([True, False]), torch.ones(2, dtype=torch.bfloat16), torch.arange(3), torch.empty(0, 4)],
    "random": ("MT19937", np.arange(5, dtype=np.uint32), 3, 0.1 + 0.2),
    "special": [float("inf"), -float("inf"), None, True, 10**40],
    "tied": [SHARED, SHARED, SHARED[2:]],
    "not contiguous": torch.arange(6).reshape(2, 3).T,
    "number": np.float64(0.1),
}


def same(a, b) -> bool:
    """Whether two trees hold the same, arrays as tensors."""
    if isinstance(a, torch.Tensor | np.ndarray):
        a = torch.as_tensor(a)
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(b) is (float if isinstance(a, np.floating) else type(a))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    files.write_checkpoint(tmp_path / "new" / "c", TREE)
    assert same(TREE, files.read_checkpoint(tmp_path / "new" / "c"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c"]


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


@settings(max_examples=15)
@given(st.dictionaries(st.text(max_size=8), trees, max_size=4))
def test_every_tree_of_plain_values_comes_back(tree: dict) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tree-{os.getpid()}"
    try:
        with patch("spatialsig._files.flush_entry"):  # nothing is to survive
            files.write_checkpoint(path, tree)
        assert same(tree, files.read_checkpoint(path))
    finally:
        path.unlink()


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold the function at state.hook.1; wanted tensors"):
        files.write_checkpoint(tmp_path / "c", {"hook": [1, len_of]})
    assert not list(tmp_path.iterdir())


def len_of() -> None:
    """Stands for code, which is never written."""


def test_every_kind_of_damage_is_found(tmp_path: Path) -> None:
    files.write_checkpoint(tmp_path / "c", TREE)
    content, rng = (tmp_path / "c").read_bytes(), np.random.default_rng(0)
    broken = [content[:n] for n in rng.integers(0, len(content), 20)]
    for place in rng.integers(0, len(content), 200):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        broken.append(bytes(changed))
    for damaged in broken:
        (tmp_path / "d").write_bytes(damaged)
        try:
            found = files.read_checkpoint(tmp_path / "d")
        except InputError:
            continue
        assert same(TREE, found)  # padding, or a name of a field that is not used


def test_the_one_before_is_used_where_the_newest_is_damaged(tmp_path: Path) -> None:
    for step in (5, 12):
        files.write_checkpoint(files.checkpoint_path(tmp_path, step), {"step": step})
    newest = files.checkpoint_path(tmp_path, 12)
    assert files.newest_checkpoint(tmp_path) == (newest, {"step": 12})
    newest.write_bytes(newest.read_bytes()[:-3])
    with pytest.warns(SpatialsigWarning, match=r"passed over: .*step-000000012.* is not a whole checkpoint"):
        assert files.newest_checkpoint(tmp_path)[1] == {"step": 5}
    newest.unlink()
    files.checkpoint_path(tmp_path, 5).unlink()
    assert files.newest_checkpoint(tmp_path) is None


def test_a_full_disk_leaves_the_checkpoint_before_and_a_warning(tmp_path: Path, monkeypatch) -> None:
    path = files.checkpoint_path(tmp_path, 1)
    files.write_checkpoint(path, {"step": 1})
    written: list[Path] = []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spatialsig._files.flush_entry", full)
    with pytest.warns(SpatialsigWarning, match="could not be written: .*No space left"):
        files.PlainCheckpointIO(written.append).save_checkpoint({"step": 2}, path)
    assert files.read_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not written


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder after 10 of 27 steps."""
    directory, log = tmp_path_factory.mktemp("stopped"), tmp_path_factory.mktemp("log") / "log"
    kills.struck(kills.train_autoencoder, directory, FLOAT32, log, step=10, number=signal.SIGTERM)
    return directory


@pytest.fixture
def run_dir(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def test_two_checkpoints_are_kept_while_training_and_one_after(run_dir: Path) -> None:
    kept = files.checkpoint_files(run_dir / "checkpoints")
    assert [path.stem for path in kept] == ["step-000000010", "step-000000009"]
    (run_dir / "checkpoints" / "step-000000009.safetensors.ab12.partial").write_bytes(b"half")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    model, history = kills.train_autoencoder(run_dir, FLOAT32)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000000027.safetensors"]
    torch.manual_seed(99)
    again, same_history = kills.train_autoencoder(run_dir, FLOAT32)  # finished: nothing is trained
    assert history.equals(same_history)
    assert all(torch.equal(a, b) for a, b in zip(model.net.parameters(), again.net.parameters(), strict=True))
    assert torch.initial_seed() == 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.1}, "`learning_rate` 0.001 then, 0.1 now"),
        ({"max_epochs": 5}, "`max_epochs` 3 then, 5 now; `n_steps` 27 then, 45 now"),
        ({"seed": 1}, "`seed` 0 then, 1 now; `training.seed` 0 then, 1 now"),
        ({"genes": [f"G{k}" for k in range(19)] + ["X"]}, "`genes` 20 then, 20 now, without 'G19', with 'X'"),
        ({"genes": [f"G{k}" for k in reversed(range(20))]}, "`genes` in another order"),
        ({"slides": [kills.counts(0), kills.counts(7)]}, r"`training.counts` '\w+' then, '\w+' now"),
        ({"slides": [kills.counts(0)]}, "`training.cells`"),
        ({"patience": None}, "`patience` 4 then, None now"),
        ({"config": kills.AutoencoderConfig(hidden=(16,), n_latent=4, dropout=0.2)}, "`net.config.n_latent` 3 then, 4"),
    ],
)
def test_another_training_is_refused_with_what_differs(run_dir: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        kills.train_autoencoder(run_dir, FLOAT32, **change)
    assert "checkpoint of another training" in str(caught.value)
    assert "resume='never'" in str(caught.value)


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"precision": "bf16"}])
def test_arithmetic_must_stay_the_same(run_dir: Path, change: dict) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(change))}`"):
        kills.train_autoencoder(run_dir, replace(FLOAT32, **change))


def test_another_network_of_images_is_refused_too(run_dir: Path) -> None:
    with pytest.raises(InputError, match="`module` 'AutoencoderModule' then, 'VitModule' now"):
        kills.train_vit(run_dir, FLOAT32)


def test_never_begins_again_and_a_path_goes_on_from_elsewhere(run_dir: Path, tmp_path: Path) -> None:
    began = kills.outcome(kills.train_autoencoder, run_dir, replace(FLOAT32, resume="never"), tmp_path / "log0")
    assert len(began.order) == 27
    source = tmp_path / "other"
    shutil.copytree(run_dir, source)
    for given_path in (source, next((source / "checkpoints").iterdir())):
        _, history = kills.train_autoencoder(None, replace(FLOAT32, resume=given_path))
        assert history["train_loss"].tolist() == [row["train_loss"] for row in began.history]


def test_a_path_without_a_checkpoint_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="holds no whole checkpoint"):
        kills.train_autoencoder(None, replace(FLOAT32, resume=tmp_path))
    with pytest.raises(FileMissingError, match=r"checkpoint .*nothing is not there"):
        kills.train_autoencoder(None, replace(FLOAT32, resume=tmp_path / "nothing"))


def test_cells_go_on_in_the_middle_of_an_epoch() -> None:
    options = {"mean": np.zeros(kills.N_GENES), "std": np.ones(kills.N_GENES), "batch_size": 32, "seed": 2}
    batches = kills.CellBatches([kills.counts(0)], **options)
    batches.set_epoch(4)
    whole, iterator = [batch.z for batch in batches], iter(batches)
    seen = [next(iterator).z for _ in range(3)]
    state = batches.state_dict()
    again = kills.CellBatches([kills.counts(0)], **options)
    again.load_state_dict(state)
    again.set_epoch(4)
    assert all(torch.equal(a, b) for a, b in zip(whole, [*seen, *(batch.z for batch in again)], strict=True))
    assert again.state_dict() == state | {"epoch": 5, "position": 0}
    other = kills.CellBatches([kills.counts(0)], **options | {"seed": 3})
    with pytest.raises(InputError, match="cannot resume where they stood: `seed` 2 then, 3 now"):
        other.load_state_dict(state)
