"""A slide made of an H&E alone, on which no cells were measured; the size of the pixels of any image.

Floor 7, above evaluation. Called as sp.io.mpp, sp.io.read_he; used by 3 modules of cli, cohort, whole_slides.
"""

from __future__ import annotations

from pathlib import Path

from spatialdata import SpatialData
from spatialdata.transformations import Identity

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, NewKey, UmPerPx, checked
from spatialsig.errors import InputError
from spatialsig.io._elements import assemble, slide_attrs
from spatialsig.io.images.metadata import choose_um_per_px
from spatialsig.io.images.open_rgb import image_name, open_rgb
from spatialsig.slide.coordinates import image_um_per_px
from spatialsig.slide.slides import Data, open_slides, slide_count
from spatialsig.store.commit import check_target


@checked
def read_he(
    path: AnyPath,
    *,
    um_per_px: UmPerPx | None = None,
    sample: Key | None = None,
    patient: Key | None = None,
    image_key: NewKey = _keys.IMAGE,
    out: AnyPath | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Read an H&E image into a slide without cells, for prediction.

    Parameters
    ----------
    path
        RGB image: TIFF, OME-TIFF [1]_, SVS or NDPI (read tile by tile or strip by strip), MRXS and other scanner
        formats through openslide [2]_ (``pip install 'spatialsig[wsi]'``), an OME-Zarr directory [3]_, PNG or JPEG
        (decoded at once).
    um_per_px
        Micrometres per full-resolution px; by default as the file says (OME metadata, scanner, TIFF resolution).
    sample, patient
        Names of the slide and of its patient; by default the file's name, and the sample's.
    image_key
        Name of the image.
    out, overwrite
        Stream the image into a new store there (replacing one); otherwise it stays lazy in the file.

    Returns
    -------
    Object with ``images[image_key]``, ``(c, y, x)`` uint8 RGB, multi-scale, whose px are the unit of ``global``, and
    ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``.

    Raises
    ------
    FileMissingError
        If there is no such file.
    InputError
        If the format is not known or needs openslide, the image is damaged or cannot become 8-bit RGB for sure, or
        its pixel size is neither given nor in the file, or is not the same for x and y.
    StoreError
        If ``out`` exists and ``overwrite`` is False.

    References
    ----------
    .. [1] OME-TIFF specification. https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
    .. [2] Goode A, Gilbert B, Harkes J, Jukic D, Satyanarayanan M. OpenSlide: a vendor-neutral software foundation for
       digital pathology. Journal of Pathology Informatics 4, 27 (2013). https://doi.org/10.4103/2153-3539.119005
    .. [3] Moore J, Allan C, Besson S, et al. OME-NGFF: a next-generation file format for expanding bioimaging
       data-access strategies. Nature Methods 18, 1496-1498 (2021). https://doi.org/10.1038/s41592-021-01326-w

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> folder = TemporaryDirectory()
    >>> Image.fromarray(np.full((64, 96, 3), 200, np.uint8)).save(f"{folder.name}/biopsy.png")
    >>> sdata = sp.io.read_he(f"{folder.name}/biopsy.png", um_per_px=0.5)
    >>> sdata["he_image"]["scale0"]["image"].shape
    (3, 64, 96)
    >>> sdata.attrs["spatialsig"]["sample"]
    'biopsy'
    >>> folder.cleanup()
    """
    path = Path(path)
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    file = open_rgb(path)
    try:
        um = choose_um_per_px(path, um_per_px=um_per_px, in_file=file.pixel_size, why_none=file.why_no_size)
    except InputError:
        file.close()
        raise
    sample = image_name(path) if sample is None else sample
    attrs = slide_attrs(
        sample=sample,
        patient=patient,
        um_per_global_px=um,
        source={"reader": "read_he", "he_image": str(path.resolve())},
    )
    to_global = {_keys.GLOBAL: Identity()}
    return assemble({}, file, to_global, attrs=attrs, image_key=image_key, out=out, overwrite=overwrite)


@checked
def mpp(data: Data, *, image_key: str = _keys.IMAGE) -> float:
    """Compute the micrometres per full-resolution px of an image.

    Parameters
    ----------
    data
        One slide: an object, from any reader, or the path of its store.
    image_key
        Name of the image.

    Returns
    -------
    Edge of a px of the finest level, um: the scale of the image's transformation to ``global``, times the um per unit
    of ``global`` that ``attrs["spatialsig"]`` holds, or else that the shapes' transformation from um implies.

    Raises
    ------
    KeyMissingError
        If there is no such image.
    AlignmentError
        If the image has no transformation to ``global``, or nothing says how long its unit is.
    InputError
        If ``data`` holds more than one slide.

    Examples
    --------
    >>> import spatialsig as sp
    >>> round(sp.io.mpp(sp.datasets.toy(he_um_per_px=0.5, size_um=100)), 6)
    0.5
    """
    n_slides = slide_count(data)
    if n_slides != 1:
        msg = f"`data` holds {n_slides} slides; wanted one: call mpp with the path of each store."
        raise InputError(msg)
    return image_um_per_px(next(iter(open_slides(data))), image_key)
