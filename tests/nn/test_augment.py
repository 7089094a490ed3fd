import itertools

import numpy as np
import pytest
import torch

from spatialsig._errors import InputError
from spatialsig.nn.augment import STAINS, Augment, AugmentConfig, blur, dihedral, stain_matrix
from spatialsig.nn.vit import optical_density

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
    assert torch.equal(Augment(NOTHING)(image, epoch=0, step=0), optical_density(image))


def test_turning_only_moves_pixels(image: torch.Tensor) -> None:
    config = AugmentConfig(dihedral=True, stain=0, offset=0, blur=0)
    turned, plain = Augment(config)(image, epoch=0, step=0), optical_density(image)
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


def test_same_seed_epoch_and_step_give_the_same_changes_and_others_differ(image: torch.Tensor) -> None:
    def changed(seed: int, epoch: int, step: int) -> torch.Tensor:
        return Augment(AugmentConfig(), seed=seed)(image, epoch=epoch, step=step)

    torch.manual_seed(1)
    first = changed(0, 3, 5)
    torch.manual_seed(2)
    assert torch.equal(first, changed(0, 3, 5))
    for other in ((1, 3, 5), (0, 4, 5), (0, 3, 6)):
        assert not torch.equal(first, changed(*other))


def test_changes_stay_within_their_bounds(image: torch.Tensor) -> None:
    config = AugmentConfig(dihedral=False, stain=0.12, offset=0.02, blur=0)
    change = (Augment(config)(image, epoch=0, step=0) - optical_density(image)).abs()
    # both stains share directions: a pixel can change by no more than the worst pair of gains allows
    worst = max(float((stain_matrix(torch.tensor([[1 + a, 1 + b]])) - torch.eye(3)).abs().sum(-1).max())
                for a in (-0.12, 0.12) for b in (-0.12, 0.12))  # fmt: skip
    assert 0 < float(change.max()) <= worst * float(optical_density(image).max()) + 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AugmentConfig(blur=0.3), "`blur=0.3` must be at most 0.25"),
        (lambda: AugmentConfig(stain=-1), "`stain` must lie between"),
        (lambda: dihedral(torch.zeros(2, 3), 0), "2 x 3 px; only squares"),
        (lambda: dihedral(torch.zeros(3, 3), 8), "`k=8` must lie in 0..7"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
