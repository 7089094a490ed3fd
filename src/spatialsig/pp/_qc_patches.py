"""Quality of every patch: focus, glass, ink, folds, unusual stain.

Floor 7, above evaluation. Called as sp.pp.qc_patches; used by 3 modules of pipeline, whole_slides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from scipy import sparse

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, Positive, checked
from spatialsig._checks import check_key
from spatialsig._progress import progress_bar
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.models.ensemble import SignatureModel
from spatialsig.pp._elements import checked_coarse_pixels, geometries_on_image
from spatialsig.pp._segmentation import MASK_UM_PER_PX, TissueMask, segment, tissue_fraction
from spatialsig.slide.coordinates import image_um_per_px
from spatialsig.slide.each import map_slides
from spatialsig.slide.slides import Data, learn_from, open_slides
from spatialsig.slide.table_rows import dense, scores_of
from spatialsig.stats import patch_quality as quality
from spatialsig.stats.appearance import appearance
from spatialsig.stats.stain import optical_density

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.models.domain import TrainingDomain
    from spatialsig.slide.slides import Slide

BLOCK_UM = 8.0  # colours are judged on blocks of about a cell
BATCH_MB = 64
_KEPT = "contrast_kept"
FOCUS_SD = 3.0  # small patches and mixed tissue vary in sharpness: so many robust sd below the median are usual


@dataclass(frozen=True)
class _Limits:
    """Limits beyond which a patch fails."""

    min_focus: float
    max_white: float
    max_pen: float
    max_fold: float
    max_stain: float


@checked
def qc_patches(
    data: Data,
    *,
    patches_key: Key = _keys.PATCHES,
    min_focus: Positive = 0.75,
    max_white: Fraction = 0.75,
    max_pen: Fraction = 0.03,
    max_fold: Fraction = 0.08,
    max_stain: Positive = 5.0,
    qc_key: Key | None = None,
    model: SignatureModel | None = None,
    drop: bool = False,
) -> pd.DataFrame:
    """Measure the quality of every patch from its pixels, and mark those that pass.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    patches_key
        Shapes element with the patches.
    min_focus
        Sharpness under which a patch fails, in units of the median patch of the slide (of the cohort's median slide,
        where the slide is blurred as a whole). On a slide whose patches vary more, 3 robust standard deviations below
        its median are still allowed.
    max_white, max_pen, max_fold
        Largest share of the patch that is glass, ink or dark rim, and folded tissue, 0 to 1.
    max_stain
        Largest distance of the patch's stain from the usual one of the slide, robust standard deviations.
    qc_key
        Table that ``squidpy.experimental.im.qc_image`` made: its metrics are averaged over each patch by area and
        written beside ours. They decide nothing.
    model
        Model that is to predict the patches. One that knows what it learned from (``model.domain``) says how sharp its training patches
        were: a slide far below is judged against these, so that one that is blurred as a whole fails, alone or among others.
    drop
        Leave out the patches that fail and number the others anew.

    Returns
    -------
    One row per slide: ``n_patches``, ``n_pass`` and the number that fails by each of ``focus``, ``white_share``,
    ``pen_share``, ``fold_share``, ``stain_outlier`` (a patch may fail by several), and ``focus``'s median. Written are
    these five columns (float; ``focus`` relative as above; NaN stain where a patch has no tissue) and ``qc_pass`` (bool)
    of ``shapes[patches_key]``, the columns of ``qc_key``, and the limits in
    ``attrs["spatialsig"]["qc_patches"][patches_key]``.

    Raises
    ------
    KeyMissingError
        If there are no such patches, or no table ``qc_key``.
    InputError
        If a limit is out of range, or patches are to be dropped that tables already refer to.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> report = sp.pp.qc_patches(sdata)
    >>> sorted(report.columns)[-3:]
    ['pen_share', 'stain_outlier', 'white_share']
    """
    limits = _Limits(min_focus, max_white, max_pen, max_fold, max_stain)
    domain = None if model is None else model.domain
    work = partial(_measure, patches_key=patches_key, qc_key=qc_key, domain=domain, drop=drop)
    measured = dict(map_slides(learn_from(data), work, "quality"))
    usual = float(np.median([_usual_focus(columns) for columns in measured.values()]))
    rows = []
    for slide in open_slides(data):
        columns = measured[str(slide.path)]
        tissue = columns[_keys.WHITE_SHARE] <= 0.5
        kept = 1.0 if domain is None else domain.contrast_of_slide(columns[_KEPT][tissue].to_numpy())
        rows.append(_judge(slide, patches_key, columns.drop(columns=_KEPT), usual, kept, limits, qc_key))
        if drop:
            _drop(slide, patches_key)
    return pd.DataFrame(rows).set_index(_keys.SAMPLE)


def _measure(
    slide: Slide, *, patches_key: str, qc_key: str | None, domain: TrainingDomain | None, drop: bool
) -> tuple[str, pd.DataFrame]:
    """Store and the five columns of a slide that can be judged, ``focus`` still absolute, and the contrast kept of that in training."""
    patches = slide.patches(patches_key)
    if qc_key is not None:
        slide.table(qc_key, name="qc_key", fix="Run `squidpy.experimental.im.qc_image` first.")
    if drop:
        _refuse_if_used(slide, patches_key)
    spec, source = patches.spec, patches.source()
    n_blocks = max(1, min(spec.patch_px // 2, round(spec.patch_px * spec.um_per_px / BLOCK_UM)))
    size = max(1, int(BATCH_MB * 2**20 / (4 * 3 * 3 * spec.patch_px**2)))
    sharp, blocks, kept = [], [], []
    with progress_bar(f"quality of {slide.name}", total=len(source), unit="patch") as bar:
        for start in range(0, len(source), size):
            images = read_patches(source, np.arange(start, min(start + size, len(source))))
            sharp.append(quality.focus(images))
            blocks.append(quality.density_blocks(images, n_blocks=n_blocks))
            unknown = np.full(len(images), np.nan)
            kept.append(unknown if domain is None else domain.contrast_kept(appearance(images)[1]))
            bar.advance(len(images))
    glass, folds = _slide_wide(slide, spec.image_key)
    above = np.concatenate(blocks) - glass  # (n, b, b, 3)
    pen = quality.not_stain(above)
    white = (above.mean(axis=-1) < quality.WHITE) & ~pen
    tissue = ~(white | pen)
    n_tissue = tissue.sum(axis=(1, 2))
    colours = np.where(tissue[..., None], above, 0).sum(axis=(1, 2)) / np.where(n_tissue, n_tissue, np.nan)[:, None]
    return str(slide.path), pd.DataFrame(
        {
            _keys.FOCUS: np.concatenate(sharp),
            _keys.WHITE_SHARE: white.mean(axis=(1, 2)),
            _keys.PEN_SHARE: pen.mean(axis=(1, 2)),
            _keys.FOLD_SHARE: tissue_fraction(folds, patches.origins, size=spec.size_l0),
            _keys.STAIN_OUTLIER: quality.stain_distance(colours),
            _KEPT: np.concatenate(kept),
        }
    )


def _usual_focus(measured: pd.DataFrame) -> float:
    """Median sharpness of the patches that are mostly tissue (of all, where none is): glass has no focus."""
    on_tissue = measured[_keys.FOCUS][measured[_keys.WHITE_SHARE] <= 0.5]
    return float(np.nanmedian(on_tissue if len(on_tissue) else measured[_keys.FOCUS]))


def _usual_low(measured: pd.DataFrame) -> float:
    """Sharpness, relative to the median, that tissue in focus has on a slide as varied as this one."""
    on_tissue = measured[_keys.FOCUS][measured[_keys.WHITE_SHARE] <= 0.5]
    _, spread = quality.robust_spread(np.log(on_tissue.dropna().to_numpy() + 1e-12)) if len(on_tissue) else (0.0, 0.0)
    return float(np.exp(-FOCUS_SD * spread))


def _slide_wide(slide: Slide, image_key: str) -> tuple[NDArray[np.float32], TissueMask]:
    """Optical density of glass, ``(3,)``, and where tissue is folded: both need more than a patch."""
    um = image_um_per_px(slide, image_key)
    pixels, scale = checked_coarse_pixels(slide, image_key, um_per_px=MASK_UM_PER_PX)
    density = optical_density(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    glass = quality.glass_density(density)
    coarse_um = um * max(scale)
    folds = quality.fold_mask(density - glass, segment(pixels, um_per_px=coarse_um), um_per_px=coarse_um)
    return glass.astype(np.float32), TissueMask(folds, scale)


def _judge(
    slide: Slide,
    patches_key: str,
    measured: pd.DataFrame,
    usual: float,
    kept: float,
    limits: _Limits,
    qc_key: str | None,
) -> dict[str, Any]:
    """Write the columns; returns the row of the report."""
    middle = _usual_focus(measured)
    # a slide that is blurred as a whole is held against the others, a sharp one against itself
    reference = max(middle, usual) if middle < limits.min_focus * usual else middle
    least = min(limits.min_focus, _usual_low(measured))
    if kept < limits.min_focus:  # of the sharpness that the model learned from: how varied the slide is excuses nothing
        reference, least = max(reference, middle / kept), limits.min_focus
    columns = measured.assign(**{_keys.FOCUS: measured[_keys.FOCUS] / max(reference, 1e-12)})
    fails = {
        _keys.FOCUS: columns[_keys.FOCUS] < least,
        _keys.WHITE_SHARE: columns[_keys.WHITE_SHARE] > limits.max_white,
        _keys.PEN_SHARE: columns[_keys.PEN_SHARE] > limits.max_pen,
        _keys.FOLD_SHARE: columns[_keys.FOLD_SHARE] > limits.max_fold,
        _keys.STAIN_OUTLIER: columns[_keys.STAIN_OUTLIER] > limits.max_stain,
    }
    passed = ~pd.DataFrame(fails).any(axis=1)
    shapes = slide.sdata.shapes[patches_key].copy()
    new = {str(name): values.to_numpy() for name, values in columns.items()} | {_keys.QC_PASS: passed.to_numpy()}
    if qc_key is not None:
        new |= _squidpy_metrics(slide, patches_key, qc_key)
    for name, values in new.items():
        shapes[name] = values
    shapes.attrs = slide.sdata.shapes[patches_key].attrs
    recorded = {"limits": asdict(limits), "min_focus_used": least, "focus_reference": reference, "qc_key": qc_key}
    slide.replace(patches_key, shapes, attrs={"qc_patches": recorded}, columns=new)
    counts = {name: int(fail.sum()) for name, fail in fails.items()}
    row = {_keys.SAMPLE: slide.name, "n_patches": len(passed), "n_pass": int(passed.sum()), **counts}
    return {**row, "focus_median": middle}


def _squidpy_metrics(slide: Slide, patches_key: str, qc_key: str) -> dict[str, NDArray[np.float64]]:
    """Metrics of ``qc_image``'s tiles averaged over each patch by the area they share with it; NaN off the tiles."""
    table = slide.table(qc_key, name="qc_key")
    attrs = table.uns.get("spatialdata_attrs", {})
    region = attrs.get("region")
    region = region if isinstance(region, str) else next(iter(region or []), None)
    check_key(slide.sdata.shapes, str(region), name="qc_key", where=f"the shapes of slide {slide.name!r}")
    image_key = slide.patches(patches_key).spec.image_key
    tiles = pd.Series(geometries_on_image(slide, str(region), image_key), index=slide.sdata.shapes[str(region)].index)
    tiles = tiles.loc[table.obs[attrs["instance_key"]].to_numpy()]
    patches = np.asarray(slide.sdata.shapes[patches_key].geometry)
    patch, tile = shapely.STRtree(tiles.to_numpy()).query(patches, predicate="intersects")
    shared = shapely.area(shapely.intersection(patches[patch], tiles.to_numpy()[tile]))
    weights = sparse.csr_matrix((shared, (patch, tile)), shape=(len(patches), len(tiles)))
    return {name: _weighted(weights, values) for name, values in _tile_metrics(slide, qc_key).items()}


def _tile_metrics(slide: Slide, qc_key: str) -> dict[str, NDArray[np.float64]]:
    table = slide.table(qc_key)
    values = dense(scores_of(slide, qc_key))
    columns = {str(name): np.asarray(values[:, k], np.float64) for k, name in enumerate(table.var_names)}
    if "unfocus_score" in table.obs:
        columns["qc_unfocus_score"] = table.obs["unfocus_score"].to_numpy(np.float64)
    return columns


def _weighted(weights: sparse.csr_matrix, values: NDArray[np.float64]) -> NDArray[np.float64]:
    measured = np.isfinite(values)
    total = weights @ measured.astype(np.float64)
    mean = weights @ np.where(measured, values, 0.0) / np.where(total > 0, total, np.nan)
    return np.asarray(mean, np.float64)


def _refuse_if_used(slide: Slide, patches_key: str) -> None:
    """Numbers of patches must not change under a table that refers to them."""
    users = [name for name, table in slide.sdata.tables.items() if _refers(table, patches_key)]
    if users:
        msg = (
            f"slide {slide.name!r}: tables {sorted(users)} refer to the patches of {patches_key!r}, so none can be "
            "dropped; call `sp.pp.qc_patches(drop=True)` right after the patches are made."
        )
        raise InputError(msg)


def _refers(table: ad.AnnData, patches_key: str) -> bool:
    region = table.uns.get("spatialdata_attrs", {}).get("region")
    regions = [region] if isinstance(region, str) else list(region if region is not None else [])
    assigned = table.uns.get(_keys.NAMESPACE, {}).get("assign_cells", {}).get("patches_key")
    return patches_key in regions or assigned == patches_key


def _drop(slide: Slide, patches_key: str) -> None:
    shapes = slide.sdata.shapes[patches_key]
    kept = shapes[shapes[_keys.QC_PASS]].reset_index(drop=True)
    if kept.empty:
        msg = f"slide {slide.name!r}: no patch of {patches_key!r} passes, so none was dropped; look at the columns."
        raise InputError(msg)
    kept.attrs = shapes.attrs
    slide.replace(patches_key, kept)
