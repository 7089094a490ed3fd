"""Tiles that other tools cut: what their columns say is held against where their geometries lie.

Floor 7, above evaluation. Used by pp/_import_patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
import shapely

from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.pp._elements import LAZYSLIDE_COLUMN, TOLERANCE_PX, geometries_on_image
from spatialsig.slide.coordinates import full_resolution, image_of

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

    Floats = NDArray[np.float64]

TOOLS = {"squidpy": "pixel_y0", "sopa": "bboxes", "lazyslide": LAZYSLIDE_COLUMN}  # the column that gives each away
LAZYSLIDE_SPEC = "tile_spec"
UPRIGHT = 0.01  # share of its bounds that a tile may leave empty: a turn of a quarter of a degree
SAME_LENGTH = 0.1  # share by which the length of a tile in a specification may miss that of its geometry
# columns that repeat corners of tiles, as x, y: of squidpy (first and last), and ours
_FIRST = (("pixel_x0", "pixel_y0"), ("x0", "y0"))
_LAST = (("pixel_x1", "pixel_y1"),)
_OF_LAZYSLIDE = ("x", "y")
_REMOVE = "Mend the one that is wrong, or remove the columns."


class Tiles(NamedTuple):
    """Squares of one size on the image."""

    origins: NDArray[np.int64]  # corners (n, 2) as y0, x0, level-0 px; 0 where a tile does not lie whole on the image
    size: int  # edge, level-0 px
    whole: NDArray[np.bool_]  # which tiles lie whole on the image


def read_tiles(slide: Slide, source_key: str, image_key: str, tool: str) -> Tiles:
    """Tiles of shapes ``source_key`` on an image.

    Raises
    ------
    InputError
        If a geometry is missing or no upright square of the common size, columns of the tool say another place or size,
        or two tiles are the same.
    AlignmentError
        If they lie off the image, or their transformation squeezes, shears or cannot be inverted.
    """
    shapes, name = slide.sdata.shapes[source_key], f"slide {slide.name!r}: shapes {source_key!r}"
    own = _polygons(shapes, name)
    if tool == "sopa":  # its geometries are cut along the tissue, its boxes are whole
        own = _boxes(shapes, own, name)
    placed = geometries_on_image(slide, source_key, image_key, own, similar=True)
    _check_upright(placed, name)
    corners = shapely.bounds(placed)
    _check_columns(shapes, (corners, shapely.bounds(own)), tool, source_key, slide)
    tiles = _squares(slide, source_key, image_key, corners)
    _check_different(tiles, name)
    return tiles


def resolution_of(slide: Slide, source_key: str, size: int, scan_um_per_px: float) -> float | None:
    """Micrometres per px for which LazySlide cut tiles of ``size`` level-0 px; None where it does not say.

    Raises :class:`InputError` if what it left is no specification, or one of tiles of another size.
    """
    where = f"slide {slide.name!r}: sdata.attrs[{LAZYSLIDE_SPEC!r}]"
    specs = slide.sdata.attrs.get(LAZYSLIDE_SPEC, {})
    entry = specs.get(source_key, {}) if isinstance(specs, Mapping) else specs
    if not isinstance(entry, Mapping):
        msg = (
            f"{where} holds {entry!r}; wanted the specification of {source_key!r} as LazySlide leaves it, a mapping with "
            f"`mpp`: remove it, or pass `um_per_px=`."
        )
        raise InputError(msg)
    number = {field: _positive(entry.get(field), f"{where}[{source_key!r}][{field!r}]") for field in _SPEC_FIELDS}
    mpp, edge = number["mpp"], number["height"] or number["width"]
    lengths = {
        "level-0 px": (edge and number["base_downsample"] and edge * number["base_downsample"], float(size)),
        "um": (edge and mpp and edge * mpp, size * scan_um_per_px),
    }
    for unit, (said, found) in lengths.items():
        if said is not None and abs(said / found - 1) > SAME_LENGTH:
            msg = (
                f"{where}[{source_key!r}] says that tiles are {edge:g} px and {said:g} {unit} wide, but those of {source_key!r} "
                f"are {found:g} {unit}: remove the specification, or pass `um_per_px=`."
            )
            raise InputError(msg)
    return mpp


_SPEC_FIELDS = ("mpp", "height", "width", "base_downsample")


def _positive(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool | str) or not np.isscalar(value) or not 0 < float(value) < np.inf:  # type: ignore[arg-type]
        msg = f"{where} is {value!r}; wanted a finite number above 0: mend it, or pass `um_per_px=`."
        raise InputError(msg)
    return float(value)  # type: ignore[arg-type]


def _polygons(shapes: GeoDataFrame, name: str) -> NDArray[Any]:
    geometries = np.asarray(shapes.geometry)
    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    if empty.any():
        _refuse_row(name, shapes, empty, "has no geometry", "remove the rows without one")
    flat = shapely.get_dimensions(geometries) != 2
    if flat.any():
        kind = geometries[int(flat.argmax())].geom_type
        what = f"is a {kind}, which covers no pixels"
        _refuse_row(
            name, shapes, flat, what, "give squares; around spots `sp.pp.make_patches(around=table)` cuts patches"
        )
    return geometries


def _boxes(shapes: GeoDataFrame, geometries: NDArray[Any], name: str) -> NDArray[Any]:
    """Whole tiles of sopa, in which their geometries have to lie."""
    values = list(shapes["bboxes"])
    numbers = [_four(value) for value in values]
    bad = np.array([number is None for number in numbers])
    if bad.any():
        what = f"has bboxes {values[int(bad.argmax())]!r}, which are not four finite numbers x0, y0, x1, y1"
        _refuse_row(
            name, shapes, bad, what, "cut the tiles again with sopa, or remove the column to take the geometries"
        )
    boxes, inside = np.array(numbers, np.float64), shapely.bounds(geometries)
    off = np.hstack([boxes[:, :2] - inside[:, :2], inside[:, 2:] - boxes[:, 2:]]).max(axis=1) > TOLERANCE_PX
    if off.any():
        row = int(off.argmax())
        what = (
            f"lies at {_listed(inside[row])} (x0, y0, x1, y1) by its geometry, beyond its bboxes {_listed(boxes[row])}"
        )
        _refuse_row(name, shapes, off, what, _REMOVE[:-1].lower())
    _warn_none_whole(boxes, inside, name)
    return np.asarray(shapely.box(*boxes.T))


def _warn_none_whole(boxes: Floats, inside: Floats, name: str) -> None:
    """Say which is taken where boxes and geometries differ throughout: tissue alone leaves the tiles within it whole."""
    edges = [corners[:, 2:] - corners[:, :2] for corners in (boxes, inside)]
    if len(boxes) and (np.abs(edges[0] - edges[1]) > TOLERANCE_PX).any(axis=1).all():
        of_boxes, of_geometries = (" x ".join(f"{edge:g}" for edge in np.median(each, axis=0)) for each in edges)
        msg = (
            f"{name}: every tile has bboxes larger than its geometry ({of_boxes} and {of_geometries} px, x and y, as a rule). The "
            f"bboxes are taken, as sopa cuts geometries along the tissue; remove the column `bboxes` to take the geometries."
        )
        warn(msg)


def _four(value: Any) -> list[float] | None:
    try:
        box = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    return box.tolist() if box.shape == (4,) and np.isfinite(box).all() and (box[2:] > box[:2]).all() else None


def _check_upright(placed: NDArray[Any], name: str) -> None:
    full = shapely.area(shapely.box(*shapely.bounds(placed).T))
    if (full - shapely.area(placed) > UPRIGHT * full + TOLERANCE_PX).any():
        msg = f"{name} are no rectangles along the axes of the image; patches must be. Were they cut on another image?"
        raise InputError(msg)


def _check_columns(
    shapes: GeoDataFrame, frames: tuple[Floats, Floats], tool: str, source_key: str, slide: Slide
) -> None:
    """Refuse tiles whose columns say that they lie elsewhere, or are of another size.

    Columns are pixels of the image (the first of ``frames``), or of the level that a tool cut on, as the geometries
    themselves are.
    """
    first = [*_FIRST, *([_OF_LAZYSLIDE] if tool == "lazyslide" else [])]
    for columns, corner in [*((one, slice(0, 2)) for one in first), *((one, slice(2, 4)) for one in _LAST)]:
        if not set(columns) <= set(shapes.columns):
            continue
        said = _numbers(shapes, columns, f"slide {slide.name!r}: shapes {source_key!r}")
        off = [np.abs(found[:, corner] - said).max(axis=1) for found in frames]
        if min(distance.max(initial=0) for distance in off) > TOLERANCE_PX:
            row = int(off[1].argmax())
            where = "lies at" if corner.start == 0 else "ends at"
            msg = (
                f"slide {slide.name!r}: row {row} of {source_key!r} {where} {np.round(frames[0][row, corner], 1).tolist()} px "
                f"(x, y) by its geometry and transformation, but its columns {columns[0]!r}, {columns[1]!r} say "
                f"{said[row].tolist()}. {_REMOVE}"
            )
            raise InputError(msg)


def _numbers(shapes: GeoDataFrame, columns: tuple[str, str], name: str) -> Floats:
    """Columns as numbers ``(n, 2)``; a value that is none would hold against no place."""
    frame = shapes[list(columns)]
    numbers = frame.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers).all(axis=1)
    if bad.any():
        value = ", ".join(str(one) for one in frame.iloc[int(bad.argmax())])
        what = f"has {value} in its columns {list(columns)}, which is no place"
        _refuse_row(name, shapes, bad, what, "mend them, or remove the columns")
    return np.asarray(numbers)


def _squares(slide: Slide, source_key: str, image_key: str, corners: Floats) -> Tiles:
    full = full_resolution(image_of(slide, image_key))
    limit = np.array([full.sizes["x"], full.sizes["y"]])
    sides = corners[:, 2:] - corners[:, :2]
    size = int(np.rint(np.median(sides)))
    if size < 1:
        msg = (
            f"slide {slide.name!r}: tiles of {source_key!r} are {np.median(sides):.3g} px of image {image_key!r} wide; wanted "
            f"1 px or more. Give them the transformation that belongs to the pixels they were cut in."
        )
        raise InputError(msg)
    odd = (np.abs(sides - size) > TOLERANCE_PX).any(axis=1)
    cut = (corners[:, :2] <= TOLERANCE_PX).any(axis=1) | (corners[:, 2:] >= limit - TOLERANCE_PX).any(axis=1)
    if (odd & ~cut).any():
        first = int(np.flatnonzero(odd & ~cut)[0])
        msg = (
            f"slide {slide.name!r}: tiles of {source_key!r} must be squares of one size; most are {size} px, row {first} "
            f"is {sides[first, 0]:g} x {sides[first, 1]:g} px (x, y) of image {image_key!r}."
        )
        raise InputError(msg)
    origins = np.rint(corners[:, 1::-1]).astype(np.int64)
    whole = np.asarray(~odd)
    whole &= (origins >= 0).all(axis=1) & (origins + size <= limit[::-1]).all(axis=1)
    return Tiles(np.where(whole[:, None], origins, 0), size, whole)


def _check_different(tiles: Tiles, name: str) -> None:
    """Refuse tiles that lie at the same place: their cells would count twice."""
    rows = np.flatnonzero(tiles.whole)
    repeated = pd.DataFrame(tiles.origins[rows]).duplicated(keep=False).to_numpy()
    if repeated.any():
        same = rows[repeated]
        twin = same[(tiles.origins[same] == tiles.origins[same[0]]).all(axis=1)][1]
        msg = (
            f"{name}: {len(same)} tiles lie where another one does, as rows {same[0]} and {twin} at "
            f"{tiles.origins[same[0], ::-1].tolist()} px (x, y); their cells would count twice. Keep one of each, with "
            f"`drop_duplicates('geometry')`."
        )
        raise InputError(msg)


def _refuse_row(name: str, shapes: GeoDataFrame, bad: NDArray[np.bool_], what: str, fix: str) -> NoReturn:
    row = int(bad.argmax())
    more = f" ({int(bad.sum())} of {len(shapes)} rows do)" if bad.sum() > 1 else ""
    msg = f"{name}: row {row} (index {shapes.index[row]!r}) {what}{more}: {fix}."
    raise InputError(msg)


def _listed(box: Floats) -> list[float]:
    return list(np.round(box, 1).tolist())
