from __future__ import annotations

from itertools import permutations, product

from spatialsig.io.images.channels import BY_NAME, rgb_order


def test_channels_taken_in_the_order_are_red_green_blue() -> None:
    for colours in permutations([0, 1, 2]):
        order = rgb_order(colours)
        assert order is not None
        assert [colours[position] for position in order] == [0, 1, 2]


def test_an_unnamed_channel_among_three_colours_is_passed_over() -> None:
    assert rgb_order([2, None, 0, 1]) == [2, 3, 0]


def test_what_is_not_each_colour_once_has_no_order() -> None:
    for colours in product([0, 1, 2, None], repeat=3):
        assert (rgb_order(colours) is None) == (set(colours) != {0, 1, 2})


def test_names_and_initials_mean_the_same() -> None:
    assert [BY_NAME[name] for name in ("red", "green", "blue")] == [BY_NAME[letter] for letter in "rgb"] == [0, 1, 2]
