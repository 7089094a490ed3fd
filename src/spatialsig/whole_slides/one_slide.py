"""One slide from its image file to its results: opened lazily, cut into patches as the model needs them, predicted, kept.

Floor 11, above report. Used by whole_slides/from_files.
"""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spatialdata import SpatialData

from spatialsig import _keys, io, pp, tl
from spatialsig._checks import check_key
from spatialsig._files import clear_drafts
from spatialsig.errors import SpatialsigWarning
from spatialsig.io.images.open_rgb import PLAIN_SUFFIXES, open_rgb
from spatialsig.models.ensemble import members_of
from spatialsig.slide.slides import on_slide
from spatialsig.store.atomic import replaced_directory
from spatialsig.store.lock import writer_lock
from spatialsig.store.snapshot import read_store
from spatialsig.whole_slides.listing import is_store
from spatialsig.whole_slides.record import as_options, check_place, describe_image, is_done, read_record
from spatialsig.whole_slides.results import write_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.whole_slides.listing import SlideImage

PREDICTED, SKIPPED, FAILED = "predicted", "skipped", "failed"
NO_STAIN = "none"


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
        place = self.out / image.sample
        with on_slide(image.sample), writer_lock(place, "predict_files"):
            clear_drafts(place)
            options = as_options(image, self.options)
            made_from = {"model": self.described, "image": describe_image(image), "options": options}
            record = read_record(place)
            if not self.overwrite:
                if is_done(place, record, made_from, self.formats):
                    return {"outcome": SKIPPED, "n_patches": record["n_patches"]}
                check_place(place, record, image, made_from["image"])
            return {"outcome": PREDICTED, "n_patches": self._predict(image, place, made_from)}

    def _predict(self, image: SlideImage, place: Path, made_from: dict[str, Any]) -> int:
        started = time.perf_counter()
        with told() as remarks, replaced_directory(place) as draft:
            sdata = open_slide(image)
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
        pp.find_tissue(sdata, sensitivity=options.sensitivity)
        pp.make_patches(
            sdata, patch_px=self.model.patch_px, um_per_px=self.model.um_per_px, stride_um=options.stride_um,
            min_tissue=options.min_tissue,
        )  # fmt: skip
        if options.qc:
            pp.qc_patches(sdata)
        if stain != NO_STAIN:
            pp.normalize_stain(sdata, method=stain)

    def _store(self, sdata: SpatialData, image: SlideImage, draft: Path) -> str:
        """Write the slide as a store, its image included, where one is asked for; its place as the record says it."""
        if self.options.store is None:
            return ""
        name = f"{image.sample}.zarr"
        place = Path(self.options.store) / name if self.options.store else draft / name
        io.write(sdata, place, overwrite=True)
        return str(place) if self.options.store else name


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


def _um_per_px(image: SlideImage) -> float | None:
    """Size of a px that goes before what the file says, where a manifest gives it; or that stands in where it says none."""
    if image.um_per_px is not None or image.otherwise_um_per_px is None:
        return image.um_per_px
    if image.path.suffix.lower() in PLAIN_SUFFIXES:  # which never say it, and would be decoded
        return image.otherwise_um_per_px
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)  # said when it is read
        file = open_rgb(image.path)
    file.close()
    return image.otherwise_um_per_px if file.pixel_size is None else None


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
