"""Names of the parts of a slide that results are made from, and what messages call them.

Floor 4, above train. Used by 27 modules of inference, labels, maps, pp, referee, slide, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig.store.layout import levels_of

if TYPE_CHECKING:
    from spatialsig.slide.slides import Slide

PIXELS, PLACE, STAIN = "pixels", "place", "stain"  # of an image; of patches
FOLDS = "/folds"  # part that is the folds of the slide; no element has a name like this
MEMBERS = "members/"
COLUMNS_OF_SHAPES = "columns/"
COLUMNS = ("obs/", "var/", COLUMNS_OF_SHAPES)  # by name


# function -> what it makes, in the words of the field
WHAT = {
    "pp.assign_cells": "which cells lie in which patch",
    "pp.find_nuclei": "nuclei of the H&E",
    "pp.find_tissue": "outlines of the tissue",
    "pp.highly_variable_genes": "most variable genes",
    "pp.import_patches": "patches of the H&E, as another tool cut them",
    "pp.make_patches": "patches of the H&E",
    "pp.normalize": "normalised counts of the cells",
    "pp.normalize_stain": "one stain for the colours of the patches",
    "pp.split": "folds of the cells",
    "tl.aggregate_patches": "measured scores of the patches, their labels",
    "tl.attention": "maps of where the predicted scores come from",
    "tl.cross_validate": "predicted scores, each by a model that has not seen its patch",
    "tl.embed_cells": "embedding of the expression of the cells",
    "tl.embed_patches": "features of the image of the patches",
    "tl.predict_cells": "predicted scores of the cells",
    "tl.predict": "predicted scores of the patches",
    "tl.referee": "scores that an outside model predicted, as they were judged",
    "tl.score_cells": "signature scores of the cells",
    "tl.signature_map": "maps of the predicted scores below the size of a patch",
}


def what_is_made(part: str, made_by: str) -> str:
    """What a part that a function made is, in the words of the field."""
    if made_by == "tl.cross_validate" and "/obsm/" in part:
        return "embedding of the expression of the patches, by an autoencoder that has not seen a fold"
    return WHAT.get(made_by, made_by)


def pixels_of(image_key: str) -> str:
    """Part that is the pixels of an image."""
    return f"{image_key}/{PIXELS}"


def with_levels(slide: Slide, part: str) -> list[str]:
    """A part, and of pixels their coarser levels too: patches are read from the level that fits their size."""
    key, _, aspect = part.partition("/")
    levels = levels_of(slide.sdata.images.get(key)) if aspect == PIXELS else []
    return [part, *(f"{part}/{number}" for number in range(1, len(levels)))]


def level_of(part: str) -> int:
    """Number of the level of an image that a part is; 0 for the finest, and for what is no level."""
    number = part.partition(f"/{PIXELS}/")[2]
    return int(number) if number.isdecimal() else 0


def place_of(key: str) -> str:
    """Part that is where an image, shapes or labels lie."""
    return f"{key}/{PLACE}"


def with_place(key: str | None) -> list[str]:
    """Parts that are shapes or labels and where they lie; none for None."""
    return [] if key is None else [key, place_of(key)]


def stain_of(patches_key: str) -> str:
    """Part that is the matrix by which the colours of patches are normalised."""
    return f"{patches_key}/{STAIN}"


def obsm_of(table_key: str, key: str) -> str:
    """Part that is an entry of the ``obsm`` of a table."""
    return f"{table_key}/obsm/{key}"


def members_of(table_key: str, patches_key: str) -> str:
    """Part that is the membership of cells in patches of one key, as long as it is not that of others."""
    return f"{table_key}/{MEMBERS}{patches_key}"


def counts_of_table(table_key: str, test_fold: int | None = None) -> list[str]:
    """Parts that are ``X`` of a table and, where a fold of it is left out, the folds."""
    return [f"{table_key}/X", *([] if test_fold is None else [FOLDS])]


def described(slide: Slide, part: str) -> str:
    """What a message calls a part."""
    key, _, aspect = part.partition("/")
    section, _, name = aspect.partition("/")
    if part == FOLDS:
        return "its folds"
    sdata = slide.sdata
    kinds = {"table": sdata.tables, "image": sdata.images, "labels": sdata.labels}
    kind = next((kind for kind, elements in kinds.items() if key in elements), "shapes")
    if section in {PIXELS, PLACE, STAIN}:
        place = "the alignment of image" if kind == "image" else f"the transformation of {kind}"
        what = {PIXELS: "the pixels of image", PLACE: place, STAIN: "the stain of patches"}
        return f"level {name} of {what[section]} {key!r}" if name else f"{what[section]} {key!r}"
    if aspect.startswith(MEMBERS):
        section, name = "obsm", _keys.MEMBERSHIP
    if section == "columns":
        return f"`shapes[{key!r}][{name!r}]`"
    if section:
        return f"`tables[{key!r}].{section}[{name!r}]`" if name else f"`tables[{key!r}].{section}`"
    return f"{kind} {key!r}"


def changed_by_hand(slide: Slide, part: str, aspects: list[str], made_by: str) -> str:
    """A sentence on what of a part was changed by hand (``""`` for itself), after the function ``made_by`` wrote it."""
    what = first_few([described(slide, f"{part}/{aspect}" if aspect else part) for aspect in aspects])
    use = f"what was changed by hand is used as it is, until `sp.{made_by}` is called again"
    if f"{part}/{aspects[0]}".rstrip("/").endswith(f"/obs/{_keys.FOLD}"):
        use = "that has no effect: folds are those of `sp.pp.split`, which is to be called for others"
    were = f"changed since `sp.{made_by}` wrote {'it' if len(aspects) == 1 else 'them'}"
    return f"slide {slide.name!r}: {what} {were}; {use}."
