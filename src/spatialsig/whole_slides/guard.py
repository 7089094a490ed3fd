"""What must not be replaced: images that are read, files of others, results that were changed by hand, stores with cells.

Floor 11, above report. Used by whole_slides/from_files, whole_slides/one_slide.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig._files import check_begins
from spatialsig._hashing import file_hash
from spatialsig._paths import behind_links
from spatialsig.errors import InputError, StoreError
from spatialsig.io.images.open_rgb import WITH_FOLDER
from spatialsig.store.foreign import check_only_ours, is_of_system
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.whole_slides.kept import PAGE, RECORD, SLIDES
from spatialsig.whole_slides.results import BLENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spatialsig.whole_slides.listing import SlideImage

MADE_BY = "predict_files"  # in the `source` of a store: which image it was made from
PAGE_BEGINS = b"<!doctype html>\n<!-- sp.tl.predict_files -->"
SLIDES_BEGIN = b"sample,image,error"
_IN_STORE = frozenset({_keys.IMAGE, _keys.TISSUE, _keys.PATCHES, _keys.SIGNATURES_PRED, BLENDED})
_OTHER_NAME = "give the slide another name in a manifest (column `sample`), or choose another `out`"


def store_of(image: SlideImage, stores: str | None) -> Path | None:
    """Where the store of a slide is written in a folder of stores; None without one."""
    return Path(stores) / f"{image.sample}.zarr" if stores else None


def check_targets(images: Sequence[SlideImage], out: Path, stores: str | None) -> None:
    """Refuse to start where a result would take the place of an image that is read, or page and table those of others.

    Raises :class:`InputError` for a folder of results that holds an image or lies in one, :class:`StoreError` for a store that is
    read itself, and a page or table that is not ours.
    """
    _check_apart(images, {_place(behind_links(out / image.sample)): image for image in images})
    targets = {_place(behind_links(store)): store for image in images if (store := store_of(image, stores))}
    for image in images:
        for read in _read(image):
            if hit := _nested(read, targets):
                msg = (
                    f"the store {str(targets[hit])!r} would be replaced, and slide {image.sample!r} is read from it ({str(image.path)!r}): "
                    "choose another folder as `store`."
                )
                raise StoreError(msg)
    fix = "or choose another `out`"
    check_begins(out / PAGE, PAGE_BEGINS, what="a page of `sp.tl.predict_files`", fix=fix)
    check_begins(out / SLIDES, SLIDES_BEGIN, what="a table of `sp.tl.predict_files`", fix=fix)


def _check_apart(images: Sequence[SlideImage], targets: Mapping[Path, SlideImage]) -> None:
    inside = {parent: target for target in targets for parent in target.parents}
    for image in images:
        for read in _read(image):
            hit = _nested(read, targets) or (inside.get(read) if image.path.is_dir() else None)
            if hit is not None:
                msg = (
                    f"the results of slide {targets[hit].sample!r} would take the place of {str(hit)!r}, where the image "
                    f"{str(image.path)!r} lies: {_OTHER_NAME}, or move the image."
                )
                raise InputError(msg)


def _read(image: SlideImage) -> Iterator[Path]:
    """Where the pixels of a slide lie, and the link by which they are named."""
    yield _place(image.path)
    yield image.path.resolve()
    if image.path.suffix.lower() in WITH_FOLDER:
        yield _place(image.path.with_suffix(""))


def _place(path: Path) -> Path:
    """Path without links above its last part."""
    return path.absolute().parent.resolve() / path.name


def _nested(path: Path, targets: Mapping[Path, Any]) -> Path | None:
    """The target that a path is, or lies in."""
    return next((place for place in (path, *path.parents) if place in targets), None)


def check_place(
    place: Path, record: Mapping[str, Any], image: SlideImage, described: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Refuse to replace what is no result of ours, files of others among results, and without ``overwrite`` what is another's or was changed.

    Raises :class:`StoreError` that names it.
    """
    if not record:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            msg = f"{str(place)!r} exists and holds no result of `sp.tl.predict_files` (no {RECORD}): {_OTHER_NAME}, or move it away."
            raise StoreError(msg)
        return
    foreign = sorted(map(str, _foreign(place, record)))
    if foreign:
        msg = (
            f"{str(place)!r} holds {first_few(foreign)}, which `sp.tl.predict_files` did not write and which would be deleted with the "
            "results that are replaced: move it elsewhere, or choose another `out`."
        )
        raise StoreError(msg)
    before, kept = record["image"], record.get("store")
    if kept and not Path(kept).is_absolute() and (place / kept).exists():
        check_store(place / kept, described, overwrite=overwrite)
    if overwrite:
        return
    if _differ(described, before):
        msg = (
            f"{str(place)!r} holds the predictions of another image, {before['path']!r}, and {described['path']!r} would take "
            f"their place: give slide {image.sample!r} another name in a manifest (column `sample`), choose another `out`, or pass "
            "`overwrite=True`."
        )
        raise StoreError(msg)
    changed = [name for name, was in record.get("checksums", {}).items() if _changed(place / name, was)]
    if changed:
        msg = (
            f"{str(place)!r}: {first_few(changed)} changed after they were written, and would be replaced: move them elsewhere, "
            "or pass `overwrite=True`."
        )
        raise StoreError(msg)


def _differ(image: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(image["path"] != other.get("path") and image["sha256"] != other.get("sha256"))


def _changed(file: Path, checksum: str) -> bool:
    return file.is_file() and file_hash(file) != checksum


def _foreign(place: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Files and links in a folder of results that its record does not list."""
    known = {RECORD, *record["files"]}
    for root, folders, files in os.walk(place):
        here = Path(root).relative_to(place)
        for name in [name for name in folders if (place / here / name).is_symlink()]:
            yield here / name
        if root == str(place) and record.get("store") in folders:
            folders.remove(record["store"])  # looked at as a store
        yield from (here / name for name in files if str(here / name) not in known and not is_of_system(name))


def check_store(store: Path, described: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuse to replace a store that was not written for this image, or holds more than was written then.

    ``overwrite`` lets the store of another image go, but no cells, and nothing that others added.
    """
    store = behind_links(store)
    if not store.exists():
        return
    attrs = root_document(store).get("attributes", {}).get(_keys.NAMESPACE, {})
    made_from = (attrs.get("source") or {}).get(MADE_BY) if isinstance(attrs, dict) else None
    fix = "choose another folder as `store`, or move the store away."
    if not isinstance(made_from, dict):
        msg = f"store {str(store)!r} was not written by `sp.tl.predict_files`, and would be replaced: {fix}"
        raise StoreError(msg)
    more = sorted(f"{kind}/{name}" for kind, name, _ in elements_on_disk(store) if name not in _IN_STORE)
    if more:
        msg = f"store {str(store)!r} holds {first_few(more)}, which `sp.tl.predict_files` did not write and which would be lost: {fix}"
        raise StoreError(msg)
    check_only_ours(store)
    if not overwrite and _differ(described, made_from):
        msg = f"store {str(store)!r} is of another image, {made_from.get('path')!r}: pass `overwrite=True`, {fix}"
        raise StoreError(msg)
