import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spatialsig.data import loader
from spatialsig.data.loader import PatchBatches
from spatialsig.data.passes import PatchDataset
from spatialsig.data.patches import ImageLevel, PatchSource, read_patches
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.nn.augment import Augment, AugmentConfig

PX = 8
SIZES = (40, 23)


def slide(name: str, n: int, seed: int, path=None) -> PatchSource:
    image = np.random.default_rng(seed).integers(0, 256, (3, 128, 128), dtype=np.uint8)
    corners = np.stack(np.meshgrid(np.arange(0, 128, PX), np.arange(0, 128, PX), indexing="ij"), -1).reshape(-1, 2)
    pixels = image
    if path is not None:
        import zarr

        zarr.create_array(path, data=image, chunks=(1, 64, 64))
        pixels = path
    return PatchSource(name, (ImageLevel(pixels, (128, 128)),), corners[:n], PX, PX)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[PatchSource]:
    """Two slides of 256 patches in chunks of 8 x 8 patches, one plane each: read by blocks."""
    root = tmp_path_factory.mktemp("stored")
    return [slide(f"S{k}", 256, k, root / f"{k}") for k in range(2)]


def batches(sources=None, **changes) -> PatchBatches:
    sources = [slide(f"S{k}", n, k) for k, n in enumerate(SIZES)] if sources is None else sources
    targets = [np.random.default_rng(k).normal(size=(len(s), 2)).astype(np.float32) for k, s in enumerate(sources)]
    return PatchBatches(sources, **{"targets": targets, "batch_size": 7, "seed": 3} | changes)


def stream(source: PatchBatches) -> list[dict[str, torch.Tensor]]:
    augment = Augment(AugmentConfig(), seed=1)
    return [batch | {"changed": augment(batch["image"], batch["id"], epoch=source.epoch)} for batch in source]


def assert_same(first, second) -> None:
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def small_cache(sources: list[PatchSource]) -> dict[str, float]:
    return {"cache_mb": 300 * 3 * PX * PX / 2**20}  # of 512 patches


@pytest.mark.parametrize("by_block", [True, False])
@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_pass_goes_on_exactly_where_it_stood(stored, by_block: bool, done: int) -> None:
    options = {"by_block": by_block, **small_cache(stored)}
    whole = batches(stored, **options)
    whole.set_epoch(2)
    expected = stream(whole)
    interrupted = batches(stored, **options)
    interrupted.set_epoch(2)
    iterator = iter(interrupted)
    for _ in range(done):
        next(iterator)
    state = interrupted.state_dict()
    resumed = batches(stored, **options)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)  # as a training loop does at its start
    assert_same(stream(resumed), expected[done:])
    resumed.set_epoch(3)
    whole.set_epoch(3)
    assert_same(stream(resumed), stream(whole))


def test_after_the_last_batch_comes_the_next_epoch() -> None:
    source = batches()
    list(source)
    state = source.state_dict()
    assert (state["epoch"], state["position"]) == (1, 0)


def test_a_state_of_other_batches_is_refused() -> None:
    state = batches().state_dict()
    with pytest.raises(InputError, match="`batch_size` 7 then, 5 now; .*|`batch_size` 7 then, 5 now"):
        batches(batch_size=5).load_state_dict(state)
    with pytest.raises(InputError, match=r"`seed` 3 then, 4 now"):
        batches(seed=4).load_state_dict(state)


def test_processes_share_one_order() -> None:
    alone, shares = batches(batch_size=6), [batches(batch_size=2, rank=r, world_size=3) for r in range(3)]
    for epoch in range(2):
        for source in (alone, *shares):
            source.set_epoch(epoch)
        assert {len(share) for share in shares} == {len(alone)}
        for whole, *parts in zip(alone, *shares, strict=True):
            assert sorted(whole["id"].tolist()) == sorted(i for part in parts for i in part["id"].tolist())
    with pytest.raises(InputError, match=r"`rank=3` must lie in 0..2"):
        batches(rank=3, world_size=3)


def test_large_chunks_are_visited_by_blocks_and_decoded_once(stored, monkeypatch) -> None:
    from spatialsig.data import chunks

    decoded = []
    decode = chunks.StoredArray.decode
    monkeypatch.setattr(chunks.StoredArray, "decode", lambda a, i, out: (decoded.append((a, i)), decode(a, i, out)))
    source = batches(stored)
    assert source.block is not None
    assert len(np.unique(source.block)) == 8
    seen = {int(i): image for batch in source for i, image in zip(batch["id"], batch["image"], strict=True)}
    assert len(decoded) == 2 * 4 * 3
    for k, part in enumerate(stored):
        for row, pixels in enumerate(read_patches(part, np.arange(len(part)))):
            np.testing.assert_array_equal(seen[k * 256 + row], pixels)
    assert batches().block is None  # in memory


def test_with_a_cache_too_small_for_all_a_block_is_decoded_once_a_visit(stored, monkeypatch) -> None:
    from spatialsig.data import chunks

    decoded = []
    decode = chunks.StoredArray.decode
    source = batches(stored, **small_cache(stored))
    monkeypatch.setattr(chunks.StoredArray, "decode", lambda a, i, out: (decoded.append((a, i)), decode(a, i, out)))
    assert sorted(int(i) for batch in source for i in batch["id"]) == list(range(512))
    assert len(decoded) == 3 * len(np.unique(source._visits(source.block)))


def test_a_cache_too_small_to_mix_blocks_is_told(stored) -> None:
    with pytest.warns(SpatialsigWarning, match=r"blocks of up to 64.*room to mix 258: .*patch_cache_mb=1"):
        batches(stored, cache_mb=150 * 3 * PX * PX / 2**20)


def test_reading_goes_on_while_a_batch_is_used(monkeypatch) -> None:
    source = batches()
    plain = source._batch

    def slow(*arguments):
        time.sleep(0.04)
        return plain(*arguments)

    monkeypatch.setattr(source, "_batch", slow)
    start = time.monotonic()
    for _ in source:
        time.sleep(0.04)
    spent = time.monotonic() - start
    assert spent < 0.04 * (len(source) * 1.45 + 1)  # the sum would be twice


def test_a_slow_consumer_is_not_flooded(monkeypatch) -> None:
    source, made = batches(batch_size=2), []
    plain = source._batch
    monkeypatch.setattr(source, "_batch", lambda *arguments: (made.append(1), plain(*arguments))[1])
    iterator = iter(source)
    next(iterator)
    time.sleep(0.2)
    assert len(made) <= loader.PREFETCH + 1


SLOW = pytest.mark.slow  # each spawned worker imports torch
WORKERS = [
    (0, None),
    (1, "fork"),
    (2, "fork"),
    pytest.param(1, "spawn", marks=SLOW),
    pytest.param(2, "spawn", marks=SLOW),
]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("num_workers", "method"), WORKERS)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_the_batches_of_one_process(stored, num_workers: int, method: str | None) -> None:
    source = batches(stored, **small_cache(stored))
    expected = list(source)  # the parent has read, with its threads, before the workers start
    data = PatchDataset(batches(stored, **small_cache(stored)))
    options = {"multiprocessing_context": method, "timeout": 120} if method else {}  # spawned ones import torch
    assert_same(within(150, DataLoader(data, batch_size=None, num_workers=num_workers, **options)), expected)
    assert len(data) == len(expected)


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_persist_follow_the_epoch() -> None:
    source, data = batches(), PatchDataset(batches())
    loaded = DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context="fork", persistent_workers=True, timeout=30
    )
    for epoch in (0, 4):
        source.set_epoch(epoch)
        data.set_epoch(epoch)
        assert_same(within(40, loaded), source)
    source.load_state_dict(source.state_dict() | {"epoch": 4, "position": 3})
    data.set_epoch(4, start=3)
    assert_same(within(40, loaded), source)


def within(seconds: float, items) -> list:
    """All items, or a failure after some time: a hang must not hang the tests."""
    got: list = []
    errors: list[Exception] = []

    def take() -> None:
        try:
            got.extend(items)
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
    for error in errors:
        raise error
    return got
