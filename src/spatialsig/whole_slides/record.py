"""What a slide was predicted from and how: kept beside its results, and compared before anything is done again.

Floor 11, above report. Used by whole_slides/from_files, whole_slides/one_slide.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._hashing import file_ends_hash, json_hash, listing_of, stamp_of
from spatialsig.inference.domain import reference_in_words
from spatialsig.inference.held_out import learned_from
from spatialsig.io.images.open_rgb import WITH_FOLDER
from spatialsig.labels.scorers import UNITS
from spatialsig.models.ensemble import members_of, weights_hash
from spatialsig.whole_slides.listing import DICOM_SUFFIX, is_store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.whole_slides.listing import SlideImage

ZSCORE = "zscore"


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
    if model.domain is not None:
        facts["domain_sha256"] = model.domain.sha256
    return {**facts, "sha256": json_hash(facts), **learned_from(model.run), **_for_readers(model)}


def _for_readers(model: SignatureModel) -> dict[str, Any]:
    """What the page says of a model beside that: what its scores mean, and what its domain was learned from."""
    first, domain = members_of(model)[0], model.domain
    method = str(first.run.get("inputs", {}).get("targets", {}).get("method", ""))
    typical = np.stack([first.target_mean, first.target_std], axis=1).astype(float).tolist()
    found: dict[str, Any] = {"meaning": _meaning(method), "typical": dict(zip(model.signatures, typical, strict=True))}
    if domain is not None:
        found |= {"reference": reference_in_words(domain.n_patches, domain.n_patients), "n_patients": domain.n_patients}
    return found


def _meaning(method: str) -> str:
    """What 0 and 1 of a score are, in words."""
    if method == ZSCORE:
        return (
            "0 is the mean of the training cells, 1 lies one standard deviation of a gene above it (mean over the genes of the signature); "
            "means over patches vary less than cells"
        )
    return UNITS.get(method, "the unit is that of the labels that the model learned")


def describe_image(image: SlideImage) -> dict[str, Any]:
    """Which file a slide is, and a fingerprint that changes when its pixels are replaced."""
    root = image.path / "images" / _keys.IMAGE if is_store(image.path) else image.path
    ends = file_ends_hash(root) if root.is_file() else ""
    return {"path": str(image.path.resolve()), "sha256": json_hash([ends, _listed(root)])}


def _listed(root: Path) -> list[list[object]]:
    """All files that hold the pixels of an image."""
    if root.is_dir():
        return listing_of(root)
    suffix, folder = root.suffix.lower(), root.parent
    if suffix == DICOM_SUFFIX:
        return [stamp_of(file, folder) for file in sorted(folder.iterdir()) if file.suffix.lower() == suffix]
    return [stamp_of(root, folder), *(listing_of(root.with_suffix("")) if suffix in WITH_FOLDER else [])]


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
