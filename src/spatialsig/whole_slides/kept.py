"""What lies in a folder of results: which folders are ours, what their records say, and of which image they are.

Floor 11, above report. Used by 5 modules of whole_slides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig._files import object_or_empty, read_json
from spatialsig.errors import InputError, StoreError
from spatialsig.io.images.open_rgb import image_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD, PAGE, SLIDES = "record.json", "index.html", "slides.csv"
FORMAT = 1
# what is read of a record, and its kind; of what is described, the parts that must be there
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "model": dict, "image": dict, "options": dict, "formats": list, "files": dict, "means": dict, "sample": str,
    "n_patches": int, "um_per_px": (int, float), "finished": str,
}  # fmt: skip
_PARTS = (("model", "sha256"), ("model", "signatures"), ("image", "sha256"), ("image", "path"))


def read_record(place: Path) -> dict[str, Any]:
    """Record of the results in a folder; empty where there is none.

    Raises :class:`StoreError` for one that is damaged, or is of another version or program: which files are ours is not known then.
    """
    file = place / RECORD
    if not file.is_file():
        return {}
    fix = f"Move {str(place)!r} away, and its slide is predicted again."
    try:
        record: dict[str, Any] = read_json(file, dict, fix=fix)
    except (InputError, OSError) as error:
        msg = f"the record {str(file)!r} is damaged: {error}"
        raise StoreError(msg) from error
    if record.get("format") != FORMAT:
        msg = f"the record {str(file)!r} has format {record.get('format')!r}; wanted {FORMAT}, as `sp.tl.predict_files` writes it. {fix}"
        raise StoreError(msg)
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(record.get(name), kind)]
    wrong = wrong or [f"{name}.{part}" for name, part in _PARTS if part not in record[name]]
    if wrong:
        msg = f"the record {str(file)!r} is damaged: {wrong} are missing or no longer what was written. {fix}"
        raise StoreError(msg)
    return record


def results_in(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and records of the slides whose results lie in a folder; what is damaged or not ours is left out."""
    if not out.is_dir():
        return
    for place in sorted(path for path in out.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            record = read_record(place)
        except StoreError:
            continue  # said when its slide is predicted
        if record:
            yield place.name, record


def names_in(out: Path) -> dict[str, str]:
    """Image -> name of its results in a folder: where there are several, that of its file, or else the first."""
    found: dict[str, str] = {}
    for name, record in results_in(out):
        path = str(record["image"]["path"])
        if path not in found or name == image_name(out / path):
            found[path] = name
    return found


def is_result(folder: Path) -> bool:
    """Whether a folder, or one that it lies in, holds the results of a slide."""
    return any(
        (place / RECORD).is_file() and {"format", "image", "files"} <= object_or_empty(place / RECORD).keys()
        for place in (folder, *folder.parents)
    )
