"""Choice of the slide among several images of a file: never its label, overview or thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BESIDE_THE_SLIDE = ("label", "macro", "thumbnail", "overview", "map", "barcode", "preview")
_MUCH_SMALLER = 4  # times fewer pixels than the slide: an overview, whatever its name


def pick_slide(images: Sequence[tuple[str, int, int]], *, name: str) -> int:
    """Index of the one image, of ``(name, height, width)``, that is the slide.

    Raises
    ------
    InputError
        If two images could be.
    """
    possible = [
        i for i, (label, *_) in enumerate(images) if not any(word in label.lower() for word in _BESIDE_THE_SLIDE)
    ]
    area = {i: images[i][1] * images[i][2] for i in possible}
    if not area:
        msg = f"image {name!r} holds only {[label for label, *_ in images]}; wanted the scan of a slide."
        raise InputError(msg)
    best = max(area, key=lambda i: area[i])
    rivals = [
        i for i in possible if i != best and area[i] * _MUCH_SMALLER > area[best] and not _reduced(images, best, i)
    ]
    if rivals:
        sizes = [f"{images[i][1]} x {images[i][2]}" for i in [best, *rivals]]
        msg = (
            f"image {name!r} holds {len(sizes)} images of {', '.join(sizes)} px (y, x), and it is not clear which one "
            f"is the slide: save the slide alone as a TIFF."
        )
        raise InputError(msg)
    return best


def _reduced(images: Sequence[tuple[str, int, int]], full: int, small: int) -> bool:
    """Whether one image is half the other, as the next level of a pyramid."""
    (_, height, width), (_, half_height, half_width) = images[full], images[small]
    return abs(height - 2 * half_height) <= 2 and abs(width - 2 * half_width) <= 2
