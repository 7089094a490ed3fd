"""Red, green and blue told from what the channels of an image are called, and from fluorescence.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/images, io/_anndata, io/images/ngff, io/images/tiff.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_NAME = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}
_ALPHA = {"a", "alpha"}
# a number, or a word for channel with or without one: names that software gives where nobody did
_NOTHING_SAID = re.compile(r"(channels?|ch|c|band|sample|image)?[\s:_#.-]*\d*([\s:_.-]+\d+)*")


def rgb_order(colours: Sequence[int | None]) -> list[int] | None:
    """Positions of red, green and blue among channels with these colours (0 to 2); None unless each is there once."""
    if sorted(colour for colour in colours if colour is not None) != [0, 1, 2]:
        return None
    return [list(colours).index(channel) for channel in range(3)]


def channel_order(names: Sequence[object], colours: Sequence[int | None], *, where: str) -> list[int] | None:
    """Positions of red, green and blue by the names of channels, else by their colours (0 to 2); None: as they come.

    Display colours say nothing where names say what was stained: blue, green and red are those of DAPI, FITC and TRITC.

    Raises
    ------
    InputError
        If a channel is called something that is neither a colour of RGB nor a mere number (fluorescence, most likely), or
        two are called the same; ``where`` names the image.
    """
    plain = [str(name if name is not None else "").strip().lower() for name in names]
    known = [BY_NAME.get(name) for name in plain]
    strange = any(
        name not in BY_NAME and name not in _ALPHA and _NOTHING_SAID.fullmatch(name) is None for name in plain
    )
    named = [one for one in known if one is not None]
    if strange or len(named) != len(set(named)):
        raise other_channels(where, plain)
    return rgb_order(known) or rgb_order(
        [one if one is not None else other for one, other in zip(known, colours, strict=True)]
    )


def other_channels(where: str, names: list[str]) -> InputError:
    """Error for an image whose channels are called something else: fluorescence, most likely."""
    return InputError(f"{where} has channels {names}; wanted red, green and blue: give the colour scan of the H&E.")
