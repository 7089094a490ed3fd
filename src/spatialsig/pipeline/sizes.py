"""How much the slides of a manifest hold, before any is imported.

Floor 11, above report. Used by pipeline/estimate, pipeline/workload.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig.errors import InputError, SpatialsigError
from spatialsig.io._cohort import BUNDLE, HE_IMAGE, UM_PER_PX, read_manifest
from spatialsig.io.images.open_rgb import open_rgb
from spatialsig.io.xenium.he import find_he
from spatialsig.io.xenium.size import bundle_size

if TYPE_CHECKING:
    import pandas as pd

TISSUE_SHARE = 0.5  # of an H&E alone, whose pixels are not looked at


@dataclass(frozen=True)
class SlideSize:
    """What a slide holds; an H&E alone has no cells."""

    sample: str
    patient: str
    megapixels: float = 0.0
    tissue_mm2: float = 0.0
    n_cells: int = 0
    n_features: int = 0
    n_values: int = 0  # counts that are not 0

    @property
    def is_measured(self) -> bool:
        """Whether it has cells."""
        return self.n_cells > 0


def slide_sizes(bundles: Path) -> tuple[list[SlideSize], dict[str, str]]:
    """Sizes of the slides of a manifest, and why the others cannot be read, by sample.

    Raises
    ------
    FileMissingError, InputError
        If the manifest itself is missing, or is none.
    """
    found, failed = [], {}
    for _, row in read_manifest(bundles).iterrows():
        try:
            found.append(_slide_size(row))
        except SpatialsigError as error:
            failed[str(row[_keys.SAMPLE])] = str(error)
    return found, failed


def _slide_size(row: pd.Series[Any]) -> SlideSize:
    names = str(row[_keys.SAMPLE]), str(row[_keys.PATIENT])
    if row[BUNDLE] is None:
        megapixels, um_per_px = _image(Path(row[HE_IMAGE]))
        um_per_px = row[UM_PER_PX] or um_per_px
        if um_per_px is None:
            msg = f"image {str(row[HE_IMAGE])!r} does not say the size of its pixels; give it in column `{UM_PER_PX}`."
            raise InputError(msg)
        return SlideSize(*names, megapixels, TISSUE_SHARE * megapixels * um_per_px**2)
    bundle = Path(row[BUNDLE])
    cells = bundle_size(bundle)
    image = (find_he(bundle) or (None,))[0] if row[HE_IMAGE] is None else Path(row[HE_IMAGE])
    megapixels = 0.0 if image is None else _image(image)[0]
    return SlideSize(*names, megapixels, cells.tissue_mm2, cells.n_cells, cells.n_features, cells.n_values)


def _image(path: Path) -> tuple[float, float | None]:
    """Megapixels of the full-resolution image, and µm per px where the file says it."""
    image = open_rgb(path)
    try:
        height, width = image.pixels.shape[:2]
        return height * width / 1e6, image.um_per_px
    finally:
        image.close()
