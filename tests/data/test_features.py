"""Features in place of pixels: each with its own row, never a NaN, and of a network exactly as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from spatialsig.data.features import FeatureBatches, FeatureSource, compute_features, in_batches, read_inputs
from spatialsig.data.patches import ImageLevel, PatchSource, read_patches
from spatialsig.errors import InputError

PX, EDGE = 8, 256


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    import spatialsig as sp

    sp.settings.progress = False


@pytest.fixture
def slide(tmp_path: Path) -> PatchSource:
    """Patches in random order over an image of four chunks."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, EDGE, EDGE), dtype=np.uint8)
    zarr.create_array(tmp_path / "s0", data=image, chunks=(3, EDGE // 2, EDGE // 2))
    origins = rng.integers(0, EDGE // PX, (90, 2)) * PX  # none lies in two chunks
    return PatchSource("S1", (ImageLevel(tmp_path / "s0", (EDGE, EDGE)),), origins, PX, PX)


def table(name: str, n: int, width: int = 3) -> FeatureSource:
    return FeatureSource(name, np.random.default_rng(n).normal(size=(n, width)).astype(np.float32), PX)


class MeanColour(nn.Module):
    """Mean of each channel; halved at random while it trains."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.drop(pixels.float().mean(dim=(2, 3)) * self.one)


def test_every_batch_holds_the_features_of_its_rows() -> None:
    sources = [table("A", 20), table("B", 9)]
    batches = FeatureBatches(sources, targets=[np.zeros((len(s), 1), np.float32) for s in sources], batch_size=6)
    seen = set()
    for batch in batches:
        for image, k, row in zip(batch["image"], batch["slide"].tolist(), batch["row"].tolist(), strict=True):
            np.testing.assert_array_equal(image, sources[k].features[row])
            seen.add((k, row))
    assert len(seen) == 29


def test_a_checkpoint_knows_other_features_and_other_labels() -> None:
    def identity(change_feature: float = 0, change_target: float = 0, **options: object) -> dict:
        source, target = table("A", 12), np.zeros((12, 2), np.float32)
        source.features[7, 1] += change_feature
        target[3, 0] += change_target
        return FeatureBatches([source], targets=[target], **{"batch_size": 4} | options).identity()

    assert identity() == identity()
    others = [identity(change_feature=1e-3), identity(change_target=1e-3), identity(seed=1), identity(batch_size=6)]
    assert all(other != identity() for other in others)


def test_features_of_other_widths_or_without_a_value_are_refused() -> None:
    targets = [np.zeros((5, 1), np.float32)] * 2
    with pytest.raises(InputError, match=r"features of different width: \{'A': 3, 'B': 4\}; make them with one"):
        FeatureBatches([table("A", 5), table("B", 5, width=4)], targets=targets)
    hollow = table("B", 5)
    hollow.features[2] = np.nan
    with pytest.raises(InputError, match="slide 'B': features of patches must be finite"):
        FeatureBatches([table("A", 5), hollow], targets=targets)
    np.testing.assert_array_equal(read_inputs(hollow, np.array([2, 0])), hollow.features[[2, 0]])  # NaN is read


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_patches_of_a_chunk_come_together_each_once_with_its_own_pixels(slide: PatchSource, batch_size: int) -> None:
    pairs = list(in_batches(slide, batch_size))
    assert all(len(rows) == batch_size for rows, _ in pairs[:-1])
    order = np.concatenate([rows for rows, _ in pairs])
    assert sorted(order.tolist()) == list(range(90))
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in pairs]), read_patches(slide, order))
    chunk = (slide.origins[order] // (EDGE // 2)) @ [2, 1]
    assert (np.diff(chunk) != 0).sum() == 3  # four chunks, each entered once
    assert list(in_batches(FeatureSource("none", np.empty((0, 3), np.float32), PX), 4)) == []


def test_a_network_is_asked_as_it_is_and_handed_back(slide: PatchSource) -> None:
    net = MeanColour().train()
    found = compute_features(slide, net, batch_size=16)
    expected = read_patches(slide, np.arange(len(slide))).mean(axis=(2, 3))
    np.testing.assert_allclose(found.features, expected, rtol=1e-5)  # in order, and nothing dropped
    assert (found.sample, found.out_px, found.features.dtype) == ("S1", PX, np.float32)
    assert net.one.device.type == "cpu"
    with pytest.raises(InputError, match="`batch_size` must be a finite number above 0"):
        compute_features(slide, net, batch_size=0)
