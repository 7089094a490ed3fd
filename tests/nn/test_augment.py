import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatialsig._stains import STAINS
from spatialsig.errors import InputError
from spatialsig.nn.augment import Augment, AugmentConfig, blur, dihedral, stain_matrix, turned, uniform
from spatialsig.nn.vit import optical_density

IDS = torch.arange(16)
NOTHING = AugmentConfig(dihedral=False, stain=0, offset=0, blur=0)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (16, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_dihedral_is_the_group_of_the_square() -> None:
    square = torch.arange(25).reshape(5, 5)
    views = [dihedral(square, k) for k in range(8)]
    assert torch.equal(views[0], square)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(views, 2))
    for j, k in itertools.product(range(8), repeat=2):  # closed
        assert sum(torch.equal(dihedral(views[j], k), view) for view in views) == 1
    for k in (4, 5, 6, 7):  # mirrorings undo themselves
        assert torch.equal(dihedral(views[k], k), square)
    assert torch.equal(dihedral(dihedral(square, 1), 3), square)
    assert torch.equal(dihedral(square, 1), torch.from_numpy(np.rot90(square.numpy()).copy()))


def test_no_change_asked_for_is_none_made(image: torch.Tensor) -> None:
    assert torch.equal(Augment(NOTHING)(image, IDS, epoch=0), optical_density(image))


def test_turning_only_moves_pixels(image: torch.Tensor) -> None:
    config = AugmentConfig(dihedral=True, stain=0, offset=0, blur=0)
    turned, plain = Augment(config)(image, IDS, epoch=0), optical_density(image)
    kinds = [next(k for k in range(8) if torch.equal(dihedral(a, k), b)) for a, b in zip(plain, turned, strict=True)]
    assert len(set(kinds)) > 4


def test_stain_matrix_scales_each_stain_and_leaves_the_rest() -> None:
    stains = torch.tensor(STAINS)
    stains = stains / stains.norm(dim=1, keepdim=True)
    rest = torch.linalg.cross(stains[0], stains[1])
    (matrix,) = stain_matrix(torch.tensor([[1.5, 0.5]]))
    torch.testing.assert_close(matrix @ stains[0], 1.5 * stains[0])
    torch.testing.assert_close(matrix @ stains[1], 0.5 * stains[1])
    torch.testing.assert_close(matrix @ rest, rest)
    torch.testing.assert_close(stain_matrix(torch.ones(1, 2))[0], torch.eye(3))


def test_blur_keeps_the_mean_of_a_wrapped_pattern_and_constants() -> None:
    flat = torch.full((2, 3, 5, 5), 0.7)
    torch.testing.assert_close(blur(flat, torch.tensor([0.2, 0.0])), flat)
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1
    kernel = torch.tensor([0.1, 0.8, 0.1])
    torch.testing.assert_close(blur(spot, torch.tensor([0.1]))[0, 0, 1:4, 1:4], torch.outer(kernel, kernel))


def test_each_image_is_turned_by_its_own_symmetry(image: torch.Tensor) -> None:
    symmetry = torch.arange(16) % 8
    expected = torch.stack([dihedral(one, k) for one, k in zip(image, symmetry.tolist(), strict=True)])
    assert torch.equal(turned(image, symmetry), expected)


def test_same_seed_epoch_and_patch_give_the_same_change_and_others_differ(image: torch.Tensor) -> None:
    def changed(seed: int, epoch: int, ids: torch.Tensor) -> torch.Tensor:
        return Augment(AugmentConfig(), seed=seed)(image, ids, epoch=epoch)

    torch.manual_seed(1)
    first = changed(0, 3, IDS)
    torch.manual_seed(2)
    assert torch.equal(first, changed(0, 3, IDS))
    for other in ((1, 3, IDS), (0, 4, IDS), (3, 0, IDS), (0, 3, IDS + 16)):
        assert not any(torch.equal(a, b) for a, b in zip(first, changed(*other), strict=True))


@given(
    chosen=st.lists(st.integers(0, 15), min_size=1, max_size=16),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 10_000),
    base=st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_patch_is_changed_alike_in_every_batch(image, chosen: list[int], seed: int, epoch: int, base: int) -> None:
    augment = Augment(AugmentConfig(), seed=seed)
    whole = augment(image, base + IDS, epoch=epoch)
    torch.testing.assert_close(augment(image[chosen], base + IDS[chosen], epoch=epoch), whole[chosen])


def test_draws_are_uniform_and_independent() -> None:
    draws = uniform(torch.arange(200_000), seed=5, epoch=7, n=7).double()
    assert 0 <= float(draws.min()) < 1e-3 < 0.999 < float(draws.max()) < 1
    counts = torch.stack([torch.histc(column, 16, 0, 1) for column in draws.T])
    chi2 = ((counts - 12_500) ** 2 / 12_500).sum(dim=1)
    assert float(chi2.max()) < 45  # 15 degrees of freedom: P < 1e-4
    others = [uniform(torch.arange(200_000) + d, seed=s, epoch=e, n=1).double() for d, s, e in
              ((1, 5, 7), (0, 6, 7), (0, 5, 8), (0, 7, 5))]  # fmt: skip
    correlation = torch.corrcoef(torch.cat([draws, *others], dim=1).T).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.012  # 5 standard errors


def test_draws_are_those_of_a_hash_computed_in_python() -> None:
    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    key = mixed((mixed(11) + 3 * mixed(4)) % 2**64)
    expected = [
        [mixed((mixed((i + key) % 2**64) + k * 0x9E3779B97F4A7C15) % 2**64) >> 40 for k in (1, 2)] for i in (0, 9)
    ]
    found = uniform(torch.tensor([0, 9]), seed=11, epoch=4, n=2) * 2**24
    assert found.long().tolist() == expected


def test_changes_stay_within_their_bounds(image: torch.Tensor) -> None:
    config = AugmentConfig(dihedral=False, stain=0.12, offset=0.02, blur=0)
    change = (Augment(config)(image, IDS, epoch=0) - optical_density(image)).abs()
    # both stains share directions: a pixel can change by no more than the worst pair of gains allows
    worst = max(float((stain_matrix(torch.tensor([[1 + a, 1 + b]])) - torch.eye(3)).abs().sum(-1).max())
                for a in (-0.12, 0.12) for b in (-0.12, 0.12))  # fmt: skip
    assert 0 < float(change.max()) <= worst * float(optical_density(image).max()) + 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AugmentConfig(blur=0.3), "`blur=0.3` must be at most 0.25"),
        (lambda: AugmentConfig(stain=-1), "`stain=-1` of `AugmentConfig` must be"),
        (lambda: dihedral(torch.zeros(2, 3), 0), "2 x 3 px; only squares"),
        (lambda: dihedral(torch.zeros(3, 3), 8), "`k=8` must lie in 0..7"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
