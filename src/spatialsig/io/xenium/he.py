"""H&E and alignment that belong to a bundle, found by their names, checked, and tried on the cells.

Floor 7, above evaluation. Used by io/_xenium, pipeline/sizes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import warn
from spatialsig.errors import AlignmentError, FileMissingError, InputError
from spatialsig.geometry.affine import apply, check_alignment, read_alignment, um_to_he_px
from spatialsig.geometry.mistakes import SWAP
from spatialsig.io.images.rgb import MAX_OUTSIDE_IMAGE
from spatialsig.io.xenium.bundle import SPECS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from spatialsig.io.images.rgb import RgbFile

_HE = re.compile(r"^(?P<stem>|.*[^A-Za-z])he_image\.(ome\.tiff?|ome\.btf|tiff?|btf|svs|ndpi)$", re.IGNORECASE)
_HE_WORDS = re.compile(r"(^|[^A-Za-z])he_image\.", re.IGNORECASE)
_ALIGNMENT = re.compile(r"(image|he_)alignment\.csv$", re.IGNORECASE)  # of Xenium, of Atera
_IMAGE_SUFFIX = re.compile(r"(\.ome)?\.[A-Za-z0-9]+$", re.IGNORECASE)
_OUTPUT = re.compile(r"(?:^|[-_.\s]+)(?:xe_)?(?:outs?|output)$", re.IGNORECASE)
_FIX_ALIGNMENT = "pass `he_alignment=` (the *_he_imagealignment.csv from Xenium Explorer or the 10x download page)"
IN_BUNDLE, BESIDE_BUNDLE, BESIDE_IMAGE, GIVEN = "in the bundle", "beside the bundle", "beside the image", "given"
IDENTITY = "identity"


def find_he(path: Path) -> tuple[Path, str] | None:
    """Find the H&E of a bundle and say where it lies, or None; :class:`InputError` if more than one could be meant.

    Images in the bundle's folder come first. One folder above, where downloads put it beside ``outs``, an image is
    taken when its name before ``he_image`` is the bundle's, or when it is the only image beside the only bundle.
    """
    inside = _images(path)
    if len(inside) > 1:
        _refuse_images(path, inside, "holds")
    if inside:
        return inside[0], IN_BUNDLE
    folder = path.resolve().parent
    beside = _images(folder)
    if not beside:
        return None
    own = [image for image in beside if _stem(image) == _key(path)]
    if not own:
        own = _of_an_only_bundle(path, beside)
    if len(own) > 1:
        _refuse_images(path, own, "has beside it")
    return (own[0], BESIDE_BUNDLE) if own else None


def _images(folder: Path) -> list[Path]:
    """H&E images by name; dot files are what macOS leaves beside the real ones."""
    files = [file for file in folder.iterdir() if _HE.match(file.name) and not file.name.startswith(".")]
    for file in files:
        if file.exists() and not file.is_file():
            msg = f"H&E image {str(file)!r} is a folder or a pipe; wanted a file: move it away, or give the file with `he_image=`."
            raise InputError(msg)
        if file.is_symlink() and not file.exists():
            msg = (
                f"H&E image {str(file)!r} is a link to {str(file.readlink())!r}, which is not there: mount its disk or mend "
                "the link, or remove it to read the bundle without an image."
            )
            raise FileMissingError(msg)
    return sorted(file for file in files if file.is_file())


def _stem(image: Path) -> str:
    match = _HE.match(image.name)
    return (match["stem"] if match else image.name).rstrip("-_. ").lower()


def _key(bundle: Path) -> str:
    """Common prefix of the names of a bundle's downloads: its own name without ``_outs``, or its folder's."""
    resolved = bundle.resolve()
    return (_OUTPUT.sub("", resolved.name) or resolved.parent.name).lower()


def _of_an_only_bundle(path: Path, images: Sequence[Path]) -> list[Path]:
    """All images where no other bundle lies in the folder; else none, with a warning of those that no name claims."""
    own = path.resolve()
    bundles = (folder for folder in own.parent.iterdir() if any((folder / name).is_file() for name in SPECS))
    others = [folder for folder in bundles if folder != own]
    if not others:
        return list(images)
    keys = {_key(other) for other in others}
    left = [image for image in images if _stem(image) not in keys]
    if left:
        msg = (
            f"bundle {str(path)!r} shares its folder with {len(others)} other(s), so none of the H&E images there "
            f"is taken: {[image.name for image in left]}; pass `he_image=` if one belongs to it."
        )
        warn(msg)
    return []


def _refuse_images(path: Path, images: Sequence[Path], where: str) -> None:
    names = [file.name for file in images]
    msg = f"bundle {str(path)!r} {where} {len(images)} H&E images: {names}; choose one with `he_image=`."
    raise InputError(msg)


def find_alignment(bundle: Path, he_image: Path) -> tuple[Path, str]:
    """Find the alignment of an H&E image and say where it lies: of the same name, else the only one there.

    Raises :class:`AlignmentError` if there is none, or more than one could be meant.
    """
    exact = _names_of_alignment(he_image)
    places = {he_image.parent.resolve(): BESIDE_IMAGE, bundle.resolve(): IN_BUNDLE}
    named = [place / name for place in places for name in exact if (place / name).is_file()]
    if len({file.read_bytes() for file in named}) == 1:
        named = named[:1]
    candidates = named or _lone_alignments(places, he_image)
    if len(candidates) == 1:
        return candidates[0], places[candidates[0].parent]
    if candidates:
        listed = [str(file) for file in candidates]
        msg = f"H&E image {str(he_image)!r} has {len(candidates)} alignments: {listed}; {_FIX_ALIGNMENT}."
    else:
        msg = f"H&E image {str(he_image)!r} has no alignment; wanted {' or '.join(map(repr, exact))} beside it: {_FIX_ALIGNMENT}."
    raise AlignmentError(msg)


def _names_of_alignment(he_image: Path) -> tuple[str, ...]:
    """Names that Xenium and Atera give to the alignment of an image."""
    stem = _IMAGE_SUFFIX.sub("", he_image.name)
    short = stem.removesuffix("image")
    return (f"{stem}alignment.csv", *([f"{short}alignment.csv"] if short != stem else []))


def _lone_alignments(places: dict[Path, str], he_image: Path) -> list[Path]:
    """Alignments of any name, except those named after another image beside them."""
    alignments = []
    for place in places:
        others = {
            name for image in _images(place) if image.name != he_image.name for name in _names_of_alignment(image)
        }
        files = (file for file in place.iterdir() if _ALIGNMENT.search(file.name) and not file.name.startswith("."))
        alignments += sorted(file for file in files if file.name not in others)
    return alignments


def read_he_alignment(
    path: Path, image_path: Path | None, he_alignment: str | Path | ArrayLike | None, pixel_size: float
) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """Read and check the matrix of the H&E, with the attributes that say where it comes from and how well it fits."""
    if image_path is None:
        if he_alignment is not None:
            msg = f"`he_alignment` is given but bundle {str(path)!r} has no H&E image; give `he_image=` too."
            raise InputError(msg)
        _warn_left_over(path)
        return None, {"he_alignment": None, "he_alignment_found": None}
    where, fit = GIVEN, {}
    if he_alignment is None:
        he_alignment, where = find_alignment(path, image_path)
    if isinstance(he_alignment, str) and he_alignment == IDENTITY:
        matrix, name = np.eye(3), IDENTITY
    elif isinstance(he_alignment, (str, Path)):
        read = read_alignment(he_alignment, pixel_size=pixel_size)
        matrix, name = read.matrix, str(Path(he_alignment).resolve())
        fit = {"he_alignment_kind": read.kind, "keypoints": read.n_points, "keypoints_rmse_um": read.rmse_um}
    else:
        matrix, name = _as_matrix(he_alignment), "given as a matrix (`he_alignment`)"
    check_alignment(matrix, pixel_size=pixel_size, name=name)
    return matrix, {"he_alignment": name, "he_alignment_found": where} | fit


def _warn_left_over(path: Path) -> None:
    """Warn of files in a bundle that speak of an H&E, where none is read."""
    files = (file.name for file in path.iterdir() if not file.name.startswith("."))
    left = sorted(name for name in files if _HE_WORDS.search(name) or _ALIGNMENT.search(name))
    if left:
        msg = (
            f"bundle {str(path)!r} is read without an H&E, though it has {left}; wanted a *he_image.ome.tif (.tif, .svs, "
            f".ndpi): let the download finish, or give the image with `he_image=`."
        )
        warn(msg)


def _as_matrix(he_alignment: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(he_alignment, dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = f"`he_alignment` is a {type(he_alignment).__name__} that is no matrix ({error}); wanted (3, 3) numbers or a path."
        raise AlignmentError(msg) from error


def check_inside(
    xy_um: NDArray[np.float64], file: RgbFile, matrix: NDArray[np.float64], pixel_size: float, *, name: str
) -> None:
    """Refuse an alignment that puts cells beside the image; say which usual mistake would explain it."""

    def outside(candidate: NDArray[np.float64]) -> float:
        return float(1 - file.contains(apply(um_to_he_px(candidate, pixel_size), xy_um)).mean())

    share = outside(matrix)
    if share <= MAX_OUTSIDE_IMAGE:
        return
    scaled = np.diag([1 / pixel_size, 1 / pixel_size, 1.0]) @ matrix
    others = {
        "its inverse": np.linalg.inv(matrix),
        "a matrix in um instead of morphology px": scaled,
        "x and y swapped": matrix @ SWAP,
    }
    fitting = [what for what, other in others.items() if outside(other) <= MAX_OUTSIDE_IMAGE]
    hint = f"it fits as {' or '.join(fitting)}" if fitting else "check that image, matrix and bundle are of one slide"
    height, width = file.pixels.shape[:2]
    msg = (
        f"alignment {name!r} puts {share:.0%} of {len(xy_um)} cells outside the H&E of {height} x {width} px (y, x); "
        f"wanted at most {MAX_OUTSIDE_IMAGE:.0%}: {hint}."
    )
    raise AlignmentError(msg)
