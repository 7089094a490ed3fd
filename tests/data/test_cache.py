"""The cache against reading everything anew: same pixels, no more memory than allowed, nothing decoded twice that fits."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from spatialsig.data import cache as cache_module
from spatialsig.data.cache import PatchCache, cache_capacity
from spatialsig.data.patches import ImageLevel, PatchSource, read_patches, read_slides

SIZES, PX = (7, 5, 4), 4
N, BYTES = sum(SIZES), 3 * PX * PX
IMAGES = np.random.default_rng(0).integers(0, 256, (len(SIZES), 3, 32, 32), dtype=np.uint8)
SOURCES = [
    PatchSource(f"S{k}", (ImageLevel(image, (32, 32)),), np.stack([np.arange(n) * 3, np.arange(n)], axis=1), PX, PX)
    for k, (n, image) in enumerate(zip(SIZES, IMAGES, strict=True))
]
PIXELS = np.concatenate([read_patches(source, np.arange(len(source))) for source in SOURCES])
batches = st.lists(st.integers(0, N - 1), max_size=8).map(lambda rows: np.array(rows, np.int64))


NONE = np.empty(0, np.int64)


def mb(patches: float) -> float:
    return patches * BYTES / 2**20


@given(
    fits=st.integers(0, N + 2),
    passing=st.sampled_from([0.0, 0.3, 0.9]),
    turns=st.lists(st.tuples(batches, st.none() | batches), max_size=12),
)
@example(fits=1, passing=0.3, turns=[(NONE, np.array([0])), (np.array([1]), None)])  # more waits than is to stay
def test_whatever_is_asked_for_in_whatever_order_the_pixels_are_right(fits: int, passing: float, turns: list) -> None:
    cache = PatchCache(SOURCES, limit_mb=mb(fits), passing=passing)
    assert cache.capacity == min(fits, N)
    for rows, due in turns:
        np.testing.assert_array_equal(cache.read(rows, due), PIXELS[rows])
        assert 0 <= cache.held <= cache.capacity
        assert cache.nbytes == cache.held * BYTES
    everything = np.arange(N)
    for _ in range(2):  # whatever is held by now is what it should be
        np.testing.assert_array_equal(cache.read(everything), PIXELS)


@given(turns=st.lists(st.tuples(batches, st.none() | batches), max_size=10), seed=st.integers(0, 9))
def test_with_room_for_all_a_patch_is_decoded_once_and_with_little_room_those_that_stay(turns: list, seed: int) -> None:
    decoded: list[tuple[str, int]] = []

    def counted(requests: list) -> None:
        decoded.extend((request.source.sample, int(row)) for request in requests for row in request.rows)
        read_slides(requests)

    with patch.object(cache_module, "read_slides", counted):
        cache = PatchCache(SOURCES, limit_mb=mb(N))
        for rows, due in turns:
            cache.read(rows, due)
        assert len(decoded) == len(set(decoded))

        small, order = PatchCache(SOURCES, limit_mb=mb(6)), np.random.default_rng(seed).permutation(N)
        for _ in range(3):
            decoded.clear()
            for start in range(0, N, 5):
                small.read(order[start : start + 5])
        assert len(decoded) == N - 6  # six stay from the first epoch on, the others are read again in each


def test_capacity_is_the_most_that_fits() -> None:
    for limit in (0.0, 0.9, 1.0, 3.7, 15.99, 16.0, 1e6):
        n = cache_capacity(SOURCES, limit_mb=mb(limit))
        assert n == max(k for k in range(N + 1) if k <= limit)
