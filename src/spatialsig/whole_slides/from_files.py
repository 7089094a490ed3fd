"""Predictions for slides that are only an H&E, from their image files.

Floor 11, above report. Called as sp.tl.predict_files; used by cli/predict_command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Fraction, Micrometres, Positive, UmPerPx, checked
from spatialsig._checks import warn
from spatialsig._files import writing
from spatialsig._settings import is_device_name
from spatialsig._workers import Outcome, attempt_each
from spatialsig.errors import InputError
from spatialsig.inference.provenance import backbone_of
from spatialsig.models.ensemble import SignatureModel, load_signature_model, placed
from spatialsig.nn.backbones import table_key
from spatialsig.nn.device import choose_device
from spatialsig.slide.each import raise_failures, told_once
from spatialsig.whole_slides.guard import check_targets
from spatialsig.whole_slides.listing import check_there, list_images
from spatialsig.whole_slides.one_slide import FAILED, Options, Work
from spatialsig.whole_slides.page import Failure, write_page
from spatialsig.whole_slides.record import describe_model

if TYPE_CHECKING:
    from spatialsig.whole_slides.listing import SlideImage

Format: TypeAlias = Literal["h5ad", "csv", "geojson", "heatmap", "html", "atlas"]
FORMATS: tuple[Format, ...] = tuple(
    name for name in get_args(Format) if name != "atlas"
)  # which reads the image once more
MAX_OVER = 16  # strides to the edge of a patch: 256 patches then lie over each place
COLUMNS = (_keys.SAMPLE, "image", "outcome", "n_patches", _keys.OOD, "seconds", "error")


@checked
def predict_files(
    model: SignatureModel | AnyPath,
    slides: AnyPath | Sequence[AnyPath] | pd.DataFrame,
    out: AnyPath,
    *,
    um_per_px: UmPerPx | None = None,
    stride_um: Micrometres | None = None,
    min_tissue: Fraction = 0.25,
    sensitivity: Positive = 1.0,
    qc: bool = False,
    n_views: Count = 1,
    formats: Sequence[Format] = FORMATS,
    store: bool | AnyPath = False,
    overwrite: bool = False,
    on_error: Literal["raise", "collect"] = "raise",
    device: str | None = None,
    precision: Literal["32", "bf16"] = "32",
) -> pd.DataFrame:
    """Predict the signature scores of slides that are only an H&E, straight from their image files.

    Each image stays in its file: tissue is found (:func:`spatialsig.pp.find_tissue`), patches are laid over it as the model
    needs them (:func:`spatialsig.pp.make_patches`), in the stain that it learned (:func:`spatialsig.pp.normalize_stain`), and
    predicted from the H&E alone (:func:`predict`), read piece by piece. Several slides at once: ``sp.settings.n_jobs``, or an
    active client of dask.

    Parameters
    ----------
    model
        Model or ensemble, or the directory that its ``save`` wrote.
    slides
        Image files in any format of :func:`spatialsig.io.read_he`, folders of them, patterns such as ``"scans/**/*.svs"``,
        stores of slides (of which only the H&E is read), or manifests: csv or frame with a column ``image`` and
        optionally ``sample``, ``um_per_px`` and ``patient``, paths relative to the csv. One, or several in a list.
    out
        Folder of the results. Slides that are done there by the same model, from the same image and with the same
        options are skipped; what changed is computed again.
    um_per_px
        Micrometres per full-resolution px where neither a manifest nor the file says it (what the file says is used, with a
        warning if that differs by more than 2 %); that of a manifest goes before the file's.
    stride_um
        Step between patches, µm; None lays them side by side. Below the edge of a patch they overlap: maps then show the
        mean of all patches that lie over a place.
    min_tissue, sensitivity
        As of :func:`spatialsig.pp.make_patches` and :func:`spatialsig.pp.find_tissue`.
    qc
        Measure the quality of every patch (:func:`spatialsig.pp.qc_patches`), which reads them once more. None is left out:
        ``obs["qc_pass"]`` says which pass.
    n_views
        Average over that many turned and mirrored views of each patch: 1, 2, 4 or 8.
    formats
        What is written of each slide: see below; all but ``"atlas"`` by default.
    store
        Also write each slide as a store, a copy of its image included: in its folder (True), or in a folder of stores.
    overwrite
        Compute slides again that are done, also where their folder holds the results of another image, or files that were
        changed by hand. What is not ours is never replaced.
    on_error
        What becomes of slides that fail, once all others are done: an error that names them, or (``"collect"``) a warning and
        their rows.
    device, precision
        As of :func:`predict`.

    Returns
    -------
    One row per slide: ``sample``, ``image``, ``outcome`` (``"predicted"``, ``"skipped"`` or ``"failed"``), ``n_patches``,
    ``ood`` (how far it lies from what the model learned from: above 1, outside), ``seconds``, ``error`` (empty where there was none).

    Writes ``out/index.html`` (H&E and maps of all slides in ``out``, self-contained; with ``"html"``), ``out/slides.csv`` and a
    folder ``out/<sample>`` per slide, whole or not at all:

    - ``"h5ad"``: ``<sample>.h5ad``, one row per patch: ``X`` scores; ``layers`` as of :func:`predict`, and ``"blended"``, the
      means that maps show, where patches overlap; ``obs`` with centre ``x_um``, ``y_um``, corner ``x0_px``, ``y0_px`` and edge
      ``size_px`` in full-resolution px, ``row``, ``col``, ``tissue_fraction``, and what ``qc`` found; ``obsm["spatial"]`` in
      µm; ``uns["spatialsig"]`` with model, image and options;
    - ``"csv"``: the same as a table;
    - ``"geojson"``: squares with scores for QuPath (:func:`spatialsig.io.export_geojson`);
    - ``"heatmap"``: ``heatmaps/<signature>.ome.tif`` (:func:`spatialsig.io.export_heatmap`);
    - ``"html"``: what ``index.html`` shows of the slide;
    - ``"atlas"``: ``atlas.html``, which zooms into the H&E with the scores over it (:func:`spatialsig.pl.atlas`);
    - ``record.json``: what it was made from.

    Raises
    ------
    FileMissingError
        If there is no model, or what ``slides`` names is not there.
    InputError
        If a manifest cannot be used, names of slides are not unique, results would take the place of an image, the model
        needs features that are not in an image, or patches would lie closer than a sixteenth of their edge.
    StoreError
        If something else than results of this function would be replaced: files and folders of others, stores with cells.

    Warns
    -----
    SpatialsigWarning
        If slides failed under ``on_error="collect"``, or a file says another size of its px than ``um_per_px``.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> import spatialsig as sp
    >>> sp.settings.progress = False
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> folder = tempfile.TemporaryDirectory()
    >>> pixels = sdata["he_image"]["scale0"]["image"].transpose("y", "x", "c").to_numpy()
    >>> Image.fromarray(pixels).save(f"{folder.name}/biopsy.png")
    >>> done = sp.tl.predict_files(model, f"{folder.name}/biopsy.png", f"{folder.name}/results", um_per_px=1.0)
    >>> done["outcome"].tolist()
    ['predicted']
    >>> folder.cleanup()
    """
    loaded = load_signature_model(model) if isinstance(model, str | Path) else model
    _check_reads_images(loaded)
    _check_stride(loaded, stride_um)
    _try(loaded, n_views=n_views, precision=precision, device=device)
    place = Path(out)
    stores = ("" if store else None) if isinstance(store, bool) else str(store)
    results = [place, *([Path(stores)] if stores else [])]
    images = list_images(slides, um_per_px=um_per_px, results=results)
    if on_error == "raise":
        check_there(images)
    check_targets(images, place, stores)
    options = Options(stride_um, min_tissue, sensitivity, qc, n_views, precision, stores)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    work = Work(loaded, describe_model(loaded), place, options, tuple(formats), overwrite, device)
    items = {image.sample: image for image in images}
    outcomes = attempt_each(work, items, "slides", shared=place)
    done = pd.DataFrame([_row(items[outcome.name], outcome) for outcome in outcomes], columns=list(COLUMNS))
    done[_keys.OOD] = done[_keys.OOD].astype(float)
    failed = done[done["outcome"] == FAILED]
    failures = [Failure(*map(str, row)) for row in failed[[_keys.SAMPLE, "image", "error"]].itertuples(index=False)]
    write_page(place, dict(zip(done[_keys.SAMPLE], done["image"], strict=True)), failures)
    if on_error == "raise":
        raise_failures(outcomes)
    elif failures:
        listed = told_once({failure.sample: failure.error for failure in failures})
        warn(f"{len(failures)} of {len(done)} slides could not be predicted:\n{listed}")
    return done


def _row(image: SlideImage, outcome: Outcome[dict[str, Any]]) -> dict[str, Any]:
    error = "" if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}"
    found = outcome.value or {"outcome": FAILED, "n_patches": 0, _keys.OOD: None}
    named = {_keys.SAMPLE: image.sample, "image": str(image.path.resolve())}
    return named | found | {"seconds": outcome.seconds, "error": error}


def _check_reads_images(model: SignatureModel) -> None:
    key = table_key(backbone_of(model))
    if key is not None:
        msg = (
            f"the model reads the features of patches in table {key!r}, which an image file does not hold: import the slides, call "
            "`sp.tl.embed_patches` and `sp.tl.predict`, or train a model that holds its backbone."
        )
        raise InputError(msg)


def _check_stride(model: SignatureModel, stride_um: float | None) -> None:
    edge = model.patch_px * model.um_per_px
    if stride_um is not None and stride_um * MAX_OVER < edge:
        msg = (
            f"`stride_um={stride_um:g}` would lay {(edge / stride_um) ** 2:.3g} patches of {edge:g} µm over each other; wanted "
            f"{edge / MAX_OVER:g} µm or more, or None for patches side by side."
        )
        raise InputError(msg)


def _try(model: SignatureModel, *, n_views: int, precision: str, device: str | None) -> None:
    """Predict a blank patch, so that what the model refuses is said before slides are opened.

    Where it is to compute is only known where the work is done, which may be another machine.
    """
    if device is not None and not is_device_name(device):
        choose_device(device)  # which says what is wrong with the name
    blank = np.full((1, 3, model.patch_px, model.patch_px), 255, np.uint8)
    with placed(model, "cpu"):
        model.predict(blank, n_views=n_views, precision=precision)
