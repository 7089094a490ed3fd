"""The residual shift of the H&E off the cells, and the usual mistakes recognised.

Floor 7, above evaluation. Called as sp.pp.qc_alignment; used by pipeline/run_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import Count, Key, checked
from spatialsig._checks import warn
from spatialsig.errors import AlignmentError
from spatialsig.geometry.affine import image_um_per_px
from spatialsig.geometry.mistakes import COPIES, SAME_PX, TAKEN_AS_PX, hypotheses, rescaled, taken_as_px
from spatialsig.pp._registration_fits import Fitter, is_plausible, region_groups, sample_groups
from spatialsig.pp._registration_image import NucleiRasters, place_image, refuse_patches
from spatialsig.pp._registration_scale import find_rescaled
from spatialsig.slide.coordinates import check_matrix, image_of, matrix_to_global, positions, um_per_global
from spatialsig.slide.each import map_slides
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spatialsig.geometry.mistakes import Hypothesis
    from spatialsig.pp._registration_fits import Fit
    from spatialsig.slide.slides import Slide

WARN_UM = 10.0  # a longer shift costs labels of 112-um patches more than .01 of r
SMALL_REGION_UM = 1000.0
ALIKE = 0.9  # of the best height: on a small slide two readings of one size differ by a shift alone
CLEARLY = 1.3  # a mistake is named when its correction fits this much better

GOOD, SHIFTED, WRONG, CANNOT_TELL = "good", "shifted", "wrong", "cannot tell"


@dataclass(frozen=True)
class Result:
    """Verdict on one slide, with the fits behind it."""

    verdict: str
    fit: Fit
    share_in_image: float
    share_on_tissue: float
    regions: list[dict[str, Any]]
    tried: dict[str, dict[str, Any]]
    best: Hypothesis | None
    n_cells: int


@checked
@needs_cells
def qc_alignment(
    data: Data,
    *,
    max_shift_um: Annotated[float, Field(gt=0, le=2000)] = 75.0,
    n_regions: Count = 4,
    refine: bool = False,
    image_key: Key = _keys.IMAGE,
    table_key: Key = _keys.TABLE,
) -> pd.DataFrame:
    """Measure how far the H&E lies off the cells, and name the mistake where its alignment is wrong.

    Haematoxylin [2]_, above what surrounds it, is correlated with the positions of the cells at all shifts [1]_. A
    shift is given only where one peak stands out; "cannot tell" is an answer. The same fit is made for alignments that
    undo a usual mistake: x and y swapped, the H&E mirrored or turned, the inverse matrix, µm for pixels, a pixel size
    two or ten times off, a matrix made on a copy of the H&E of half or double size, or with px as its file states them.
    Where none of them fits and the file states none, copies of any size are tried.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; only parameters are written, unless ``refine``.
    max_shift_um
        Longest shift to look for, µm.
    n_regions
        The map of shifts has ``n_regions`` x ``n_regions`` boxes over the cells; NaN where a box has too few cells.
    refine
        Move the image by the shift that was found, where it is clear, and measure again.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    table_key
        Table of the cells, with positions in ``obsm["spatial"]`` (µm).

    Returns
    -------
    One row per slide (index: its name):

    - ``verdict``: "good", "shifted" (by more than 10 µm), "wrong" (a mistake is named) or "cannot tell";
    - ``dx_um``, ``dy_um``, ``shift_um``: where nuclei lie on the H&E minus where the cells are, NaN where unclear;
    - ``ncc``: correlation at the best shift; ``peak_height``: its height above the other shifts, in their standard
      deviations (noise reaches 5); ``confidence``: 1 minus the next peak's share of it, 0 where unclear;
    - ``share_in_image``, ``share_on_tissue``: share of the cells that lie there as it is set; ``n_cells``;
    - ``mistake``, ``fix``: what is wrong and what to do about it, empty otherwise;
    - ``moved_um``: how far ``refine`` moved the image, 0 otherwise. All other columns are measured after the move.

    Writes ``attrs["spatialsig"]["qc_alignment"]``: the same, and ``regions`` (``x_um``, ``y_um`` of the middle, shift,
    confidence, ``n_cells``), ``hypotheses`` (fit of each) and, after a move, ``refined`` (matrices and fits before and
    after). With ``refine``: the transformation of the image to ``global``.

    Raises
    ------
    KeyMissingError
        If the image, the table or the positions are missing.
    AlignmentError
        If the image has no transformation, or ``refine`` is asked for when patches were cut already.

    Warns
    -----
    SpatialsigWarning
        If the shift is longer than 10 µm, a mistake explains the slide better, or nothing can be told.

    References
    ----------
    .. [1] Padfield D. Masked object registration in the Fourier domain. IEEE Transactions on Image Processing 21,
       2706-2718 (2012). https://doi.org/10.1109/TIP.2011.2181402
    .. [2] Ruifrok AC, Johnston DA. Quantification of histochemical staining by color deconvolution. Analytical and
       Quantitative Cytology and Histology 23, 291-299 (2001). PMID 11531144

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy(registration_error_um=6)
    >>> qc = sp.pp.qc_alignment(sdata)
    >>> qc["verdict"].item(), round(qc["shift_um"].item())
    ('good', 6)
    """
    limits: dict[str, Any] = {"max_shift_um": max_shift_um, "n_regions": int(n_regions), "refine": refine}
    work = partial(_check, image_key=image_key, table_key=table_key, **limits)
    names, rows = zip(*map_slides(data, work, "alignment"), strict=True)
    table = pd.DataFrame(list(rows), index=list(names))
    measured = ["dx_um", "dy_um", "shift_um"]
    table[measured] = table[measured].astype(float)
    return table.rename_axis(_keys.SAMPLE)


def _check(
    slide: Slide, *, image_key: str, table_key: str, max_shift_um: float, n_regions: int, refine: bool
) -> tuple[str, dict[str, Any]]:
    """Measure a slide and write down what was found; its name and its row of the table."""
    xy, before = _positions(slide, table_key), _matrix(slide, image_key)
    if refine:
        refuse_patches(slide, image_key)
    rasters = NucleiRasters(slide, image_key)
    fitter = Fitter(rasters, xy, max_shift_um=max_shift_um)
    search = partial(_rescaled, slide, image_key, fitter, xy, max_shift_um)
    result = _judge(fitter, _readings(slide, image_key, rasters.shape), xy, n_regions, search)
    refined: dict[str, Any] = {}
    if refine and result.verdict in {GOOD, SHIFTED}:
        moved = before.copy()
        moved[:2, 2] -= np.array([result.fit.dx_um, result.fit.dy_um]) / um_per_global(slide)
        place_image(slide, image_key, moved)
        first = result.fit
        result = _judge(fitter, _readings(slide, image_key, rasters.shape), xy, n_regions, search)
        refined = {
            "matrix_before": before.tolist(), "matrix_after": moved.tolist(),
            "before": first.as_dict(), "after": result.fit.as_dict(), "moved_um": first.shift_um,
        }  # fmt: skip
    _warn(slide, result, max_shift_um)
    row = _row(result) | {"moved_um": refined.get("moved_um", 0.0)}
    kept = row | {
        "mistake_name": result.best.name if result.best else "",
        "image_key": image_key, "table_key": table_key, "max_shift_um": max_shift_um, "n_regions": n_regions,
        "regions": result.regions, "hypotheses": result.tried,
    }  # fmt: skip
    slide.attrs["qc_alignment"] = kept | ({"refined": refined} if refined else {})
    slide.commit_attrs()
    return slide.name, row


def _positions(slide: Slide, table_key: str) -> NDArray[np.float64]:
    """Finite positions of the cells ``(n, 2)``, µm."""
    xy = positions(slide, table_key)
    return xy[np.isfinite(xy).all(axis=1)]


def _matrix(slide: Slide, image_key: str) -> NDArray[np.float64]:
    matrix = matrix_to_global(image_of(slide, image_key))
    if matrix is None:
        msg = (
            f"slide {slide.name!r}: image {image_key!r} has no transformation to {_keys.GLOBAL!r}; give it one with "
            f"`sp.pp.align_he`."
        )
        raise AlignmentError(msg)
    check_matrix(slide, matrix, f"image {image_key!r}")
    return matrix


def _readings(slide: Slide, image_key: str, shape: tuple[int, int]) -> list[Hypothesis]:
    """Ways to read the alignment, the one for px as large as the file of the image states among them."""
    matrix, scale = _matrix(slide, image_key), um_per_global(slide)
    readings = hypotheses(matrix, um_per_global=scale, shape=shape)
    edges = slide.attrs.get(_keys.FILE_UM_PER_PX, {}).get(image_key)
    factor = np.sqrt(np.prod(edges)) / image_um_per_px(matrix, scale) if edges else 1.0
    if min(abs(np.log(factor / known)) for known in (1.0, *COPIES.values())) > SAME_PX:
        readings.append(rescaled(matrix, float(factor), um_per_global=scale))
    source = slide.attrs.get("source")
    if isinstance(source, dict) and source.get("spatial_unit") == "px" and abs(np.log(scale)) > SAME_PX:
        readings.append(taken_as_px(matrix, um_per_px=scale))
    return readings


def _rescaled(
    slide: Slide, image_key: str, fitter: Fitter, xy: NDArray[np.float64], max_shift_um: float
) -> Hypothesis | None:
    """Reading for a copy of the H&E of whatever size; None where the file of the image confirms the size that is set."""
    matrix, scale = _matrix(slide, image_key), um_per_global(slide)
    edges = slide.attrs.get(_keys.FILE_UM_PER_PX, {}).get(image_key)
    if edges:
        return None  # what it states is among the readings
    return find_rescaled(fitter, matrix, xy, um_per_global=scale, max_shift_um=max_shift_um)


def _judge(
    fitter: Fitter, readings: list[Hypothesis], xy: NDArray[np.float64], n_regions: int,
    search: Callable[[], Hypothesis | None],
) -> Result:  # fmt: skip
    """Fit the alignment as it is set to all cells, and every reading of it to some of them.

    Where none stands out, ``search`` looks for one more.
    """
    as_set = readings[0]
    groups, middles = region_groups(xy, n_regions)
    fit, parts = fitter.whole(as_set, groups)
    if np.ptp(xy, axis=0).max() < n_regions * SMALL_REGION_UM:  # the rims of small regions count twice
        fit, _ = fitter.whole(as_set, [np.arange(len(xy))])
    some = sample_groups(xy)
    fits = {reading.name: fitter.whole(reading, some)[0] for reading in readings}
    shares = {reading.name: fitter.shares(reading) for reading in readings}
    if not any(found.clear for found in [fit, *fits.values()]) and (copy := search()) is not None:
        readings = [*readings, copy]
        fits[copy.name], shares[copy.name] = fitter.whole(copy, some)[0], fitter.shares(copy)
    clear = [reading for reading in readings[1:] if fits[reading.name].clear]
    top = max((fits[reading.name].height for reading in clear), default=0.0)
    alike = [reading for reading in clear if ALIKE * top <= fits[reading.name].height]
    # what is right leaves no shift; where the unit of the cells is a guess of ours, that is the likelier mistake
    best = min(alike, key=lambda reading: (reading.name != TAKEN_AS_PX, fits[reading.name].shift_um), default=None)
    if best is not None and fit.clear:
        mine, other = fits[as_set.name], fits[best.name]
        best = best if other.ncc > CLEARLY * mine.ncc and other.height > CLEARLY * mine.height else None
    verdict = WRONG if best else CANNOT_TELL
    if best is None and fit.clear:
        verdict = SHIFTED if fit.shift_um > WARN_UM else GOOD
    tried = {
        reading.name: fits[reading.name].as_dict()
        | {"share_in_image": shares[reading.name][0], "share_on_tissue": shares[reading.name][1]}
        | {"plausible_pixel": is_plausible(reading)}
        for reading in readings
    }
    regions = [
        {"x_um": float(x), "y_um": float(y)} | part.as_dict() for (x, y), part in zip(middles, parts, strict=True)
    ]
    return Result(verdict, fit, *shares[as_set.name], regions, tried, best, len(xy))


def _row(result: Result) -> dict[str, Any]:
    return {
        "verdict": result.verdict,
        **result.fit.as_dict(),
        "n_cells": result.n_cells,
        "share_in_image": result.share_in_image,
        "share_on_tissue": result.share_on_tissue,
        "mistake": result.best.mistake if result.best else "",
        "fix": result.best.fix if result.best else "",
    }


def _warn(slide: Slide, result: Result, max_shift_um: float) -> None:
    fit, name, look = result.fit, f"slide {slide.name!r}", "look at it with `sp.pl.alignment`"
    on_tissue = f"{result.share_on_tissue:.0%} of {result.n_cells} cells on tissue"
    if result.best is not None:
        tried = result.tried[result.best.name]
        msg = (
            f"{name}: the H&E does not fit the cells as it is aligned (correlation {fit.ncc:.2f}, {on_tissue}). It fits "
            f"({tried['ncc']:.2f}, {tried['share_on_tissue']:.0%} on tissue) if {result.best.mistake}: "
            f"{result.best.fix}; {look}."
        )
    elif result.verdict == SHIFTED:
        msg = (
            f"{name}: the H&E lies {fit.shift_um:.1f} um off the cells (x {fit.dx_um:+.1f}, y {fit.dy_um:+.1f}), more "
            f"than {WARN_UM:g} um: call `sp.pp.qc_alignment(..., refine=True)` to move it, or align it again; {look}."
        )
    elif result.verdict == CANNOT_TELL:
        msg = (
            f"{name}: cannot tell whether the H&E lies on the cells ({on_tissue}): no shift up to {max_shift_um:g} um "
            f"and no usual mistake stands out; {look}, and give `sp.pp.align_he` landmarks if they do not match."
        )
    else:
        return
    warn(msg)
