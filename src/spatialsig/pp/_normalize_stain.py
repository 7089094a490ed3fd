"""The stains of every slide, and the matrix that gives its patches the colours of one reference.

Floor 7, above evaluation. Called as sp.pp.normalize_stain; used by 5 modules of cli, maps, pipeline, whole_slides.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Seed, checked
from spatialsig._checks import check_choice
from spatialsig._stains import STAINS
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import pixels_of, stain_of
from spatialsig.slide.slides import Data
from spatialsig.stats.stain import TISSUE_OD, optical_density, recolouring, stain_strength

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

METHODS = ("macenko", "vahadane")
REFERENCE_STRENGTH = (1.5, 0.95)  # OD of a well-stained slide; any would do, as long as all slides are given the same
MIN_PIXELS, MAX_PIXELS = 5000, 250_000  # of tissue, from which colours can be told; more do not tell more


@dataclass(frozen=True)
class StainFit:
    """Stains of one slide: their colours (rows: haematoxylin, eosin, neither), strength, and what replaces them."""

    method: str
    vectors: list[list[float]]
    strength: list[float]
    matrix: list[list[float]]


@checked
def normalize_stain(
    data: Data, *, method: str = "macenko", n_patches: Count = 100, seed: Seed = 0, patches_key: str = _keys.PATCHES
) -> pd.DataFrame:
    """Fit the stains of every slide, so that its patches are read in the colours and strengths of one reference.

    Haematoxylin and eosin of a slide are told apart by squidpy (:func:`squidpy.experimental.im.fit_stain_reference`) on
    a sample of its patches, at the resolution that a model sees. No image is written: from now on every patch of the
    slide, read for training, prediction, features or a figure, is painted anew on its way. A model remembers that it
    learned from such patches, and refuses others.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    method
        ``"macenko"`` [1]_ (extreme angles of the plane of colours) or ``"vahadane"`` [2]_ (sparse factors; slower).
    n_patches
        Patches of each slide whose pixels are looked at.
    seed
        Of their choice.
    patches_key
        Shapes element of the patches.

    Returns
    -------
    One row per slide: ``haematoxylin`` and ``eosin``, the optical density that 99 % of the tissue's pixels stay below,
    and ``haematoxylin_degrees`` and ``eosin_degrees``, how far the colours lie from the reference's. Written is the
    entry ``stain`` of ``attrs["spatialsig"]["patches"][patches_key]``: ``method``, ``vectors`` (3 x 3), ``strength`` (2)
    and ``matrix`` (3 x 3), by which optical densities are multiplied. :func:`make_patches` removes it.

    Raises
    ------
    KeyMissingError
        If there are no such patches.
    InputError
        If a slide has too little tissue, or its colours are not those of haematoxylin and eosin; other slides are fitted all the same.

    References
    ----------
    .. [1] Macenko M, Niethammer M, Marron JS, et al. A method for normalizing histology slides for quantitative
       analysis. IEEE International Symposium on Biomedical Imaging, 1107-1110 (2009).
       https://doi.org/10.1109/ISBI.2009.5193250
    .. [2] Vahadane A, Peng T, Sethi A, et al. Structure-preserving color normalization and sparse stain separation for
       histological images. IEEE Transactions on Medical Imaging 35, 1962-1971 (2016).
       https://doi.org/10.1109/TMI.2016.2529665

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> stains = sp.pp.normalize_stain(sdata)
    >>> sorted(sdata.attrs["spatialsig"]["patches"]["patches"]["stain"])
    ['matrix', 'method', 'strength', 'vectors']
    """
    check_choice(method, METHODS, name="method")
    work = partial(_normalize, method=method, n_patches=n_patches, seed=seed, patches_key=patches_key)
    return pd.DataFrame(map_slides(data, work, "stains")).set_index(_keys.SAMPLE)


def _normalize(slide: Slide, *, method: str, n_patches: int, seed: int, patches_key: str) -> dict[str, Any]:
    """Fit a slide and keep the fit with its patches; its row of the table."""
    fit = _fit(slide, method, n_patches, seed, patches_key)
    spec = slide.patches(patches_key).spec
    slide.attrs["patches"][patches_key] = asdict(replace(spec, stain=asdict(fit)))
    slide.changed()
    sources = [pixels_of(spec.image_key), patches_key]
    slide.lineage.record(stain_of(patches_key), sources, made_by="pp.normalize_stain")
    slide.commit_attrs()
    return _row(slide.name, fit)


def reference_vectors() -> NDArray[np.float64]:
    """Unit optical densities of haematoxylin, eosin and what is neither, ``(3, 3)``, of the reference."""
    stains = np.array(STAINS)
    stains = np.vstack([stains, np.cross(*stains)])
    unit: NDArray[np.float64] = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return unit


def _fit(slide: Slide, method: str, n_patches: int, seed: int, patches_key: str) -> StainFit:
    source = slide.patches(patches_key).source(as_scanned=True)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(source))[:n_patches]
    pixels = read_patches(source, np.sort(rows)).transpose(1, 0, 2, 3).reshape(3, -1)
    pixels = pixels[:, optical_density(pixels).mean(axis=0) > TISSUE_OD]
    if pixels.shape[1] < MIN_PIXELS:
        msg = (
            f"slide {slide.name!r}: {pixels.shape[1]} pixels of tissue in {len(rows)} patches; wanted {MIN_PIXELS} to "
            "tell its stains. Raise `n_patches`, or `min_tissue` of `sp.pp.make_patches`."
        )
        raise InputError(msg)
    pixels = pixels[:, rng.permutation(pixels.shape[1])[:MAX_PIXELS]]
    vectors = _vectors(slide, pixels, method)
    strength = stain_strength(optical_density(pixels).T, vectors)
    matrix = recolouring(vectors, strength, reference_vectors(), np.array(REFERENCE_STRENGTH))
    return StainFit(method, vectors.tolist(), strength.tolist(), matrix.tolist())


def _vectors(slide: Slide, pixels: NDArray[np.uint8], method: str) -> NDArray[np.float64]:
    """Unit OD of haematoxylin, eosin and what is neither, a row each, of pixels of tissue ``(3, n)``."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    with warnings.catch_warnings():  # of docrep, on docstrings of squidpy while it is loaded
        warnings.filterwarnings("ignore", category=SyntaxWarning, module=r"docrep\..*")
        from squidpy.experimental.im import fit_stain_reference
    looked_at = SpatialData(
        images={"he": Image2DModel.parse(pixels[:, None], dims=("c", "y", "x"))},
        labels={"tissue": Labels2DModel.parse(np.ones((1, pixels.shape[1]), np.uint8), dims=("y", "x"))},
    )
    try:
        fit = fit_stain_reference(looked_at, "he", method=method, scale="scale0", tissue_mask_key="tissue")
    except (ValueError, RuntimeError) as error:  # the latter is squidpy's own, which it does not export
        msg = (
            f"slide {slide.name!r}: its colours are not those of haematoxylin and eosin ({error}). Look at the image, and "
            "leave out patches of pen and glass with `sp.pp.qc_patches(..., drop=True)`."
        )
        raise InputError(msg) from error
    vectors: NDArray[np.float64] = np.asarray(fit.stain_matrix, np.float64).T
    return vectors


def _row(name: str, fit: StainFit) -> dict[str, Any]:
    cosines = (np.array(fit.vectors) * reference_vectors()).sum(axis=1)[:2]
    degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return {
        _keys.SAMPLE: name,
        "haematoxylin": fit.strength[0],
        "eosin": fit.strength[1],
        "haematoxylin_degrees": float(degrees[0]),
        "eosin_degrees": float(degrees[1]),
    }
