import itertools
import logging

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from spatialsig.errors import InputError, TrainingError
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.stats.expression import gene_moments, library_size
from spatialsig.train import fit_autoencoder
from spatialsig.train.cells import CellBatches
from spatialsig.train.latent_axes import principal_components

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


@pytest.mark.slow
def test_cells_of_the_training_slides_choose_the_epoch_where_no_slide_does(data: dict) -> None:
    large = {
        "config": AutoencoderConfig(hidden=(512, 256), n_latent=8, dropout=0.0),
        "max_epochs": 40,
        "batch_size": 32,
    }
    chosen, history = fitted(data, validation=None, learning_rate=5e-3, **large)
    last, whole = fitted(data, validation=None, learning_rate=5e-3, held_out=0, **large)
    assert history["val_loss"].notna().all()
    assert history["val_loss"].idxmin() < len(history) - 1 < 39
    assert whole["val_loss"].isna().all()
    assert len(whole) == 40
    assert chosen.get_reconstruction_error(data["test"]) < 0.9 * last.get_reconstruction_error(data["test"])


def test_history_and_its_file(data: dict, tmp_path, capsys: pytest.CaptureFixture, caplog) -> None:
    with caplog.at_level(logging.INFO):
        _, history = fitted(data, max_epochs=2, validation=None, run_dir=tmp_path / "run", slides=data["train"][:1])
    assert list(history.columns) == ["epoch", "train_loss", "val_loss", "val_pearson", "seconds", "lr", "busy"]
    assert history["epoch"].tolist() == [0, 1]
    assert history["val_loss"].isna().all()
    assert history["busy"].between(0, 1).all()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "history.csv"]
    assert not [record for record in caplog.records if record.name.startswith("lightning")]
    assert "GPU" not in capsys.readouterr().err


def test_nan_loss_stops_with_epoch_and_step(data: dict) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss became (nan|inf) in epoch \d+, step \d+. Lower `learning_rate=1e"
    ):
        fitted(data, learning_rate=1e18, max_epochs=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": []}, "0 cells"),
        ({"slides": [sparse.csr_matrix((3, 7))]}, r"3 cells of \[7\] genes; wanted cells of 30 genes"),
        ({"max_epochs": 0}, "`max_epochs=0` .* must be"),
        ({"batch_size": 0}, "`batch_size=0` .* must be"),
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
        found = np.concatenate([batch.z.numpy() for batch in batches])
        assert len(found) == 1000 == 100 * len(batches)
        key = np.lexsort(np.round(found, 3).T)
        np.testing.assert_allclose(found[key], expected[np.lexsort(np.round(expected, 3).T)], atol=2e-3)
        orders.append(found)
    assert not np.array_equal(*orders)
    distance = np.abs(next(iter(batches)).z.numpy()[:, None] - expected[None, 600:]).max(axis=2).min(axis=1)
    assert 20 < (distance < 1e-3).sum() < 60  # 40 of 100 are from the second slide: slides are mixed


def test_components_are_those_of_an_svd(data: dict) -> None:
    batches = CellBatches(data["train"], mean=data["mean"], std=data["std"], batch_size=128, shuffle=False)
    components, offset = principal_components((batch.z for batch in batches), 4)
    z = np.concatenate([zscores(counts, data) for counts in data["train"]])
    expected = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2][:4]
    np.testing.assert_allclose(offset, z.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.abs((components.numpy() * expected).sum(axis=1)), 1, atol=1e-3)


class Counted:
    """A source that remembers what was read, as a store would be."""

    def __init__(self, counts: sparse.csr_matrix) -> None:
        self.counts, self.reads = counts, []

    n_cells = property(lambda self: self.counts.shape[0])
    nnz = property(lambda self: self.counts.nnz)

    def nnz_of(self, first: int, last: int) -> int:
        return int(self.counts.indptr[last] - self.counts.indptr[first])

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        self.reads.append((first, last))
        return self.counts[first:last]


def streamed(data: dict, monkeypatch: pytest.MonkeyPatch, **changes) -> CellBatches:
    """Batches that may hold a tenth of the cohort."""
    monkeypatch.setattr("spatialsig.data.cells.BLOCK_NNZ", 1000)
    nnz = sum(counts.nnz for counts in data["train"])
    monkeypatch.setattr("spatialsig.train.cells.settings.cells_mb", nnz * 8 / 2**20 / 10)
    options = {"mean": data["mean"], "std": data["std"], "batch_size": 32, "seed": 1} | changes
    return CellBatches([Counted(counts) for counts in data["train"]], **options)


def test_a_cohort_larger_than_memory_is_streamed_whole_and_mixed(data: dict, monkeypatch) -> None:
    batches = streamed(data, monkeypatch)
    assert batches.streamed
    for source in batches.sources:
        source.reads.clear()
    seen = list(batches)
    assert len(seen) == len(batches) == 1000 // 32
    found = np.concatenate([batch.z.numpy() for batch in seen])
    expected = np.concatenate([zscores(counts, data) for counts in data["train"]])
    # every cell at most once, all but the left-out remainder
    distance = np.abs(found[:, None, :3] - expected[None, :, :3]).sum(axis=2)
    exact = [np.flatnonzero((np.abs(expected - z) < 1e-3).all(axis=1)) for z in found]
    assert distance.shape == (992, 1000)
    assert all(len(hits) for hits in exact)
    assert len({int(hits[0]) for hits in exact}) >= 990
    slides = np.concatenate([batch.slide.numpy() for batch in seen])
    assert (slides == 1).sum() == pytest.approx(400, abs=32)
    assert 0.1 < np.mean([0 < (batch.slide == 1).float().mean() < 1 for batch in seen])
    covered = [sorted(source.reads) for source in batches.sources]
    assert [part[0][0] for part in covered] == [0, 0]
    assert all(a[1] == b[0] for part in covered for a, b in itertools.pairwise(part))


def test_streamed_epochs_differ_and_repeat_by_seed(data: dict, monkeypatch) -> None:
    def epoch(number: int) -> np.ndarray:
        batches = streamed(data, monkeypatch)
        batches.set_epoch(number)
        return np.concatenate([batch.z.numpy() for batch in batches])

    assert np.array_equal(epoch(0), epoch(0))
    assert not np.array_equal(epoch(0), epoch(1))


def test_validation_of_a_streamed_cohort_keeps_every_cell(data: dict, monkeypatch) -> None:
    batches = streamed(data, monkeypatch, shuffle=False)
    found = np.concatenate([batch.z.numpy() for batch in batches])
    expected = np.concatenate([zscores(counts, data) for counts in data["train"]])
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("loss", ["nb", "poisson"])
def test_count_losses_learn_and_explain_held_out_counts_better_than_the_mean_profile(data: dict, loss: str) -> None:
    config = AutoencoderConfig(hidden=(64, 32), n_latent=4, loss=loss)
    model, history = fitted(data, config=config, max_epochs=15, learning_rate=3e-3)
    dense = data["test"].toarray().astype(np.float64)
    profile = np.concatenate([counts.toarray() for counts in data["train"]]).sum(axis=0)
    flat = dense.sum(axis=1, keepdims=True) * profile / profile.sum()
    expected = model.reconstruct(data["test"]).astype(np.float64)
    np.testing.assert_allclose(expected.sum(axis=1), dense.sum(axis=1), rtol=1e-4)
    assert stats.poisson.logpmf(dense, expected).mean() > stats.poisson.logpmf(dense, flat).mean() + 0.3
    assert model.get_reconstruction_error(data["test"]) == pytest.approx(history["val_loss"].min(), rel=1e-3)
    if loss == "poisson":
        found = model.get_reconstruction_error(data["test"])
        assert found == pytest.approx(-stats.poisson.logpmf(dense, expected).mean(), rel=1e-4)


def test_the_start_of_a_count_loss_is_already_near_the_counts(data: dict) -> None:
    plain = AutoencoderConfig(hidden=(64, 32), n_latent=4, loss="poisson", linear_path=False)
    started = AutoencoderConfig(hidden=(64, 32), n_latent=4, loss="poisson")
    first = [fitted(data, config=c, max_epochs=1, learning_rate=1e-5)[1]["train_loss"][0] for c in (plain, started)]
    assert first[1] < first[0]


def test_genes_a_slide_lacks_are_neither_seen_nor_judged(data: dict) -> None:
    """Slide 1 does not measure the last ten genes: garbage there must not change anything."""
    lacking = np.ones((2, N_GENES), bool)
    lacking[1, 20:] = False
    clean, garbage = (s.tolil() for s in (data["train"][1], data["train"][1]))
    clean[:, 20:] = 0
    garbage[:, 20:] = 0
    options = {"measured": lacking, "validation": None, "max_epochs": 2}
    slides = [data["train"][0], clean.tocsr()]
    model, history = fitted(data, slides=slides, **options)
    assert model.config.masked
    batches = CellBatches(slides, mean=data["mean"], std=data["std"], batch_size=100, measured=lacking)
    batch = next(iter(batches))
    assert (batch.z[batch.slide == 1][:, 20:] == 0).all()
    # were absent genes judged as zeros, the loss would fall by their z-scores of 0 being rebuilt with ease
    judged, _ = fitted(data, slides=slides, validation=None, max_epochs=2)
    error = model.get_reconstruction_error(slides[1], measured=lacking[1])
    assert error < judged.get_reconstruction_error(slides[1], measured=lacking[1]) * 1.02
    z = model.get_latent_representation(slides[1], measured=lacking[1])
    assert np.isfinite(z).all()
    assert np.isfinite(history["train_loss"]).all()


@pytest.mark.slow
def test_slide_offsets_take_a_batch_effect_out_of_the_embedding(data: dict) -> None:
    """The second slide's chemistry triples ten genes; told the slide, the decoder explains it by an offset."""
    shifted = data["train"][1].tolil()
    shifted[:, :10] = shifted[:, :10] * 3
    slides = [data["train"][0], shifted.tocsr()]

    def gap(n_batches: int) -> float:
        config = AutoencoderConfig(hidden=(64, 32), n_latent=4, linear_path=False, n_batches=n_batches)
        model, _ = fitted(data, slides=slides, config=config, validation=None, max_epochs=25, learning_rate=3e-3)
        codes = [model.get_latent_representation(counts) for counts in slides]
        spread = np.concatenate([c - c.mean(axis=0) for c in codes]).std(axis=0)
        return float(np.linalg.norm((codes[0].mean(axis=0) - codes[1].mean(axis=0)) / spread))

    assert gap(2) < gap(0)


def test_denoising_rebuilds_what_was_hidden(data: dict) -> None:
    config = AutoencoderConfig(hidden=(64, 32), n_latent=4, dropout=0.3)
    model, history = fitted(data, config=config, max_epochs=10, learning_rate=3e-3)
    assert model.get_reconstruction_error(data["test"]) < 1.1 * pca_error(data, 4)
    assert np.isfinite(history["train_loss"]).all()
