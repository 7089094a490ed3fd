"""The last word on a score: a kernel regression as scikit-learn computes it, and a weighted sum, in float32 whatever the precision."""

import numpy as np
import torch
from sklearn.metrics.pairwise import rbf_kernel

from spatialsig.nn.stacking import PARTS, Stacking, gaussian_kernel


def filled(n_landmarks: int = 5, n_latent: int = 3, n_targets: int = 2) -> Stacking:
    torch.manual_seed(0)
    stacking = Stacking(n_landmarks, n_latent, n_targets)
    for buffer in stacking.buffers():
        buffer.copy_(torch.rand_like(buffer))
    return stacking


def test_the_kernel_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 4)), rng.normal(size=(5, 4))
    found = gaussian_kernel(torch.from_numpy(a), torch.from_numpy(b), 0.8).numpy()
    np.testing.assert_allclose(found, rbf_kernel(a, b, gamma=0.8 / 4), rtol=1e-12)


def test_scores_are_the_weighted_sum_of_the_parts() -> None:
    stacking = filled()
    code, image, fused = torch.rand(4, 3), torch.rand(4, 2), torch.rand(4, 2)
    kernel = rbf_kernel(code.numpy(), stacking.landmarks.numpy(), gamma=float(stacking.width) / 3)
    expression = stacking.offset.numpy() + code.numpy() @ stacking.linear.numpy() + kernel @ stacking.weights.numpy()
    np.testing.assert_allclose(stacking.expression(code), expression, rtol=1e-5)
    parts = dict(zip(PARTS, (expression, image.numpy(), fused.numpy()), strict=True))
    expected = sum(share * part for share, part in zip(stacking.shares.numpy(), parts.values(), strict=True))
    np.testing.assert_allclose(stacking(code, image, fused), expected, rtol=1e-5)


def test_lower_precision_does_not_reach_the_kernel() -> None:
    stacking = filled()
    inputs = torch.rand(4, 3), torch.rand(4, 2), torch.rand(4, 2)
    expected = stacking(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(stacking(*inputs), expected, rtol=0, atol=0)
