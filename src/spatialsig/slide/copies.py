"""Slides that hold the same counts or the same part of one image: learned from under one patient and held out under another.

Two stores that were copied are known by the manifests of their elements, which hold checksums of every file. A slide that was
written anew, by another program, in another order, or half of it, is known by where its cells lie and, only where many lie at the
same places, by the counts of some of them; its image by the size and, only where two sizes are the same, by the coarsest level.

Floor 4, above train. Used by 13 modules of evaluation, expression, inference, maps, pp, tl.
"""

from __future__ import annotations

import itertools
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spatialsig._checks import warn
from spatialsig._hashing import content_hash
from spatialsig.errors import InputError, KeyMissingError, LeakageError, SpatialsigWarning
from spatialsig.slide.coordinates import positions, um_to_image
from spatialsig.slide.folds import torn_patients
from spatialsig.slide.lineage import MADE_BY, SOURCES
from spatialsig.slide.parts import pixels_of
from spatialsig.slide.roles import region_of
from spatialsig.slide.sketches import Cells, cells_of, coarsest_hash, image_sizes
from spatialsig.slide.slides import Stores, learn_from, open_slides, recorded_slides
from spatialsig.store.layout import levels_of
from spatialsig.store.manifest import manifest_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data, Slide

MAX_SHARED = 0.25  # of the smaller of two boxes around cells: sections and cores of one scan lie side by side
COUNTS, IMAGES = "tables", "images"  # folders of a store
_METADATA = (b".json", b".zattrs", b".zarray", b".zgroup")


class _Held(NamedTuple):
    """What a slide holds, as it was recorded: kind -> prints, each with the name of the element."""

    slide: Slide
    prints: dict[str, dict[str, str]]
    cells: list[Cells]


def refuse_leaks(data: Data, held_out: Collection[int] | None = None) -> None:
    """Refuse slides of which something is learned from and held out; arguments as of ``torn_patients``.

    Every function that learns from slides calls it before it reads one.

    Raises
    ------
    LeakageError
        Naming patient and slides, where a patient was renamed after a split by patient, and slides of two patients that hold
        the same.
    """
    slides = {slide.name: (slide.patient, slide.attrs.get("split", {})) for slide in recorded_slides(learn_from(data))}
    if torn := torn_patients(slides, held_out):
        raise LeakageError(torn)
    check_copies(learn_from(data))


def check_copies(data: Data) -> None:
    """Refuse slides of two patients that hold the same counts, or the same part of the same image.

    Slides of one patient that hold the same counts are warned of. They may share an image, and so may slides of several
    patients whose cells lie in other places of it, as those of a tissue microarray do.

    Raises
    ------
    LeakageError
        Naming the slides, and what to do.
    """
    if not isinstance(data, Stores):
        return  # one slide
    held = [_Held(slide, _recorded(slide), _cells(slide)) for slide in recorded_slides(data)]
    _add_coarsest(held)
    for one, other in itertools.combinations(held, 2):
        ours, theirs = one.slide, other.slide
        if _shared(one, other, COUNTS) or _same_cells(one, other):
            _tell(ours, theirs, "the same counts of the same cells")
        elif ours.patient != theirs.patient and any(
            _overlap(ours, theirs, keys) for keys in _shared(one, other, IMAGES)
        ):
            _tell(ours, theirs, "the same part of the same H&E")


def _tell(ours: Slide, theirs: Slide, what: str) -> None:
    if ours.patient == theirs.patient:
        warn(
            f"slides {ours.name!r} and {theirs.name!r} of patient {ours.patient!r} hold {what}, so that these count twice: "
            "leave one of them out with `Cohort.subset`."
        )
        return
    msg = (
        f"slides {ours.name!r} (patient {ours.patient!r}) and {theirs.name!r} (patient {theirs.patient!r}) hold {what}: one is "
        "a copy of the other, or was given its files, and a model would be judged on what it learned from. Leave one of them out "
        "with `Cohort.subset`, or import it again from its own files; if both are of one patient, set "
        "sdata.attrs['spatialsig']['patient'] to one name in both stores, then sdata.write_attrs()."
    )
    raise LeakageError(msg)


def _shared(one: _Held, other: _Held, kind: str) -> list[tuple[str, str]]:
    """Elements of two slides with the same print."""
    ours, theirs = one.prints[kind], other.prints[kind]
    return sorted({(ours[found], theirs[found]) for found in ours.keys() & theirs.keys()})


def _recorded(slide: Slide) -> dict[str, dict[str, str]]:
    """Prints of the counts and of the pixels of a slide in a store, of elements that were read and not made by us."""
    entries: dict[str, Any] = slide.lineage.entries
    found = {
        kind: {print_: name for name, print_ in _manifests(slide, kind) if not entries.get(name, {}).get(MADE_BY)}
        for kind in (COUNTS, IMAGES)
    }
    for source, print_ in (pair for entry in entries.values() for pair in entry.get(SOURCES, {}).items()):
        key = source.partition("/")[0]
        if source == pixels_of(key) and not entries.get(key, {}).get(MADE_BY):
            found[IMAGES][print_] = key  # of a store in another layout, and of one that another program wrote
    return found


def _cells(slide: Slide) -> list[Cells]:
    """Samples of the cells of a slide in a store."""
    root = None if slide.path is None else slide.path / COUNTS
    names = sorted(table.name for table in root.iterdir()) if root is not None and root.is_dir() else []
    patches, entries = slide.attrs.get("patches", {}), slide.lineage.entries
    read = [n for n in names if root and not entries.get(n, {}).get(MADE_BY) and region_of(root / n) not in patches]
    return [cells for name in read if slide.path is not None and (cells := cells_of(slide.path, name)) is not None]


def _same_cells(one: _Held, other: _Held) -> bool:
    return any(ours.are_those_of(theirs) for ours in one.cells for theirs in other.cells)


def _add_coarsest(held: list[_Held]) -> None:
    """Add prints of the coarsest levels of images that are as large as one of another slide, which copies are."""
    of_size: dict[tuple[int, ...], list[tuple[_Held, str]]] = {}
    for each in held:
        for name, size in image_sizes(each.slide.path).items() if each.slide.path is not None else ():
            if not each.slide.lineage.entries.get(name, {}).get(MADE_BY):
                of_size.setdefault(size, []).append((each, name))
    for alike in of_size.values():
        for each, name in alike if len({id(one) for one, _ in alike}) > 1 else ():
            if each.slide.path is not None and (found := coarsest_hash(each.slide.path, name)) is not None:
                each.prints[IMAGES][found] = name


def _manifests(slide: Slide, kind: str) -> Iterator[tuple[str, str]]:
    """Elements of a kind, each with the hash of the checksums of the files that hold its values."""
    root = None if slide.path is None else slide.path / kind
    for element in sorted(root.iterdir()) if root is not None and root.is_dir() else []:
        file = manifest_file(element, kind)
        lines = file.read_bytes().splitlines()[1:] if file.is_file() else []
        held = b" X/" if kind == COUNTS else b"/"
        chunks = [line for line in lines if held in line and not line.endswith(_METADATA)]
        if any(b"/indptr/" not in line for line in chunks):  # of cells without counts there is nothing else
            yield element.name, content_hash([b"\n".join(chunks)])


def _overlap(ours: Slide, theirs: Slide, keys: tuple[str, str]) -> bool:
    """Whether images that were recorded as the same one are so now, and the cells of both slides lie in one part of it."""
    opened = [slide for each in (ours, theirs) if each.path is not None for slide in open_slides(each.path)]
    prints = [slide.lineage.fingerprint(pixels_of(key)) for slide, key in zip(opened, keys, strict=True)]
    if len(set(prints)) > 1 or any(map(_is_plain, opened, keys)):
        return False
    boxes = [box for slide, key in zip(opened, keys, strict=True) if (box := _box(slide, key)) is not None]
    if len(boxes) < len(opened):  # a slide without cells is all of its image
        return True
    low, high = np.max([box[0] for box in boxes], axis=0), np.min([box[1] for box in boxes], axis=0)
    smaller = min(float(np.prod(box[1] - box[0])) for box in boxes)
    return float(np.prod(np.maximum(high - low, 0))) > MAX_SHARED * smaller


def _is_plain(slide: Slide, image_key: str) -> bool:
    """Whether an image shows nothing, so that another one may well be like it."""
    coarsest = levels_of(slide.sdata.images[image_key])[-1].to_numpy()
    return bool(coarsest.min() == coarsest.max())


def _box(slide: Slide, image_key: str) -> NDArray[np.float64] | None:
    """Corners ``(2, 2)`` of the box around the cells of a slide, px of an image; None where nothing says where they are."""
    with warnings.catch_warnings(), suppress(InputError, KeyMissingError):
        warnings.simplefilter("ignore", SpatialsigWarning)  # said by the functions that use them
        for key in slide.sdata.tables:
            if not slide.lineage.entries.get(key, {}).get(MADE_BY):
                xy = um_to_image(slide, image_key, positions(slide, key))
                return np.array([np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)])
    return None
