import logging

import numpy as np
import pytest
import torch
from scipy import sparse

from spatialsig._errors import InputError
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.stats.expression import gene_moments, library_size
from spatialsig.train import fit_autoencoder
from spatialsig.train.cells import CellBatches
from spatialsig.train.components import principal_components

CONFIG = AutoencoderConfig(hidden=(64, 32), n_latent=4)
N_GENES = 30


def slide(seed: int, n_cells: int = 600) -> sparse.csr_matrix:
    """Cells of four types and a continuous programme, negative-binomial counts."""
    panel, rng = np.random.default_rng(99), np.random.default_rng(seed)
    types = panel.gamma(0.4, 4.0, (4, N_GENES))
    rate = types[rng.integers(0, 4, n_cells)] * np.exp(
        np.outer(rng.normal(size=n_cells), panel.normal(0, 0.5, N_GENES))
    )
    return sparse.csr_matrix(rng.poisson(rng.gamma(1.5, rate / 1.5)).astype(np.float32))


@pytest.fixture(scope="module")
def data() -> dict:
    train = [slide(0), slide(1, 400)]
    sums = [gene_moments(counts, library_size(counts)) for counts in train]
    mean = sum(s for s, _ in sums) / 1000
    std = np.sqrt(sum(q for _, q in sums) / 1000 - mean**2)
    return {"train": train, "test": slide(2), "mean": mean, "std": std, "genes": [f"G{k}" for k in range(N_GENES)]}


def zscores(counts: sparse.csr_matrix, data: dict) -> np.ndarray:
    dense = counts.toarray().astype(np.float64)
    return (np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)) - data["mean"]) / data["std"]


def fitted(data: dict, **changes):
    arguments = {"config": CONFIG, "max_epochs": 8, "batch_size": 64, "validation": [data["test"]]} | changes
    slides = arguments.pop("slides", data["train"])
    return fit_autoencoder(slides, genes=data["genes"], mean=data["mean"], std=data["std"], **arguments)


def pca_error(data: dict, n: int) -> float:
    z, held_out = np.concatenate([zscores(c, data) for c in data["train"]]), zscores(data["test"], data)
    basis = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2][:n]
    return float((((held_out - z.mean(axis=0)) @ (np.eye(N_GENES) - basis.T @ basis)) ** 2).mean())


def test_held_out_cells_are_rebuilt_better_than_by_a_pca_of_equal_width(data: dict) -> None:
    model, history = fitted(data, max_epochs=20, learning_rate=3e-3)
    assert model.get_reconstruction_error(data["test"]) < 0.97 * pca_error(data, 4)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_plain_network_learns_too(data: dict) -> None:
    model, _ = fitted(data, config=AutoencoderConfig(hidden=(64, 32), n_latent=4, linear_path=False), max_epochs=15)
    assert model.get_reconstruction_error(data["test"]) < 0.9 * float((zscores(data["test"], data) ** 2).mean())
    assert "enc_linear.weight" not in model.net.state_dict()


def test_training_is_the_same_for_the_same_seed_and_leaves_torchs_generator_alone(data: dict) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    states = [fitted(data, max_epochs=2, seed=seed)[0].net.state_dict() for seed in (3, 3, 4)]
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_best_epoch_is_kept_and_training_stops_after_patience(data: dict) -> None:
    model, history = fitted(data, learning_rate=0.02, max_epochs=30, patience=2)
    assert len(history) < 30
    assert history["val_loss"].idxmin() == len(history) - 3
    assert model.get_reconstruction_error(data["test"]) == pytest.approx(history["val_loss"].min(), rel=1e-3)


def test_history_and_its_file(data: dict, tmp_path, capsys: pytest.CaptureFixture, caplog) -> None:
    with caplog.at_level(logging.INFO):
        _, history = fitted(data, max_epochs=2, validation=None, run_dir=tmp_path / "run", slides=data["train"][:1])
    assert list(history.columns) == ["epoch", "train_loss", "val_loss", "val_pearson", "seconds", "lr"]
    assert history["epoch"].tolist() == [0, 1]
    assert history["val_loss"].isna().all()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["history.csv"]
    assert not [record for record in caplog.records if record.name.startswith("lightning")]
    assert "GPU" not in capsys.readouterr().err


def test_nan_loss_stops_with_epoch_and_step(data: dict) -> None:
    with pytest.raises(InputError, match=r"the loss became (nan|inf) in epoch \d+, step \d+. Lower `learning_rate=1e"):
        fitted(data, learning_rate=1e30, max_epochs=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": []}, "0 cells"),
        ({"slides": [sparse.csr_matrix((3, 7))]}, r"3 cells of \[7\] genes; wanted cells of 30 genes"),
        ({"max_epochs": 0}, "`max_epochs` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
    ],
)
def test_errors(data: dict, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(data, **change)


def test_batches_hold_every_cell_of_every_slide_once(data: dict) -> None:
    batches = CellBatches(data["train"], mean=data["mean"], std=data["std"], batch_size=100, seed=1)
    expected = np.concatenate([zscores(counts, data) for counts in data["train"]])
    orders = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        found = np.concatenate([z.numpy() for z in batches])
        assert len(found) == 1000 == 100 * len(batches)
        key = np.lexsort(np.round(found, 3).T)
        np.testing.assert_allclose(found[key], expected[np.lexsort(np.round(expected, 3).T)], atol=2e-3)
        orders.append(found)
    assert not np.array_equal(*orders)
    distance = np.abs(next(iter(batches)).numpy()[:, None] - expected[None, 600:]).max(axis=2).min(axis=1)
    assert 20 < (distance < 1e-3).sum() < 60  # 40 of 100 are from the second slide: slides are mixed


def test_components_are_those_of_an_svd(data: dict) -> None:
    batches = CellBatches(data["train"], mean=data["mean"], std=data["std"], batch_size=128, shuffle=False)
    components, offset = principal_components(batches, 4)
    z = np.concatenate([zscores(counts, data) for counts in data["train"]])
    expected = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2][:4]
    np.testing.assert_allclose(offset, z.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.abs((components.numpy() * expected).sum(axis=1)), 1, atol=1e-3)
