"""Windows of 8-bit RGB from an array of whatever kind a file holds; what cannot be converted surely is refused.

Floor 7, above evaluation. Used by 8 modules of io.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spatialsig._files import DECODING_ERRORS
from spatialsig.errors import InputError
from spatialsig.store.layout import check_level_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import SupportsIndex

    from numpy.typing import NDArray

    from spatialsig.io.images.metadata import PixelSize
    from spatialsig.store.stream import Pixels

MAX_OUTSIDE_IMAGE = 0.2  # share of the cells that may lie beside their image
_N_PROBES = 5  # windows per axis that decide what 16-bit values mean
_PROBE_PX = 128
_FULL_8_BIT_IN_16 = 257  # 255 * 257 = 65535


class Seen(NamedTuple):
    """What tells a file from one that takes its place."""

    path: str
    size: int
    mtime_ns: int


def seen(path: str) -> Seen | None:
    """How a file looks now; None for one that is gone, which stays readable where it is open, and for a folder."""
    with suppress(FileNotFoundError):
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            return Seen(path, found.st_size, found.st_mtime_ns)
    return None


class RgbPixels:
    """Windows ``(h, w, 3)`` uint8 of one array in any axis order.

    An opaque alpha channel is left out, colours of a palette are looked up, 16-bit values that are 8-bit ones in
    disguise (none above 255, or all multiples of 257) become 8-bit. The meaning of 16-bit values is found on some
    windows and checked on every window that is read.

    Parameters
    ----------
    array
        Array-like; only the asked windows are read.
    axes
        One letter per axis, of ``Y``, ``X`` and ``C`` or ``S`` for the channel.
    name
        What the errors call the image.
    palette
        ``(n_colours, 3)`` uint8, for an array ``YX`` of colour numbers.
    channels
        Where red, green and blue lie, when they are not the first three.
    alpha_over
        Colour ``(3,)`` uint8 that shows through where the file says that nothing was scanned; without it a transparent
        image is refused.

    Raises
    ------
    InputError
        If the array is gray, of another depth, or has another number of channels.
    """

    def __init__(
        self,
        array: Any,
        *,
        axes: str,
        name: str,
        palette: NDArray[np.uint8] | None = None,
        channels: Sequence[int] | None = None,
        alpha_over: NDArray[np.uint8] | None = None,
    ) -> None:
        axes = axes.replace("C", "S")
        _check(array, axes, name, has_palette=palette is not None)
        self._array, self._axes, self._name, self._palette = array, axes, name, palette
        self._order = [axes.index(axis) for axis in "YXS" if axis in axes]
        size = [int(array.shape[axis]) for axis in self._order]
        self.shape = (size[0], size[1], 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 3
        chunks = getattr(array, "chunks", None)
        self.chunks = None if chunks is None else tuple(int(chunks[axis]) for axis in self._order[:2])
        self._has_alpha = len(size) == 3 and size[2] == 4
        self._channels = None if channels is None or tuple(channels) == (0, 1, 2) else list(channels)
        if channels is not None and max(channels) > 2:
            msg = (
                f"image {name!r}: red, green and blue are channels {[c + 1 for c in channels]} of {size[2]}; wanted them "
                f"before any other: export the H&E as an 8-bit RGB image."
            )
            raise InputError(msg)
        self._alpha_over = alpha_over
        self.read_as: dict[str, int] = {}
        self.seen_as: Seen | None = None  # set, as the next, where a file was opened
        self.reopens_by: tuple[Callable[..., RgbPixels], tuple[Any, ...]] | None = None
        self._divisor = 1 if np.dtype(array.dtype) == np.uint8 else self._find_divisor()

    @property
    def title(self) -> str:
        """What messages call the image."""
        return f"image {self._name!r}"

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Decode the window ``[y0:y1, x0:x1]``; a third slice takes channels."""
        values = self._read(window)
        if self._palette is not None:
            if values.size and int(values.max()) >= len(self._palette):
                what = f"has colour {int(values.max())} of a palette of {len(self._palette)}"
                raise self._error(window, what, ": export it again")
            values = self._palette[values]
        if values.dtype != np.uint8:
            values = self._to_8_bit(values, window)
        if self._has_alpha:
            values = self._without_alpha(values, window)
        if self._channels is not None:
            values = values[..., self._channels]
        return values[..., :3] if len(window) < 3 else values[..., :3][..., window[2]]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Another process opens the file for itself."""
        return super().__reduce_ex__(protocol) if self.reopens_by is None else self.reopens_by

    def __deepcopy__(self, memo: dict[int, Any]) -> RgbPixels:
        """Pixels are never changed, so that copies of an object share them."""
        return self

    def _read(self, window: tuple[slice, ...]) -> NDArray[Any]:
        if self.seen_as is not None and (found := seen(self.seen_as.path)) not in (None, self.seen_as):
            detail = f" ({self.seen_as.size:,} bytes then, {found.size:,} now): read the slide again" if found else ""
            raise self._error(window, "is another file than the one that was opened, and cannot be read", detail)
        slices = {"Y": window[0], "X": window[1], "S": slice(None)}
        try:
            values = np.asarray(self._array[tuple(slices[axis] for axis in self._axes)])
        except DECODING_ERRORS as error:
            raise self._error(window, "cannot be decoded", f": {error}. Copy or export the file again") from error
        return np.transpose(values, self._order)

    def _find_divisor(self) -> int:
        """Divisor that makes 16-bit values 8-bit ones, from windows all over the image."""
        height, width = self.shape[:2]
        rows = np.unique(np.linspace(0, max(height - _PROBE_PX, 0), _N_PROBES).astype(int)).tolist()
        columns = np.unique(np.linspace(0, max(width - _PROBE_PX, 0), _N_PROBES).astype(int)).tolist()
        windows = ((slice(y, y + _PROBE_PX), slice(x, x + _PROBE_PX)) for y in rows for x in columns)
        return 1 if max(int(self._read(window).max()) for window in windows) <= 255 else _FULL_8_BIT_IN_16

    def _to_8_bit(self, values: NDArray[Any], window: tuple[slice, ...]) -> NDArray[np.uint8]:
        quotient, rest = np.divmod(values, self._divisor)
        if values.size and (int(quotient.max()) > 255 or rest.any()):
            raise self._error(
                window,
                f"is {values.dtype} with values to {int(values.max())}, which are no 8-bit ones,",
                "; wanted 8-bit RGB: export the H&E as 8-bit RGB, with the contrast you see",
            )
        return quotient.astype(np.uint8)

    def _without_alpha(self, values: NDArray[np.uint8], window: tuple[slice, ...]) -> NDArray[np.uint8]:
        opaque = not values.size or int(values[..., 3].min()) == 255
        if opaque:
            return values[..., :3]
        if self._alpha_over is None:
            fix = "flatten its fourth channel onto white, or export the H&E without one"
            raise self._error(window, "is transparent", f"; wanted opaque RGB: {fix}")
        alpha = values[..., 3:].astype(np.uint16)
        mixed = values[..., :3] * alpha + self._alpha_over.astype(np.uint16) * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)

    def _error(self, window: tuple[slice, ...], what: str, detail: str) -> InputError:
        y, x = (part.indices(size) for part, size in zip(window[:2], self.shape[:2], strict=True))
        return InputError(f"image {self._name!r} {what} at y {y[0]}-{y[1]}, x {x[0]}-{x[1]} px{detail}.")


class RgbFile:
    """An opened H&E file: the full image, the coarser levels it brings, its pixel size.

    Attributes
    ----------
    levels
        Windows of the full-resolution image and of the file's own coarser levels.
    pixel_size
        Edges of a full-resolution px as the file says, or None.
    why_no_size
        Why none can be taken of what the file says; empty where it says nothing.
    """

    def __init__(
        self, levels: list[RgbPixels], pixel_size: PixelSize | None, stores: list[Any], *, why_no_size: str = ""
    ) -> None:
        check_level_sizes([level.shape for level in levels], name=levels[0].title, same_part=False)
        self.levels = levels
        self.pixel_size = pixel_size
        self.why_no_size = why_no_size
        self._stores = stores

    @property
    def pixels(self) -> Pixels:
        """Windows of the full-resolution image."""
        return self.levels[0]

    @property
    def um_per_px(self) -> float | None:
        """Micrometres per full-resolution px; None where the file says nothing, or not the same for x and y."""
        return self.pixel_size.x_um if self.pixel_size is not None and self.pixel_size.is_square else None

    def contains(self, xy_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Mask of the points ``(n, 2)``, x and y in full-resolution px, that lie on the image."""
        height, width = self.pixels.shape[:2]
        x, y = xy_px.T
        inside: NDArray[np.bool_] = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return inside

    def close(self) -> None:
        """Release the file; windows cannot be read afterwards."""
        for store in self._stores:
            store.close()


def _check(array: Any, axes: str, name: str, *, has_palette: bool) -> None:
    if np.ma.isMaskedArray(getattr(array, "data", array)) or np.ma.isMaskedArray(array):
        msg = f"image {name!r} is masked, and what lies under the mask would be seen: fill it in, such as `.filled(255)`, white."
        raise InputError(msg)
    dtype, shape = np.dtype(array.dtype), tuple(array.shape)
    n = shape[axes.index("S")] if "S" in axes and len(axes) == len(shape) else 0
    if has_palette and sorted(axes) == ["X", "Y"] and dtype.kind == "u":
        return
    if sorted(axes) == ["S", "X", "Y"] and n in {3, 4} and dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return
    fix = "export the H&E as an 8-bit RGB image"
    if sorted(axes) == ["X", "Y"] or n in {1, 2}:
        fix = "a gray image has no stain colours: give the colour scan of the H&E"
    elif dtype.kind == "f":
        fix = "multiply by 255 if values span 0 to 1, round, and save as 8-bit RGB"
    elif n > 4:
        fix = f"{n} channels are no H&E, or hold several images: {fix}"
    msg = (
        f"image {name!r} is {dtype} with axes {axes or '-'} of shape {shape}; wanted 8-bit RGB (3 channels, or 4 with "
        f"an opaque alpha): {fix}."
    )
    raise InputError(msg)
