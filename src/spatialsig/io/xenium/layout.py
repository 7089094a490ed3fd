"""Generation of the Xenium software that wrote a bundle, from its files (version strings are not reliable)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MORPHOLOGY_DIR = "morphology_focus"
FOCUS_FILE, MIP_FILE = "morphology_focus.ome.tif", "morphology_mip.ome.tif"
_FIRST_FOCUS, _FIRST_CHANNEL = "morphology_focus_0000.ome.tif", "ch0000_dapi.ome.tif"
_VERSION = re.compile(r"^[xX]enium-(\d+)\.(\d+)\.\d+")

INTEGER_IDS, BYTE_IDS, TEXT_IDS = "1.0-1.2", "1.3-1.9", "2 and later"


@dataclass(frozen=True)
class Layout:
    """Generation of a bundle as its files show it.

    Attributes
    ----------
    generation
        XOA versions whose cell ids and segmentation the bundle has: ``1.0-1.2``, ``1.3-1.9`` or ``2 and later``.
    images
        XOA versions whose morphology images it has: ``1``, ``2-3``, ``4``, or None without images.
    """

    generation: str
    images: str | None

    @property
    def xoa(self) -> str:
        """XOA versions that write such a bundle."""
        if self.generation != TEXT_IDS:
            return self.generation
        return self.images if self.images in {"2-3", "4"} else self.generation

    @property
    def images_fit(self) -> bool:
        """Whether images and cell ids are of one generation."""
        return self.images is None or (self.images == "1") == (self.generation != TEXT_IDS)


def detect_layout(path: Path, *, id_kind: str, segmentation: str | None) -> Layout:
    """Find the generation of a bundle in its files.

    Parameters
    ----------
    path
        Bundle.
    id_kind
        How ``cells.parquet`` stores ids: ``"integer"``, ``"bytes"`` or ``"text"``.
    segmentation
        Generation that ``cells.zarr.zip`` shows, None without the file.
    """
    images = _images(path)
    if segmentation is not None:
        return Layout(segmentation, images)
    if id_kind == "text":  # some copies of old bundles hold their ids as text
        return Layout(BYTE_IDS if images == "1" else TEXT_IDS, images)
    return Layout({"integer": INTEGER_IDS, "bytes": BYTE_IDS}[id_kind], images)


def _images(path: Path) -> str | None:
    directory = path / MORPHOLOGY_DIR
    if (directory / _FIRST_CHANNEL).exists():
        return "4"
    if (directory / _FIRST_FOCUS).exists():
        return "2-3"
    return "1" if any((path / name).exists() for name in (FOCUS_FILE, MIP_FILE)) else None


def stated_generation(specs: dict[str, Any]) -> str | None:
    """Generation that the version string of ``experiment.xenium`` claims; None where it says nothing (``R&D``)."""
    ranger = specs.get("xenium_ranger")
    text = ranger.get("version") if isinstance(ranger, dict) and ranger else specs.get("analysis_sw_version")
    numbers = _VERSION.match(text) if isinstance(text, str) else None
    if numbers is None:
        return None
    version = int(numbers[1]), int(numbers[2])
    return INTEGER_IDS if version < (1, 3) else BYTE_IDS if version < (2, 0) else TEXT_IDS


def version_for(generation: str) -> str:
    """Version string that a reader which trusts versions needs for a bundle of this generation."""
    return {INTEGER_IDS: "xenium-1.0.0.0", BYTE_IDS: "xenium-1.3.0.0", TEXT_IDS: "xenium-2.0.0.0"}[generation]
