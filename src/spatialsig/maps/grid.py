"""A dense grid of patches that overlap, and the bins of a map under them.

Floor 8, above io, pl, pp, tl. Used by 5 modules of maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.models.ensemble import members_of
from spatialsig.pp import normalize_stain
from spatialsig.pp._elements import patch_spec, tissue_of, write_patches
from spatialsig.pp._segmentation import tissue_fraction
from spatialsig.slide.coordinates import full_resolution, image_of, um_per_global
from spatialsig.slide.parts import pixels_of, place_of, stain_of, with_place
from spatialsig.slide.slides import Slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.pp._segmentation import TissueMask
    from spatialsig.slide.patches import Patches

NO_STAIN = "none"
BIN_TISSUE = 0.5  # share of a bin


@dataclass(frozen=True)
class Bins:
    """Size of the bins of a map, and how far one patch lies from the next."""

    edges: int  # bins along the edge of a patch
    step: int  # bins from one patch to the next

    @classmethod
    def of(cls, patch_um: float, *, bin_um: float, stride_um: float) -> Bins:
        """Bins of about ``bin_um``, of which whole ones make a patch, and a stride of whole bins.

        Raises
        ------
        InputError
            If patches would leave gaps, or a bin is larger than a patch.
        """
        for name, value in (("bin_um", bin_um), ("stride_um", stride_um)):
            if value > patch_um * (1 + 1e-9):
                msg = f"`{name}={value:g}` is larger than a patch of the model, {patch_um:g} µm; give at most that."
                raise InputError(msg)
        edges = max(1, round(patch_um / bin_um))
        return cls(edges, min(edges, max(1, round(stride_um * edges / patch_um))))

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each bin of a patch, ``(edges, edges)``: falls in a line from the middle to the rim, where it is half a bin's."""
        along = 1 - np.abs((np.arange(self.edges) + 0.5) * 2 / self.edges - 1) if self.edges > 1 else np.ones(1)
        return np.outer(along, along)


HALF = Bins(edges=2, step=1)  # patches every half of one: a nucleus lies at least a quarter from the rim of its own


@dataclass(frozen=True)
class Grid:
    """Patches on tissue that overlap, on an object of their own: those of the slide stay."""

    patches: Patches
    bins: Bins
    tissue: TissueMask
    sources: tuple[str, ...]  # parts of the slide that they are made from

    @cached_property
    def bin_l0(self) -> float:
        """Edge of a bin, level-0 px."""
        return self.patches.spec.size_l0 / self.bins.edges

    @property
    def bin_um(self) -> float:
        """Edge of a bin, µm."""
        return self.bin_l0 * self.patches.spec.image_um_per_px

    def on_tissue(self, origin: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which bins of a raster that begins at ``origin`` (y, x) are tissue for the most part."""
        keep = np.empty(shape, bool)
        x = origin[1] + np.arange(shape[1]) * self.bin_l0
        for row in range(shape[0]):  # one after another: the corners of all would take more memory than the map
            corners = np.stack([np.full(shape[1], origin[0] + row * self.bin_l0), x], axis=1)
            share = tissue_fraction(self.tissue, corners, size=self.bin_l0)  # type: ignore[arg-type]
            keep[row] = share >= BIN_TISSUE
        return keep


def lay_grid(
    slide: Slide, model: SignatureModel, bins: Bins, *, min_tissue: float, tissue_key: str | None, image_key: str,
    patches_key: str,
) -> Grid:  # fmt: skip
    """Patches of the size that the model wants, every ``bins.step`` bins and at the rims of the image, on tissue.

    They are read in the stain of the slide's own patches; where it has none, in one that is fitted to them.
    """
    spec = patch_spec(
        slide, patch_px=model.patch_px, um_per_px=model.um_per_px, stride_um=model.patch_px * model.um_per_px,
        min_tissue=min_tissue, image_key=image_key,
    )  # fmt: skip
    size = spec.size_l0 / bins.edges
    if size < 1:
        msg = (
            f"slide {slide.name!r}: the bins of the map would be {size:.2g} px of the H&E ({size * spec.image_um_per_px:.2g} µm); wanted at least one px, "
            f"{spec.image_um_per_px:g} µm: raise `bin_um` or `stride_um`."
        )
        raise InputError(msg)
    full = full_resolution(image_of(slide, image_key))
    y, x = (_starts(full.sizes[axis], spec.size_l0, size, bins) for axis in ("y", "x"))
    origins = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    mask, used = tissue_of(slide, image_key, tissue_key)
    share = tissue_fraction(mask, origins, size=spec.size_l0)
    on_tissue = share >= min_tissue
    if not on_tissue.any():
        msg = (
            f"slide {slide.name!r}: none of {len(origins)} patches has {min_tissue:.0%} tissue (the most is "
            f"{share.max(initial=0):.0%}); lower `min_tissue` or look at the image."
        )
        raise InputError(msg)
    sources = [pixels_of(image_key), place_of(image_key), *with_place(used)]
    scratch = Slide(_apart(slide, image_key))
    stain, own = members_of(model)[0].stain, slide.attrs.get("patches", {}).get(patches_key)
    if stain != NO_STAIN and own is not None and patches_key in slide.sdata.shapes:
        spec = replace(spec, stain=slide.patches(patches_key).spec.stain)
        slide.lineage.check(stain_of(patches_key))
        sources.append(stain_of(patches_key))
    write_patches(scratch, _keys.PATCHES, spec, origins[on_tissue], share[on_tissue], "pp.make_patches")
    if stain != NO_STAIN and own is None:
        normalize_stain(scratch.sdata, method=stain)
    return Grid(scratch.patches(), bins, mask, tuple(sources))


def _starts(length: int, size_l0: int, bin_l0: float, bins: Bins) -> NDArray[np.int64]:
    """First px of the patches along one axis: every step, and the last one that lies on the image."""
    last = int((length - size_l0) / bin_l0 + 1e-9)
    at_bins = np.union1d(np.arange(0, last + 1, bins.step), [last])
    return np.rint(at_bins * bin_l0).astype(np.int64).clip(max=length - size_l0)


def _apart(slide: Slide, image_key: str) -> SpatialData:
    """An object with the image alone, under the names of the slide."""
    kept = {name: slide.attrs[name] for name in (_keys.SAMPLE, _keys.PATIENT, "split") if name in slide.attrs}
    attrs = {_keys.SAMPLE: slide.name, **kept, "um_per_global_px": um_per_global(slide)}
    return SpatialData.init_from_elements({image_key: slide.sdata.images[image_key]}, attrs={_keys.NAMESPACE: attrs})
