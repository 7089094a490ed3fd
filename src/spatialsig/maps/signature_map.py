"""Maps of the predicted scores below the size of a patch, as an image over the H&E.

Floor 8, above io, pl, pp, tl. Called as sp.tl.signature_map; used by maps/predict_cells.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, Micrometres, NewKey, checked
from spatialsig._checks import check_key
from spatialsig.inference.domain import DomainWatch, warn_of_slide
from spatialsig.inference.inputs import check_reads_images
from spatialsig.inference.local import check_places
from spatialsig.inference.provenance import why_absent
from spatialsig.inference.rasters import n_levels
from spatialsig.maps.dense import Dense
from spatialsig.maps.grid import Bins, lay_grid
from spatialsig.models.ensemble import SignatureModel, placed, weights_hash
from spatialsig.slide.added import check_added
from spatialsig.slide.each import map_slides
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

TOKEN, PATCH = "token", "patch"
BIN_PX = 8  # of the model, for "token": a nucleus at 0.5 µm/px is 10 to 20 px
STRIDES = {TOKEN: 2, PATCH: 4}  # patches over a place along each axis
COLOURS, PERCENTILES = "viridis", (2, 98)
PREDICTED, SKIPPED = "predicted", "skipped"


@checked
def signature_map(
    data: Data,
    model: SignatureModel,
    *,
    method: Literal["patch", "token"] = "patch",
    stride_um: Micrometres | None = None,
    bin_um: Micrometres | None = None,
    signatures: Annotated[ListLike[str], Field(min_length=1)] | None = None,
    min_tissue: Fraction = 0.25,
    tissue_key: Key | None = None,
    skip_done: bool = False,
    device: str | None = None,
    precision: Literal["32", "bf16"] = "32",
    image_key: Key = _keys.IMAGE,
    patches_key: Key = _keys.PATCHES,
    key_added: NewKey = _keys.SIGNATURE_MAP,
) -> pd.DataFrame:
    """Draw a map of every predicted score over the H&E, finer than the patches of the model.

    Patches of the model's size are laid over the tissue so that they overlap, and what they say of a place is averaged, with
    weights that fall from the middle of a patch to its rim. ``"patch"`` takes the score of each whole patch: a
    sharper picture than patches side by side, which still shows nothing smaller than a patch. ``"token"`` takes the score of a
    patch apart into those of its places, whose mean it is: the network averages local features over the patch, and a place
    has the score that its own features add (to first order, see the notes): finer, but not for every signature truer. Both
    read the H&E alone.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place. Slides need an H&E, nothing else; patches that the
        slide has are not touched.
    model
        Trained model, or an ensemble of them.
    method
        ``"patch"`` (default, for any network) or ``"token"``, which needs a network that averages tokens over the patch, as those
        of :func:`train_vit` do by default.
    stride_um
        Step between patches, µm, rounded to whole bins; None takes half a patch for ``"token"``, a quarter of one for
        ``"patch"``. The time grows with its inverse square.
    bin_um
        Edge of a px of the map, µm, rounded so that whole bins make a patch; None takes 8 px of the model for ``"token"``, and
        ``stride_um`` for ``"patch"``.
    signatures
        Which scores; all of the model when None.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1. A bin of the map is shown where half of it is tissue.
    tissue_key
        Shapes or labels that say where tissue is, as for :func:`spatialsig.pp.make_patches`.
    skip_done
        Leave slides alone whose map was made by the same weights with the same options and is not stale.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    precision
        ``"32"``, or ``"bf16"`` for products in bfloat16.
    image_key
        H&E image.
    patches_key
        Patches whose stain (:func:`spatialsig.pp.normalize_stain`) the map is read in; where the slide has none and the model
        wants a stain, it is fitted to the patches of the map.
    key_added
        Name of the new image element; one of that name is replaced.

    Returns
    -------
    One row per slide: ``sample``, ``outcome`` (``"predicted"`` or ``"skipped"``), ``n_patches``, ``bin_um``.

    Writes ``images[key_added]``, float32 ``(c, y, x)`` in several scales: one channel per signature, one px per bin, in the
    units of the scores the model learned, NaN outside tissue, with the transformations of the H&E. Also writes
    ``attrs["spatialsig"]["signature_map"][key_added]``: ``method``, ``bin_um``, ``stride_um``, ``unit``, ``legend`` (for each
    signature ``low`` and ``high``, the 2nd and 98th percentile, and ``colours``), ``ood`` (how far the slide lies from what the model
    learned from, as of :func:`predict`; of ``"token"`` by stain and sharpness alone), hash of the weights, options.

    Raises
    ------
    KeyMissingError
        If a signature, image or tissue does not exist.
    InputError
        If ``method="token"`` is asked of a network that gives no tokens, the model reads a table of features, sizes do not fit,
        the stain is not the one that the model learned in, or a slide holds no tissue.

    Warns
    -----
    SpatialsigWarning
        If a slide lies outside what the model learned from.

    Notes
    -----
    A place shows what its look adds to the score of its patch. Context counts too: the same nucleus has another value in
    another patch.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> sp.tl.signature_map(sdata, model)["outcome"].tolist()
    ['predicted']
    >>> list(sdata["signature_map"]["scale0"]["image"].coords["c"].values) == list(model.signatures)
    True
    """
    asked = _asked(
        model, method, stride_um, bin_um, signatures,
        keys={"tissue_key": tissue_key, "image_key": image_key, "patches_key": patches_key}, min_tissue=min_tissue,
        precision=precision,
    )  # fmt: skip
    work = partial(_draw, model=model, asked=asked, skip_done=skip_done, device=device, key_added=key_added)
    return pd.DataFrame(map_slides(data, work, "signature map"), columns=["sample", "outcome", "n_patches", "bin_um"])


@dataclass(frozen=True)
class _Asked:
    """What decides a map, the same for all slides."""

    method: str
    bins: Bins
    names: tuple[str, ...]
    columns: tuple[int, ...]
    min_tissue: float
    precision: str
    weights_sha256: str
    unit: str
    keys: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What a map must have been made by to be the same."""
        return {
            "method": self.method, "edges": self.bins.edges, "step": self.bins.step, "signatures": list(self.names),
            "min_tissue": self.min_tissue, "precision": self.precision, "weights_sha256": self.weights_sha256, **self.keys,
        }  # fmt: skip


def _asked(
    model: SignatureModel, method: str, stride_um: float | None, bin_um: float | None,
    signatures: ListLike[str] | None, *, keys: dict[str, Any], min_tissue: float, precision: str,
) -> _Asked:  # fmt: skip
    check_reads_images(model)
    if method == TOKEN:
        check_places(model, "method='token'")
    names = model.signatures if signatures is None else tuple(signatures)
    for name in names:
        fix = why_absent(name, model)
        check_key(model.signatures, name, name="signatures", where="the signatures of the model", fix=fix)
    patch_um = model.patch_px * model.um_per_px
    stride = patch_um / STRIDES[method] if stride_um is None else stride_um
    edge = (BIN_PX * model.um_per_px if method == TOKEN else stride) if bin_um is None else bin_um
    bins = Bins.of(patch_um, bin_um=min(edge, patch_um) if bin_um is None else edge, stride_um=stride)
    columns = tuple(model.signatures.index(name) for name in names)
    return _Asked(method, bins, names, columns, min_tissue, precision, weights_hash(model), unit_of(model), keys)


def unit_of(model: SignatureModel) -> str:
    """What one unit of the scores of a model is, in words."""
    method = model.run.get("inputs", {}).get("targets", {}).get("method")
    return f"{method} score" if method else "score, as in the labels of the model"


def usual_map(
    slide: Slide, model: SignatureModel, *, min_tissue: float, precision: Literal["32", "bf16"], device: str | None,
    image_key: str, patches_key: str, key_added: str,
) -> None:  # fmt: skip
    """Draw what :func:`signature_map` draws by default; whoever calls it warns of a slide that lies outside."""
    keys = {"tissue_key": None, "image_key": image_key, "patches_key": patches_key}
    asked = _asked(model, "patch", None, None, None, keys=keys, min_tissue=min_tissue, precision=precision)
    _draw(slide, model=model, asked=asked, skip_done=False, device=device, key_added=key_added, warns=False)


def _draw(
    slide: Slide, *, model: SignatureModel, asked: _Asked, skip_done: bool, device: str | None, key_added: str,
    warns: bool = True,
) -> tuple[str, str, int, float]:  # fmt: skip
    check_added(slide, key_added, made_by="tl.signature_map")
    before = slide.attrs.get("signature_map", {}).get(key_added, {})
    if skip_done and _is_done(slide, key_added, before, asked):
        return slide.name, SKIPPED, int(before["n_patches"]), float(before["bin_um"])
    with placed(model, device):
        grid = lay_grid(slide, model, asked.bins, min_tissue=asked.min_tissue, **asked.keys)
        watch = DomainWatch(model, len(grid.patches), n_views=1, with_expression=False)
        dense = Dense(grid, model, asked.columns, asked.method == TOKEN, asked.precision, watch)
        raster = dense.raster(asked.names)
    keep = grid.on_tissue(raster.origin, raster.shape)
    element = raster.element(slide, asked.keys["image_key"], keep=keep, levels=n_levels(raster.shape))
    made = asked.record() | {
        "bin_um": grid.bin_um, "stride_um": grid.bin_um * asked.bins.step, "n_patches": len(grid.patches), "unit": asked.unit,
        "legend": dict(zip(asked.names, map(_legend, raster.total), strict=True)),
    }  # fmt: skip
    if (found := watch.result()) is not None:
        made[_keys.OOD] = found.as_record()
        if warns:
            warn_of_slide(slide.name, found, model)
    slide.put(key_added, element, made_by="tl.signature_map", sources=grid.sources, attrs={"signature_map": made})
    return slide.name, PREDICTED, len(grid.patches), grid.bin_um


def _is_done(slide: Slide, key: str, before: dict[str, Any], asked: _Asked) -> bool:
    if key not in slide.sdata.images or any(slide.lineage.stale(key)) or slide.lineage.is_edited(key):
        return False
    return all(before.get(name) == value for name, value in asked.record().items())


def _legend(values: NDArray[np.float32]) -> dict[str, Any]:
    """Values at the ends of the colours of a channel."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, PERCENTILES).tolist() if known.size else (np.nan, np.nan)
    return {"low": low, "high": high, "colours": COLOURS}
