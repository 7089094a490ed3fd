import threading

import numpy as np
import pytest
import torch

from spatialsig._settings import settings
from spatialsig.data import cache as cache_module
from spatialsig.data.cache import PatchCache
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource, read_patches, read_slides
from spatialsig.errors import InputError

SIZES = (30, 12, 7)
PX = 8


def slide(name: str, n: int, seed: int) -> PatchSource:
    image = np.random.default_rng(seed).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    origins = np.stack([np.arange(n), np.arange(n) * 2 % 50], axis=1)
    return PatchSource(name, (ImageLevel(image, (64, 64)),), origins, PX, PX)


@pytest.fixture
def sources() -> list[PatchSource]:
    return [slide(f"S{k}", n, k) for k, n in enumerate(SIZES)]


@pytest.fixture
def targets() -> list[np.ndarray]:
    values = [np.random.default_rng(k).normal(size=(n, 2)).astype(np.float32) for k, n in enumerate(SIZES)]
    values[1][3, 0] = np.nan
    return values


def visited(batches: PatchBatches) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch["slide"].tolist(), batch["row"].tolist(), strict=True)]


@pytest.mark.parametrize("slide_balanced", [True, False])
@pytest.mark.parametrize("batch_size", [1, 10, 49, 100])
def test_every_patch_once_per_epoch(sources, targets, batch_size: int, slide_balanced: bool) -> None:
    batches = PatchBatches(sources, targets=targets, batch_size=batch_size, slide_balanced=slide_balanced)
    for epoch in range(3):
        batches.set_epoch(epoch)
        assert sorted(visited(batches)) == [(k, row) for k, n in enumerate(SIZES) for row in range(n)]
        assert len(list(batches)) == len(batches)


def test_each_row_comes_with_its_own_pixels_target_and_weight(sources, targets) -> None:
    weights = [np.arange(n, dtype=np.float64) + 100 * k for k, n in enumerate(SIZES)]
    ae = [np.random.default_rng(9 + k).normal(size=(n, 4)).astype(np.float32) for k, n in enumerate(SIZES)]
    ae[2][5] = np.nan
    for batch in PatchBatches(sources, targets=targets, ae=ae, weights=weights, batch_size=9):
        for i, (k, row) in enumerate(zip(batch["slide"].tolist(), batch["row"].tolist(), strict=True)):
            np.testing.assert_array_equal(batch["image"][i], read_patches(sources[k], [row])[0])
            assert batch["mask"][i].tolist() == np.isfinite(targets[k][row]).tolist()
            np.testing.assert_array_equal(batch["target"][i], np.nan_to_num(targets[k][row]))
            assert float(batch["weight"][i]) == weights[k][row]
            assert bool(batch["ae_present"][i]) == ((k, row) != (2, 5))
            np.testing.assert_array_equal(batch["ae"][i], np.nan_to_num(ae[k][row]))
        assert batch["image"].dtype == torch.uint8
        assert {batch[name].dtype for name in ("target", "weight", "ae")} == {torch.float32}


def test_order_depends_on_seed_and_epoch_only(sources, targets) -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        batches = PatchBatches(sources, targets=targets, batch_size=10, seed=seed)
        batches.set_epoch(epoch)
        np.random.seed(epoch)  # noqa: NPY002 - global state must not matter
        return visited(batches)

    assert order(0, 2) == order(0, 2)
    assert len({tuple(order(*pair)) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4


def test_balanced_batches_hold_every_slide_in_its_proportion(sources, targets) -> None:
    balanced = PatchBatches(sources, targets=targets, batch_size=7)
    for epoch in range(20):
        balanced.set_epoch(epoch)
        counts = np.array([np.bincount(batch["slide"], minlength=3) for batch in balanced])
        assert np.abs(counts - 7 * np.array(SIZES) / sum(SIZES)).max() < 2


def test_without_shuffling_rows_come_in_order_and_a_short_batch_can_be_left_out(sources, targets) -> None:
    plain = PatchBatches(sources, targets=targets, batch_size=10, shuffle=False)
    assert visited(plain) == [(k, row) for k, n in enumerate(SIZES) for row in range(n)]
    short = PatchBatches(sources, targets=targets, batch_size=10, drop_last=True)
    assert [len(batch["row"]) for batch in short] == [10] * 4
    assert len(short) == 4


def test_second_epoch_reads_nothing_that_fits(sources, targets, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_reads(monkeypatch)
    batches = PatchBatches(sources, targets=targets, batch_size=10)
    first = {pair: image for batch in batches for pair, image in pairs(batch)}
    assert len(decoded) == sum(SIZES)
    batches.set_epoch(1)
    second = {pair: image for batch in batches for pair, image in pairs(batch)}
    assert len(decoded) == sum(SIZES)
    assert all(torch.equal(first[pair], second[pair]) for pair in first)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    decoded: list[tuple[str, int]] = []

    def counted(requests) -> None:
        decoded.extend((request.source.sample, int(row)) for request in requests for row in request.rows)
        read_slides(requests)

    monkeypatch.setattr(cache_module, "read_slides", counted)
    return decoded


def pairs(batch: dict[str, torch.Tensor]):
    keys = zip(batch["slide"].tolist(), batch["row"].tolist(), strict=True)
    return zip(keys, batch["image"], strict=True)


def test_cache_never_grows_beyond_its_limit(sources, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_mb = 20.5 * 3 * PX * PX / 2**20
    cache = PatchCache(sources, limit_mb=limit_mb)
    expected = np.concatenate([read_patches(s, np.arange(len(s))) for s in sources])
    everything = np.arange(len(expected))
    for _ in range(3):
        np.testing.assert_array_equal(cache.read(everything), expected)
        assert cache.nbytes == 20 * 3 * PX * PX <= limit_mb * 2**20
    monkeypatch.setattr(settings, "patch_cache_mb", 0)
    assert PatchCache(sources).capacity == 0
    np.testing.assert_array_equal(PatchCache(sources).read(everything), expected)


def test_a_row_asked_for_twice_in_a_batch_is_kept_once(sources) -> None:
    cache = PatchCache(sources)
    images = cache.read(np.array([3, 3, 5, 3]))
    assert cache.nbytes == 2 * 3 * PX * PX
    np.testing.assert_array_equal(images, read_patches(sources[0], [3, 3, 5, 3]))


def test_patches_read_before_their_turn_wait_for_it_and_leave_after_it(sources, monkeypatch) -> None:
    decoded = count_reads(monkeypatch)
    cache = PatchCache(sources, limit_mb=20.5 * 3 * PX * PX / 2**20, passing=0.5)
    expected = np.concatenate([read_patches(s, np.arange(len(s))) for s in sources])
    stay = np.arange(10)
    np.testing.assert_array_equal(cache.read(stay, stay), expected[stay])  # the half that stays is full
    for turn in (np.array([12, 11]), np.array([14, 13])):
        due = np.arange(11, 21) if turn[0] == 12 else np.empty(0, np.int64)
        np.testing.assert_array_equal(cache.read(turn, due), expected[turn])
    assert len(decoded) == 20
    assert cache.held == 10 + 6
    cache.read(stay, None)
    assert len(decoded) == 20


def test_a_read_that_failed_can_be_tried_again(sources, monkeypatch) -> None:
    cache = PatchCache(sources)

    def broken(requests) -> None:
        raise OSError("unreadable")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_slides", broken)
        with pytest.raises(OSError, match="unreadable"):
            cache.read(np.arange(5))
    assert cache.held == 0
    np.testing.assert_array_equal(cache.read(np.arange(5)), read_patches(sources[0], np.arange(5)))


def test_leaving_early_ends_the_thread(sources, targets) -> None:
    for _ in PatchBatches(sources, targets=targets, batch_size=2):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spatialsig-ahead")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "no patches: `sources` is empty"),
        ({"targets": [np.zeros((30, 2), np.float32)]}, "`targets` holds 1 arrays for 3 slides"),
        (
            {"targets": [np.zeros((n + 1, 2)) for n in SIZES]},
            r"slide 'S0': `targets` of shape \(31, 2\); wanted 30 rows",
        ),
        ({"targets": [np.zeros((n, 2 + (n == 7))) for n in SIZES]}, r"slide 'S2': `targets` of shape \(7, 3\)"),
        ({"targets": [np.full((n, 2), np.inf) for n in SIZES]}, "`targets` holds infinite values"),
        ({"weights": [np.full(n, -1.0) for n in SIZES]}, "`weights` must be finite, at least 0"),
        ({"ae": [np.zeros((n, 4)) for n in (30, 12)]}, "`ae` holds 2 arrays for 3 slides"),
        ({"batch_size": 0}, "`batch_size` must be a finite number above 0"),
    ],
)
def test_errors(sources, targets, change, message: str) -> None:
    arguments = {"sources": sources, "targets": targets} | change
    with pytest.raises(InputError, match=message):
        PatchBatches(arguments.pop("sources"), **arguments)


def test_slides_must_share_the_patch_size(sources, targets) -> None:
    other = PatchSource("S9", sources[2].levels, sources[2].origins, PX, PX * 2)
    with pytest.raises(InputError, match=r"patches of different size: \{'S0': 8, 'S1': 8, 'S9': 16\} px"):
        PatchBatches([*sources[:2], other], targets=targets)
