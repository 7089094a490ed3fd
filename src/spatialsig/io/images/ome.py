"""Which image of an OME-XML describes which pages of the TIFF it stands in.

Floor 7, above evaluation. Used by io/images/metadata, io/images/tiff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tifffile


class _Pages(NamedTuple):
    """Pages of this file that an image says hold its pixels."""

    first: int
    number: float  # infinite: all that follow

    def __contains__(self, page: object) -> bool:
        return isinstance(page, int) and self.first <= page < self.first + self.number


def ome_images(xml: str) -> list[ElementTree.Element]:
    """``Pixels`` of every image that OME-XML describes; none where it is no XML, of which nothing can be taken."""
    root = _root(xml)
    return [] if root is None else root.findall(".//{*}Image/{*}Pixels")


def describing(tif: tifffile.TiffFile, page: Any) -> ElementTree.Element | None:
    """``Pixels`` of the image whose first page is ``page``; None where none is, or more than one could be.

    Images are told by the pages they name, else by their size: a file may describe images that it does not hold, so that
    the number of an image in the file is not its number in the description.
    """
    root = _root(tif.ome_metadata or "")
    if root is None:
        return None
    images = root.findall(".//{*}Image/{*}Pixels")
    same_size = [pixels for pixels in images if size_of(pixels) == (page.imagelength, page.imagewidth)]
    if isinstance(page.index, int):
        own = [one for one in images if any(page.index in pages for pages in _pages_of(one, root, tif.filename))]
        both = [one for one in own if one in same_size]
        if len(both or own) == 1:
            return (both or own)[0]
    return same_size[0] if len(same_size) == 1 else None


def size_of(pixels: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width that a description states; None where it states none."""
    try:
        return int(pixels.get("SizeY", "")), int(pixels.get("SizeX", ""))
    except ValueError:
        return None


def _root(xml: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None


def _pages_of(pixels: ElementTree.Element, root: ElementTree.Element, filename: str) -> Iterator[_Pages]:
    """Pages of this file; those of other files, which have an identifier and a name of their own, are left out."""
    for data in pixels.findall("{*}TiffData"):
        other = data.find("{*}UUID")
        if (
            other is not None
            and other.text != root.get("UUID")
            and other.get("FileName", "").lower() != filename.lower()
        ):
            continue
        count = data.get("PlaneCount") or data.get("NumPlanes") or ("1" if "IFD" in data.attrib else "inf")
        try:
            yield _Pages(int(data.get("IFD", "0")), float(count))
        except ValueError:
            continue
