"""The patches of a slide and the tables that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.data.frames import image_to_um
from spatialsig.data.patches import PatchSource, image_levels
from spatialsig.data.splits import folds_of
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide


@dataclass(frozen=True)
class PatchSpec:
    """How the patches of a slide were cut: sizes in model px, in level-0 px, and µm/px of both.

    ``level`` is the level of the pyramid that is read, and ``resample`` the px of it per px of the patch (1: as it is);
    ``tissue_key`` the element that said where tissue is (None: found on the image); ``made_by`` the verb or tool;
    ``stain`` what ``pp.normalize_stain`` found (None: the colours of the scan). Slides patched by an early version lack
    these.
    """

    image_key: str
    patch_px: int
    um_per_px: float
    size_l0: int
    stride_l0: int
    image_um_per_px: float
    min_tissue: float
    level: int | None = None
    resample: float | None = None
    tissue_key: str | None = None
    made_by: str = "make_patches"
    stain: dict[str, Any] | None = None


def patch_spec(slide: Slide, patches_key: str) -> PatchSpec:
    """Sizes of the patches, as ``pp.make_patches`` recorded them."""
    where = f"the shapes of slide {slide.name!r}"
    check_key(slide.sdata.shapes, patches_key, name="patches_key", where=where, fix="Call `sp.pp.make_patches` first.")
    recorded = slide.attrs.get("patches", {})
    where = f"the patches that `sp.pp.make_patches` laid on slide {slide.name!r}"
    check_key(recorded, patches_key, name="patches_key", where=where)
    return PatchSpec(**recorded[patches_key])


def patch_origins_of(slide: Slide, patches_key: str) -> NDArray[np.int64]:
    """Top-left corners ``(n_patches, 2)`` as y0, x0 in level-0 px."""
    return np.asarray(slide.sdata.shapes[patches_key][[_keys.Y0, _keys.X0]], np.int64)


def patch_centres_um(slide: Slide, patches_key: str) -> NDArray[np.float64]:
    """Centres of the patches, µm ``(n_patches, 2)`` as x, y."""
    spec = patch_spec(slide, patches_key)
    centres_px = patch_origins_of(slide, patches_key)[:, ::-1] + spec.size_l0 / 2
    return apply(image_to_um(slide, spec.image_key), centres_px)


def patch_extent_um(slide: Slide, patches_key: str) -> float:
    """Width of a patch along the axes of the cells, µm: on a turned image it is more than its edge."""
    spec = patch_spec(slide, patches_key)
    turn = image_to_um(slide, spec.image_key)[:2, :2]
    return float(spec.size_l0 * np.abs(turn).sum(axis=1).max())


def folds_of_patches(slide: Slide, patches_key: str) -> NDArray[np.int64]:
    """Fold of every patch, ``(n_patches,)``; a patch that straddles two blocks is in the buffer."""
    return folds_of(slide, patch_centres_um(slide, patches_key), extent_um=patch_extent_um(slide, patches_key))


def patch_table(
    slide: Slide, patches_key: str, values: NDArray[Any], names: Sequence[str], *, n_cells: NDArray[Any] | None
) -> ad.AnnData:
    """Table with one row per patch that annotates the patches: ids, sample, patient, fold and positions filled in.

    ``n_cells`` is None on a slide without cells.
    """
    shapes = slide.sdata.shapes[patches_key]
    centres = patch_centres_um(slide, patches_key)
    obs = pd.DataFrame(
        {
            _keys.REGION_KEY: pd.Categorical([patches_key] * len(shapes)),
            _keys.PATCH_ID: shapes.index.to_numpy(),
            _keys.SAMPLE: pd.Categorical([slide.name] * len(shapes)),
            _keys.PATIENT: pd.Categorical([slide.patient] * len(shapes)),
            _keys.FOLD: folds_of(slide, centres, extent_um=patch_extent_um(slide, patches_key)),
        },
        index=[f"{slide.name}-{i}" for i in shapes.index],
    )
    if n_cells is not None:
        obs[_keys.N_CELLS] = n_cells
    table = ad.AnnData(np.asarray(values, np.float32), obs=obs, var=pd.DataFrame(index=list(names)))
    table.obsm[_keys.SPATIAL] = centres
    return TableModel.parse(
        table, region=patches_key, region_key=_keys.REGION_KEY, instance_key=_keys.PATCH_ID, overwrite_metadata=True
    )


def patch_source(slide: Slide, patches_key: str, rows: NDArray[np.int64] | None = None) -> PatchSource:
    """Images of the patches of a slide (of ``rows`` only, where given), to be read on demand."""
    spec = patch_spec(slide, patches_key)
    origins = patch_origins_of(slide, patches_key)
    return PatchSource(
        sample=slide.name,
        levels=image_levels(slide.sdata, spec.image_key),
        origins=origins if rows is None else origins[rows],
        size_l0=spec.size_l0,
        out_px=spec.patch_px,
        recolour=None if spec.stain is None else np.array(spec.stain["matrix"]),
    )


def level_read(slide: Slide, image_key: str, *, size_l0: float, out_px: int) -> tuple[int, float]:
    """Level of the pyramid that patches of ``size_l0`` level-0 px are read from, and its px per px of the patch."""
    levels = image_levels(slide.sdata, image_key)
    source = PatchSource(slide.name, levels, np.empty((0, 2), np.int64), size_l0, out_px)
    index = next(i for i, level in enumerate(levels) if level is source.level)
    return index, size_l0 / max(source.level.downsample) / out_px
