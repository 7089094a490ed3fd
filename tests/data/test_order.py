import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialsig.data.order import block_shuffle, blocks_of, dispersed, full_shuffle, rank_batches, with_blocks
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.errors import InputError

SLIDE = np.repeat(np.arange(3), (640, 320, 64))
BLOCK = np.arange(len(SLIDE)) // 16  # 16 patches each, none on two slides


@given(n=st.integers(1, 200), batch_size=st.integers(1, 9), world_size=st.integers(1, 5), drop_last=st.booleans())
@settings(deadline=None, max_examples=200)
def test_processes_share_an_epoch(n: int, batch_size: int, world_size: int, drop_last: bool) -> None:
    if n < world_size:
        return
    order = np.random.default_rng(n).permutation(n)
    shares = [
        rank_batches(order, batch_size=batch_size, rank=r, world_size=world_size, drop_last=drop_last)
        for r in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1  # as many batches each
    assert all(1 <= len(batch) <= batch_size for share in shares for batch in share)
    seen = np.concatenate([np.empty(0, np.int64), *(batch for share in shares for batch in share)])
    assert len(np.unique(seen)) == len(seen)  # none twice
    rest = n % (batch_size * world_size)
    left_out = rest if drop_last else (rest if rest < world_size and batch_size == 1 else 0)
    if (not drop_last and n >= batch_size * world_size) or not rest:
        assert len(seen) == n - left_out


def test_the_processes_of_a_step_see_what_one_would_see() -> None:
    order = np.random.default_rng(0).permutation(97)
    alone = rank_batches(order, batch_size=12)
    shares = [rank_batches(order, batch_size=4, rank=r, world_size=3) for r in range(3)]
    for step in range(7):
        together = np.concatenate([share[step] for share in shares])
        assert sorted(together) == sorted(alone[step])


def test_fewer_patches_than_processes_are_refused() -> None:
    with pytest.raises(InputError, match="2 patches cannot be shared by `world_size=3` processes"):
        rank_batches(np.arange(2), batch_size=4, world_size=3)


@pytest.mark.parametrize("slide_balanced", [True, False])
def test_orders_hold_every_patch_once_and_depend_on_seed_and_epoch(slide_balanced: bool) -> None:
    for order in (
        lambda **k: full_shuffle(SLIDE, **k),
        lambda **k: block_shuffle(SLIDE, BLOCK, window=200, **k)[0],
    ):
        orders = [order(seed=s, epoch=e, slide_balanced=slide_balanced) for s, e in ((0, 0), (0, 1), (1, 0), (0, 0))]
        for one in orders:
            assert sorted(one) == list(range(len(SLIDE)))
        assert np.array_equal(orders[0], orders[3])
        assert not any(np.array_equal(orders[0], one) for one in orders[1:3])


def test_a_patch_comes_within_a_window_of_its_block() -> None:
    order, visit = block_shuffle(SLIDE, BLOCK, window=200, seed=3, epoch=2, slide_balanced=True)
    assert all(len(np.unique(BLOCK[visit == one])) == 1 for one in np.unique(visit))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    reach = [np.ptp(place[visit == one]) for one in np.unique(visit)]
    assert max(reach) <= 200 + 16
    assert np.median(reach) > 100  # and is spread over it
    twice = len(np.unique(visit)) - len(np.unique(BLOCK))
    assert 0 < twice <= 200 / 16 + 1
    waiting = [np.isin(visit[order[k:]], visit[order[:k]]).sum() for k in range(50, len(order), 50)]
    assert max(waiting) <= 200 / 3 + 4 * 16  # what has to be held: a third of a window and a few blocks


@given(st.integers(0, 300), st.integers(0, 2**31))
def test_every_stretch_of_what_is_dispersed_comes_from_all_parts(n, seed) -> None:
    order = dispersed(np.arange(n), np.random.default_rng(seed))
    assert sorted(order) == list(range(n))
    for start in range(0, n - 16 + 1, 16):
        late = (order[start : start + 16] >= n / 2).mean()
        assert abs(late - 0.5) <= 3 / 16  # two of 16 may have changed places with the next, one more where n is odd


def test_orders_of_what_is_dispersed_differ() -> None:
    drawn = {tuple(dispersed(np.arange(16), np.random.default_rng(seed))) for seed in range(50)}
    assert len(drawn) == 50


@pytest.mark.parametrize("window", [320, 1536])
def test_neighbours_of_a_block_are_rare_in_a_batch(window) -> None:
    """Pairs of one block 16 places apart: 4 / (3 window) each way, nearly as rare as by chance where all patches fit."""
    pairs = []
    for epoch in range(60):
        order = block_shuffle(SLIDE, BLOCK, window=window, seed=1, epoch=epoch, slide_balanced=False)[0]
        pairs.append((BLOCK[order[16:]] == BLOCK[order[:-16]]).mean())
    expected = (16 - 1) * (4 / (3 * window) if window < len(SLIDE) else 1.17 / len(SLIDE))
    assert np.mean(pairs) == pytest.approx(expected, rel=0.35)


def test_the_ends_of_an_epoch_mix_as_many_blocks_as_its_middle() -> None:
    blocks = []
    for epoch in range(40):
        order = block_shuffle(SLIDE, BLOCK, window=320, seed=0, epoch=epoch, slide_balanced=True)[0]
        blocks.append([len(np.unique(BLOCK[part])) for part in np.split(order, 32)])
    mean = np.mean(blocks, axis=0)
    assert mean.max() - mean.min() < 0.12 * mean.mean()


def test_every_stretch_of_blocks_holds_the_slides_in_their_proportion() -> None:
    order, _ = block_shuffle(SLIDE, BLOCK, window=200, seed=0, epoch=0, slide_balanced=True)
    share = np.array([np.bincount(SLIDE[part], minlength=3) / 128 for part in np.split(order, 8)])
    assert np.abs(share - np.bincount(SLIDE) / len(SLIDE)).max() < 0.16


def test_blocks_are_read_when_first_used_and_once() -> None:
    order, visit = block_shuffle(SLIDE, BLOCK, window=200, seed=0, epoch=0, slide_balanced=True)
    turns = with_blocks([order[k : k + 10] for k in range(0, len(order), 10)], visit)
    assert sorted(np.concatenate([due for _, due in turns])) == list(range(len(SLIDE)))
    seen: set[int] = set()
    for batch, due in turns:
        assert set(visit[due]) == set(visit[batch]) - seen
        seen |= set(visit[batch])
    assert with_blocks([], visit) == []


def test_a_block_is_a_chunk_or_several_small_ones() -> None:
    origins = np.stack(np.meshgrid(np.arange(0, 512, 16), np.arange(0, 512, 16), indexing="ij"), -1).reshape(-1, 2)

    class Level(ImageLevel):
        @property
        def chunk_px(self) -> tuple[int, int]:
            return self.pixels

    for chunk, edge in (((256, 256), 256), ((64, 64), 128), ((48, 48), 144)):  # at least 8 patches of 16 px
        source = PatchSource("S", (Level(chunk, (512, 512)),), origins, 16, 16)
        block = blocks_of([source, source])
        across = -(-512 // edge)
        expected = origins[:, 0] // edge * across + origins[:, 1] // edge
        same = np.unique(np.stack([block, np.concatenate([expected, expected + across**2])]), axis=1)
        assert same.shape[1] == len(np.unique(block)) == 2 * across**2, "the same patches, whatever their number"
        assert list(same[0]) == list(range(2 * across**2))
        if across == 4:  # neighbours have close numbers: four in a row are a square
            assert set(same[1][:4]) == {0, 1, 4, 5}
        assert source.amplification == pytest.approx((256 / 16) ** 2) or chunk != (256, 256)
