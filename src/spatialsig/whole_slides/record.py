"""What a slide was predicted from and how: kept beside its results, and compared before anything is done again.

Floor 11, above report. Used by whole_slides/from_files, whole_slides/guard, whole_slides/one_slide.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._hashing import file_ends_hash, json_hash
from spatialsig.models.ensemble import members_of, weights_hash
from spatialsig.whole_slides.listing import DICOM_SUFFIX, is_store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.whole_slides.listing import SlideImage

BESIDE = (".mrxs", ".vms", ".vmu")  # whose pixels lie in other files: in the folder of the same name, or beside


def describe_model(model: SignatureModel) -> dict[str, Any]:
    """What a model is, as plain values; ``sha256`` is of all that decides what it predicts."""
    facts = {
        "kind": model.kind,
        "signatures": list(model.signatures),
        "patch_px": model.patch_px,
        "um_per_px": model.um_per_px,
        "stain": members_of(model)[0].stain,
        "weights_sha256": weights_hash(model),
        "intervals_sha256": "" if model.intervals is None else json_hash(model.intervals),
    }
    learned = {"training_samples": list(map(str, model.run.get("training_samples", [])))}
    return {**facts, "sha256": json_hash(facts), **learned}


def describe_image(image: SlideImage) -> dict[str, Any]:
    """Which file a slide is, and a fingerprint that changes when its pixels are replaced."""
    root = image.path / "images" / _keys.IMAGE if is_store(image.path) else image.path
    ends = file_ends_hash(root) if root.is_file() else ""
    files = [[str(path.relative_to(root.parent)), *_stamp(path)] for path in sorted(_files_of(root))]
    return {"path": str(image.path.resolve()), "sha256": json_hash([ends, files])}


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _files_of(root: Path) -> Iterator[Path]:
    """All files that hold the pixels of an image."""
    if root.is_dir():
        yield from (path for path in root.rglob("*") if path.is_file())
        return
    yield root
    suffix = root.suffix.lower()
    if suffix in BESIDE and root.with_suffix("").is_dir():
        yield from (path for path in root.with_suffix("").iterdir() if path.is_file())
    if suffix == DICOM_SUFFIX:
        yield from (path for path in root.parent.iterdir() if path.suffix.lower() == suffix and path != root)


def is_done(place: Path, record: Mapping[str, Any], wanted: Mapping[str, Any], formats: Collection[str]) -> bool:
    """Whether what is wanted was made already, and is all still there."""
    same = all(record.get(name, {}).get("sha256") == wanted[name]["sha256"] for name in ("model", "image"))
    if not same or record.get("options") != wanted["options"] or not set(formats) <= set(record.get("formats", ())):
        return False
    sizes = {name: (place / name).stat().st_size if (place / name).is_file() else -1 for name in record["files"]}
    return sizes == record["files"] and all((place / store).exists() for store in filter(None, [record.get("store")]))


def as_options(image: SlideImage, options: Any) -> dict[str, Any]:
    """All that was asked for, as JSON gives it back."""
    sizes = {"um_per_px": image.um_per_px, "otherwise_um_per_px": image.otherwise_um_per_px}
    return {**sizes, "patient": image.patient, **asdict(options)}
