"""The embedding gets the covariance that is signal; what is rebuilt stays what it was."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from spatialsig.nn.autoencoder import AutoencoderConfig, AutoencoderNet
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train.latent_axes import LEAST, scale_by_signal, signal_scaling


def test_the_map_gives_the_covariance_of_the_signal() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    signal = rng.normal(size=(200_000, 3)) * [2.0, 1.0, 0.0] @ mixing
    noise = [rng.normal(size=signal.shape) @ rng.normal(size=(3, 3)) for _ in range(2)]
    whole = signal + (noise[0] + noise[1]) / 2
    change, share = signal_scaling(whole, signal + noise[0], signal + noise[1])
    assert (np.diff(share) <= 0).all()
    assert share[2] == pytest.approx(0, abs=0.02)
    # the direction without signal keeps a trace
    lost = np.cov((whole @ change).T) - np.cov(signal.T)
    assert np.abs(lost).max() < 0.05 * np.abs(np.cov(whole.T)).max()
    assert np.linalg.cond(change) < 10 / np.sqrt(LEAST)


@pytest.mark.parametrize("linear_path", [True, False])
def test_what_is_decoded_stays(linear_path: bool) -> None:
    torch.manual_seed(0)
    net = AutoencoderNet(12, AutoencoderConfig(hidden=(9,), n_latent=3, linear_path=linear_path)).eval()
    z, centre, change = torch.randn(20, 12), torch.randn(3), torch.randn(3, 3)
    code, rebuilt = net.encode(z), net(z)
    net.change_axes(centre, change)
    torch.testing.assert_close(net.encode(z), (code - centre) @ change, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(z), rebuilt, rtol=1e-3, atol=1e-3)


def cells(n: int, seed: int) -> sparse.csr_matrix:
    """Two groups of genes that go up and down together; the others are noise."""
    rng = np.random.default_rng(seed)
    rate = np.full((n, 40), 2.0)
    for genes in (slice(0, 10), slice(10, 20)):
        rate[:, genes] *= np.exp(rng.normal(0, 0.8, (n, 1)))
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def test_directions_without_signal_become_narrow() -> None:
    slides = [cells(3000, 0), cells(2000, 1)]
    sums = [gene_moments(c, library_size(c)) for c in slides]
    mean, std = scaler_from_moments(sum(s for s, _ in sums), sum(q for _, q in sums), 5000)
    torch.manual_seed(0)
    net = AutoencoderNet(40, AutoencoderConfig(hidden=(8,), n_latent=6, dropout=0.0)).eval()
    joined = sparse.vstack(slides).tocsr()
    dense = joined.toarray() / joined.sum(axis=1) * 1e4
    z = torch.from_numpy(np.asarray((np.log1p(dense) - mean) / std)).float()
    basis = np.zeros((6, 40), np.float32)
    basis[0, :10] = basis[1, 10:20] = 1 / np.sqrt(10)  # signal
    basis[2:, 20:24] = np.eye(4)  # single genes
    net.start_from_components(torch.from_numpy(basis), torch.zeros(40))
    before, rebuilt = net.encode(z).detach().numpy(), net(z)
    share = scale_by_signal(net, slides, mean=mean, std=std)
    after = net.encode(z).detach().numpy()
    assert (share[:2] > 0.5).all()
    assert (np.abs(share[3:]) < 0.1).all()
    torch.testing.assert_close(net(z), rebuilt, rtol=1e-3, atol=1e-3)
    assert (after.std(axis=0)[2:] < 0.45 * before.std(axis=0)[2:]).all()
    assert (after.std(axis=0)[:2] > 0.7 * before.std(axis=0)[:2]).all()


def test_few_cells_change_nothing() -> None:
    net = AutoencoderNet(40, AutoencoderConfig(hidden=(8,), n_latent=6))
    start = copy.deepcopy(net.state_dict())
    assert scale_by_signal(net, [cells(30, 0)], mean=np.zeros(40), std=np.ones(40)) is None
    assert all(torch.equal(start[name], value) for name, value in net.state_dict().items())
    assert net.training
