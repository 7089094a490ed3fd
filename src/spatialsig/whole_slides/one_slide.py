"""One slide from its image file to its results: opened lazily, cut into patches as the model needs them, predicted, kept.

Floor 11, above report. Used by whole_slides/from_files.
"""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spatialdata import SpatialData

from spatialsig import _keys, io, pp, tl
from spatialsig._checks import check_key, warn
from spatialsig._files import clear_drafts
from spatialsig._paths import behind_links
from spatialsig.errors import AlignmentError, InputError, SpatialsigWarning
from spatialsig.geometry.mistakes import SAME_PX
from spatialsig.io.images.open_rgb import PLAIN_SUFFIXES, open_rgb
from spatialsig.models.ensemble import members_of
from spatialsig.pp._elements import MAX_UPSAMPLING
from spatialsig.slide.coordinates import full_resolution
from spatialsig.slide.slides import on_slide
from spatialsig.store.atomic import replaced_directory
from spatialsig.store.lock import writer_lock
from spatialsig.store.snapshot import read_store
from spatialsig.whole_slides.guard import MADE_BY, check_place, check_store, store_of
from spatialsig.whole_slides.kept import read_record
from spatialsig.whole_slides.listing import check_there, is_store
from spatialsig.whole_slides.record import as_options, describe_image, is_done
from spatialsig.whole_slides.results import write_results

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.whole_slides.listing import SlideImage

PREDICTED, SKIPPED, FAILED = "predicted", "skipped", "failed"
NO_STAIN = "none"
_RIGHT_SIZE = "give the right `um_per_px` (in a manifest it goes before what a file says)"


@dataclass(frozen=True)
class Options:
    """What decides the predictions of a slide beside model and image; see :func:`predict_files`."""

    stride_um: float | None
    min_tissue: float
    sensitivity: float
    qc: bool
    n_views: int
    precision: Literal["32", "bf16"]
    store: str | None  # folder of the stores; empty for that of the results, None for no stores


@dataclass(frozen=True)
class Work:
    """The same for all slides; can be sent to another process."""

    model: SignatureModel
    described: dict[str, Any]  # the model as plain values
    out: Path
    options: Options
    formats: tuple[str, ...]
    overwrite: bool
    device: str | None

    def __call__(self, image: SlideImage) -> dict[str, Any]:
        """Predict one slide unless the same results are there; what was done."""
        place = behind_links(self.out / image.sample)
        with on_slide(image.sample), writer_lock(place, "predict_files"):
            check_there([image])
            clear_drafts(place)
            options = as_options(image, self.options)
            made_from = {"model": self.described, "image": describe_image(image), "options": options}
            record = read_record(place)
            if not self.overwrite and is_done(place, record, made_from, self.formats):
                return {"outcome": SKIPPED, "n_patches": record["n_patches"], _keys.OOD: record.get(_keys.OOD)}
            check_place(place, record, image, made_from["image"], overwrite=self.overwrite)
            if store := store_of(image, self.options.store):
                check_store(store, made_from["image"], overwrite=self.overwrite)
            return {"outcome": PREDICTED, **self._predict(image, place, made_from)}

    def _predict(self, image: SlideImage, place: Path, made_from: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        with told() as remarks, replaced_directory(place) as draft:
            sdata = open_slide(image)
            check_size(sdata, image, self.model.um_per_px)
            sdata.attrs[_keys.NAMESPACE]["source"][MADE_BY] = made_from["image"]
            self._cut(sdata)
            tl.predict(
                sdata, self.model, n_views=self.options.n_views, precision=self.options.precision, device=self.device
            )
            store = self._store(sdata, image, draft)
            record = {**made_from, "store": store, "remarks": remarks}
            return write_results(draft, sdata, record, self.formats, started=started)

    def _cut(self, sdata: SpatialData) -> None:
        """Patches as the model needs them, on tissue, in the stain that it learned."""
        options, stain = self.options, members_of(self.model)[0].stain
        with _own_words(sdata):
            pp.find_tissue(sdata, sensitivity=options.sensitivity)
        pp.make_patches(
            sdata, patch_px=self.model.patch_px, um_per_px=self.model.um_per_px, stride_um=options.stride_um,
            min_tissue=options.min_tissue,
        )  # fmt: skip
        if options.qc:
            pp.qc_patches(sdata, model=self.model)
        if stain != NO_STAIN:
            pp.normalize_stain(sdata, method=stain)

    def _store(self, sdata: SpatialData, image: SlideImage, draft: Path) -> str:
        """Write the slide as a store, its image included, where one is asked for; its place as the record says it."""
        if self.options.store is None:
            return ""
        apart = store_of(image, self.options.store)
        io.write(sdata, apart or draft / f"{image.sample}.zarr", overwrite=True)
        return str(apart.absolute() if apart else f"{image.sample}.zarr")


def open_slide(image: SlideImage) -> SpatialData:
    """A slide in memory whose image stays in its file, or in the store that it is part of; of that nothing else is taken."""
    if not is_store(image.path):
        return io.read_he(image.path, um_per_px=_um_per_px(image), sample=image.sample, patient=image.patient)
    whole = read_store(image.path)
    check_key(whole.images, _keys.IMAGE, name="slides", where=f"the images of the store {str(image.path)!r}")
    own = whole.attrs.get(_keys.NAMESPACE, {})
    kept = {name: own[name] for name in ("um_per_global_px", _keys.FILE_UM_PER_PX) if name in own}
    kept |= {_keys.SAMPLE: image.sample, _keys.PATIENT: image.patient or own.get(_keys.PATIENT) or image.sample}
    source = {"reader": "predict_files", "store": str(image.path.resolve())}
    attrs = {_keys.NAMESPACE: {**kept, "source": source}}
    return SpatialData.init_from_elements({_keys.IMAGE: whole.images[_keys.IMAGE]}, attrs=attrs)


def check_size(sdata: SpatialData, image: SlideImage, wanted_um: float) -> None:
    """Refuse an image of which nobody says how large its px are, or whose px are larger than those that the model reads."""
    try:
        um = io.mpp(sdata)
    except AlignmentError as error:
        msg = (
            f"{str(image.path)!r} does not say how large the px of its H&E are: predict from the image file itself, for "
            "which `um_per_px` says it, or from a store that `sp.io` wrote."
        )
        raise InputError(msg) from error
    given = image.um_per_px or image.otherwise_um_per_px
    if is_store(image.path) and given is not None:
        _say_other_size(image, (um,), given, "predict from the image file if the store is wrong")
    if um > wanted_um * MAX_UPSAMPLING:
        msg = (
            f"{str(image.path)!r} has px of {um:g} µm, and the model reads px of {wanted_um:g} µm: finer ones than there are. If {um:g} µm is right, "
            f"this model cannot read the scan: take a scan of higher magnification, or a model of patches of {um:g} µm/px or coarser. If it is wrong, {_RIGHT_SIZE}."
        )
        raise InputError(msg)


def _say_other_size(image: SlideImage, edges: Sequence[float], given: float, fix: str) -> None:
    """Warn with both numbers where a size that only stands in for missing ones is not what a file or store says."""
    if max(abs(given / edge - 1) for edge in edges) > SAME_PX:
        said = " x ".join(f"{edge:.4g}" for edge in dict.fromkeys(edges))
        msg = (
            f"{str(image.path)!r} says that its px are {said} µm, and not {given:.4g} µm as `um_per_px` does: {said} µm is "
            f"used; {fix}."
        )
        warn(msg)


@contextmanager
def _own_words(sdata: SpatialData) -> Iterator[None]:
    """Say where no tissue is found what may be given here against it; the size of px, above all, by which it is too small."""
    try:
        yield
    except InputError as error:
        what, um = str(error).partition(";")[0], io.mpp(sdata)
        sizes = full_resolution(sdata.images[_keys.IMAGE]).sizes
        msg = (
            f"{what}. With px of {um:g} µm the image is {sizes['x'] * um:.4g} x {sizes['y'] * um:.4g} µm: look at the image, raise "
            f"`sensitivity`, or {_RIGHT_SIZE}."
        )
        raise InputError(msg) from error


def _um_per_px(image: SlideImage) -> float | None:
    """Size of a px that goes before what the file says, where a manifest gives it; or that stands in where it says none that can be used."""
    if image.um_per_px is not None or image.otherwise_um_per_px is None:
        return image.um_per_px
    if image.path.suffix.lower() in PLAIN_SUFFIXES:  # which never say it, and would be decoded
        return image.otherwise_um_per_px
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)  # said when it is read
        file = open_rgb(image.path)
    file.close()
    if file.pixel_size is None or not file.pixel_size.is_square:
        return image.otherwise_um_per_px
    edges = (file.pixel_size.x_um, file.pixel_size.y_um)
    _say_other_size(
        image, edges, image.otherwise_um_per_px, "if the file is wrong, give the size in a manifest, column `um_per_px`"
    )
    return None


@contextmanager
def told() -> Iterator[list[str]]:
    """Texts of the warnings of this package inside the block, which are given all the same."""
    texts: list[str] = []
    shown = warnings.showwarning

    def keep(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, SpatialsigWarning):
            texts.append(str(message))
        shown(message, category, *where, **options)

    warnings.showwarning = keep
    try:
        yield texts
    finally:
        warnings.showwarning = shown
