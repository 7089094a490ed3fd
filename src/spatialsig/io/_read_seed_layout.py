"""A slide made of the files of the prototype: patches, labels, embeddings and pictures.

Floor 7, above evaluation. Called as sp.io.read_seed_layout; used by cli/seed_files.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import Identity

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, NewKey, UmPerPx, checked
from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.geometry.grid import smallest_step
from spatialsig.io._elements import assemble, slide_attrs
from spatialsig.io._seed_files import (
    EMBEDDINGS,
    LABELS,
    PATCHES,
    PICTURE,
    VECTOR,
    Mosaic,
    SeedLabels,
    picture_px,
    places_of,
    read_labels,
    read_vectors,
    there,
)
from spatialsig.io.images.rgb import RgbFile, RgbPixels
from spatialsig.slide.patches import level_read
from spatialsig.slide.records import PatchSpec
from spatialsig.slide.slides import Slide
from spatialsig.slide.squares import patch_squares
from spatialsig.store.commit import check_target, create_store

if TYPE_CHECKING:
    from collections.abc import Sequence


@checked
def read_seed_layout(
    directory: AnyPath,
    *,
    um_per_px: UmPerPx,
    sample: Key | None = None,
    patient: Key | None = None,
    labels: Key = LABELS,
    images: bool = True,
    use_rep: NewKey | None = _keys.X_AE,
    image_key: NewKey = _keys.IMAGE,
    patches_key: NewKey = _keys.PATCHES,
    signatures_key: NewKey = _keys.SIGNATURES,
    out: AnyPath | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Read a slide from files in the layout of the prototype, as :func:`export_seed_layout` or the prototype itself wrote them.

    Read is what is there: the labels always; embeddings and pictures of the patches where the table names their files. The autoencoder
    beside them is read by :func:`spatialsig.models.import_seed_autoencoder`.

    Parameters
    ----------
    directory
        Folder with the table of labels.
    um_per_px
        Micrometres per level-0 px of the slide, in which ``y0``, ``x0`` and ``size_l0`` are; the files do not say it.
    sample
        Slide to read, as the column ``slide`` names it. None takes the only one.
    patient
        Patient of the slide; by default the sample's name.
    labels
        Name of the table in the folder: a csv with ``slide``, ``y0``, ``x0``, ``size_l0``, optionally ``n_cells``, ``png_path``,
        ``ae_path``, and one column per signature, empty where not measured. Paths are relative to it; a file that is not there is looked
        for by its name in ``patches``, in ``embeddings`` and beside the table.
    images
        Put the slide together of the pictures of its patches; False reads none.
    use_rep
        Name of the embedding; None reads none.
    image_key, patches_key, signatures_key
        Names of the elements.
    out, overwrite
        Write a new store there (replacing one); otherwise the object stays in memory, its image in the pictures.

    Returns
    -------
    Object whose ``global`` is level-0 px, with

    - ``shapes[patches_key]``: the patches, in the order of the table, indexed from 0, with ``y0``, ``x0``, ``row``, ``col`` as
      :func:`spatialsig.pp.make_patches` has them; ``tissue_fraction`` is not known (NaN);
    - ``tables[signatures_key]``: the labels, NaN where not measured, ``obs["n_cells"]`` where the table has it, and
      ``obsm[use_rep]`` float32, NaN rows where a patch has no file;
    - ``images[image_key]``: ``(c, y, x)`` uint8, white between the patches; none where there are no pictures. Pictures of fewer px than a
      patch has level-0 px are enlarged; what is read of a patch is its picture again;
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``, ``patches``.

    Cells and counts are not in these files: there is no table of cells, and what needs one refuses the slide.

    Raises
    ------
    FileMissingError
        If the table, or files that it names, are missing; all are named.
    KeyMissingError
        If ``sample`` is not in the table.
    InputError
        If the table has no such columns or holds several slides and ``sample`` is None; if a place, a size, a score, an embedding or a
        picture cannot be used: the message names file and line.
    StoreError
        If ``out`` exists and ``overwrite`` is False.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> with TemporaryDirectory() as folder:
    ...     labels = sp.io.export_seed_layout(sdata, folder, use_rep=None)
    ...     back = sp.io.read_seed_layout(folder, um_per_px=sp.io.mpp(sdata))
    >>> back["signatures"].shape == (len(labels), sdata["signatures"].n_vars)
    True
    """
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    found = _of_slide(read_labels(Path(directory) / labels), sample)
    origins, size_l0 = places_of(found)
    pictures = _files(found, PICTURE, PATCHES, "pass `images=False`") if images else []
    vectors = _files(found, VECTOR, EMBEDDINGS, "pass `use_rep=None`") if use_rep is not None else []
    given = [path for path in pictures if path is not None]
    patch_px = picture_px(given, size_l0) if given else size_l0
    slide = Slide(_object(found, Mosaic(pictures, origins, size_l0) if given else None, um_per_px, patient, image_key))
    spec = PatchSpec(
        image_key=image_key, patch_px=patch_px, um_per_px=size_l0 * um_per_px / patch_px, size_l0=size_l0,
        stride_l0=smallest_step(origins, size_l0), image_um_per_px=um_per_px, min_tissue=0.0, made_by="read_seed_layout",
    )  # fmt: skip
    if given:
        level, resample = level_read(slide, image_key, size_l0=size_l0, out_px=patch_px)
        spec = PatchSpec(**asdict(spec) | {"level": level, "resample": resample})
    unknown = np.full(len(origins), np.nan)
    slide.sdata.shapes[patches_key] = patch_squares(origins, spec, unknown, {_keys.GLOBAL: Identity()})
    slide.attrs["patches"] = {patches_key: asdict(spec)}
    _add_labels(slide, found, vectors, use_rep, patches_key, signatures_key)
    if out is None:
        return slide.sdata
    create_store(Path(out), slide.sdata, overwrite=overwrite)
    return read_zarr(Path(out))


def _of_slide(labels: SeedLabels, sample: str | None) -> SeedLabels:
    if sample is None and len(labels.slides) > 1:
        msg = f"{str(labels.file)!r} holds the slides {labels.slides}; wanted one: pass `sample=`, one of these, and read each."
        raise InputError(msg)
    name = labels.slides[0] if sample is None else sample
    check_key(labels.slides, name, name="sample", where=f"the column `slide` of {str(labels.file)!r}")
    return labels.of(name)


def _files(labels: SeedLabels, column: str, folder: str, fix: str) -> Sequence[Path | None]:
    """Files of the patches; none where the table names none."""
    paths = labels.paths(column, folder)
    return there(paths, what=f"files of `{column}` in {str(labels.file)!r}", fix=fix) if any(paths) else []


def _object(
    labels: SeedLabels, mosaic: Mosaic | None, um_per_px: float, patient: str | None, image_key: str
) -> SpatialData:
    """The slide with its picture, or without any element."""
    source = {"reader": "read_seed_layout", "labels": str(labels.file.resolve())}
    attrs = slide_attrs(sample=labels.slides[0], patient=patient, um_per_global_px=um_per_px, source=source)
    name = f"{labels.slides[0]}, of {labels.file.parent}"
    file = None if mosaic is None else RgbFile([RgbPixels(mosaic, axes="YXS", name=name)], None, [])
    to_global = {_keys.GLOBAL: Identity()}
    return assemble({}, file, to_global, attrs=attrs, image_key=image_key, out=None, overwrite=False)


def _add_labels(
    slide: Slide, labels: SeedLabels, vectors: Sequence[Path | None], use_rep: str | None, patches_key: str,
    signatures_key: str,
) -> None:  # fmt: skip
    scores = np.stack([labels.numbers(name) for name in labels.signatures], axis=1)
    has_cells = _keys.N_CELLS in next(iter(labels.rows.values()))
    n_cells = labels.numbers(_keys.N_CELLS, whole=True).astype(np.int64) if has_cells else None
    table = slide.patches(patches_key).table(scores, labels.signatures, n_cells=n_cells)
    if vectors and use_rep is not None:
        table.obsm[use_rep] = read_vectors(vectors)
    record: dict[str, Any] = {"labels": str(labels.file.resolve())}
    table.uns[_keys.NAMESPACE] = {"read_seed_layout": record}
    slide.sdata.tables[signatures_key] = table
    slide.changed()
