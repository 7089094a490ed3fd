"""Items made ahead: same items, same order, same errors, and time that overlaps."""

import threading
import time

import pytest

from spatialsig.data.passes import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(50)), depth=3)) == list(range(50))
    assert list(ahead(iter([]), depth=1)) == []


def test_making_and_using_overlap() -> None:
    def slow():
        for i in range(10):
            time.sleep(0.03)
            yield i

    start = time.monotonic()
    for _ in ahead(slow(), depth=2):
        time.sleep(0.03)
    assert time.monotonic() - start < 0.9 * 10 * 0.06


def test_an_error_comes_where_its_item_would_have() -> None:
    def broken():
        yield 1
        raise ZeroDivisionError

    found = ahead(broken(), depth=4)
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_consumer_that_stops_ends_the_thread() -> None:
    before = threading.active_count()
    made = []

    def endless():
        i = 0
        while True:
            made.append(i)
            yield i
            i += 1

    for item in ahead(endless(), depth=2):
        if item == 3:
            break
    time.sleep(0.3)
    assert threading.active_count() == before
    assert len(made) <= 8
