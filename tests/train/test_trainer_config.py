import sys
from pathlib import Path

import pytest
import torch

from spatialsig.errors import InputError, SpatialsigError
from spatialsig.train.loop import TrainerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resume": ""}, "`resume=''` .* a string that is not empty"),
        ({"checkpoint_minutes": 0}, "`checkpoint_minutes=0` of `TrainerConfig` must be greater than 0"),
        ({"accumulate": 0}, "`accumulate=0` .* greater than or equal to 1"),
        ({"accumulate": 1.5}, "`accumulate=1.5` .* a valid integer"),
        ({"num_nodes": True}, "`num_nodes=True` .* a valid integer"),
        ({"devices": "two"}, "`devices='two'` .* a valid integer or 'auto'"),
        ({"precision": "64"}, "`precision='64'` is not known; choose one of .*'bf16'"),
        ({"strategy": "fsdp"}, "`strategy='fsdp'` is not known; choose one of .*'ddp'"),
        ({"logger": "wandb"}, "`logger='wandb'` is not known"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainerConfig(**change)


def test_tensorboard_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialsig.train.trainer_config.find_spec", lambda _: None)
    with pytest.raises(SpatialsigError, match="needs TensorBoard, which is not installed: pip install tensorboard"):
        TrainerConfig(logger="tensorboard")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has float16")
def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="`precision='16'` needs a GPU"):
        kills.train_autoencoder(None, TrainerConfig(precision="16"))


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Where every cell weighs the same and no gene is hidden, the steps are the same."""
    config = kills.AutoencoderConfig(hidden=(16,), n_latent=3, linear_path=False)
    large, small = (
        kills.train_autoencoder(
            tmp_path / str(n), TrainerConfig(accumulate=n, precision="32"), batch_size=120 // n, config=config
        )
        for n in (1, 2)
    )
    assert large[1]["val_loss"].tolist() == pytest.approx(small[1]["val_loss"].tolist(), rel=1e-4)
    assert large[1]["lr"].tolist() == pytest.approx(small[1]["lr"].tolist())


def test_without_a_logger_no_history_is_written(tmp_path: Path) -> None:
    kills.train_autoencoder(tmp_path, TrainerConfig(logger=None), max_epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
