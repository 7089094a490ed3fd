"""Order of red, green and blue among the channels of a file, from their names and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_NAME = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}


def rgb_order(colours: Sequence[int | None]) -> list[int] | None:
    """Positions of red, green and blue among channels with these colours (0 to 2); None unless each is there once."""
    if sorted(colour for colour in colours if colour is not None) != [0, 1, 2]:
        return None
    return [list(colours).index(channel) for channel in range(3)]


def other_channels(name: str, labels: list[str]) -> InputError:
    """Error for an image whose channels are called something else: fluorescence, most likely."""
    return InputError(
        f"image {name!r} has channels {labels}; wanted red, green and blue: give the colour scan of the H&E."
    )
