"""A napari window with H&E, cells, tissue and patches of a slide, coloured by a signature.

Floor 7, above evaluation. Called as sp.pl.napari.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, checked
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import ACCENT, SCORE_MAP, SECOND
from spatialsig.pl.drawing.napari_layers import add_cells, add_map, coloured_cells, map_channel
from spatialsig.pl.drawing.slide_panels import robust_limits
from spatialsig.pl.drawing.values import shown_values
from spatialsig.slide.coordinates import image_of, placed
from spatialsig.slide.slides import Data, open_slides, slide_count
from spatialsig.store.lazy_tables import for_others

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

MAX_SQUARES = 20_000  # polygons napari draws without a wait; more patches are shown as one picture
LINES_PER_EDGE = 300  # an outline is this share of the element's extent, in its own units: thin on any slide
WINDOW_PX = (1500, 1000)
_INSTALL = "pip install 'spatialsig[viz]' and a Qt binding, e.g. pip install pyqt6"


@checked
def napari(
    data: Data,
    signature: Key | None = None,
    *,
    table_key: Key = _keys.SIGNATURES,
    patches_key: Key = _keys.PATCHES,
    image_key: Key = _keys.IMAGE,
    tissue_key: Key = _keys.TISSUE,
    cells_key: Key = _keys.CIRCLES,
    map_key: Key = _keys.SIGNATURE_MAP,
    cells_pred_key: Key = _keys.CELLS_PRED,
    alpha: Fraction = 0.6,
    run: bool = True,
) -> Any:
    """Open a slide in a napari window, with the panels of napari-spatialdata.

    Every layer is the element itself in ``global`` coordinates, so that the widgets of napari-spatialdata (colour by
    gene or by ``obs``, save annotations) work on it. Elements that the slide does not have are left out.

    Parameters
    ----------
    data
        SpatialData or path of a store (one slide); not modified.
    signature
        What colours the patches: a signature of ``tables[table_key]``, a numeric column of its ``obs``, or a numeric
        column of the patches. None draws outlines. Patches without a value stay transparent.
    table_key
        Table of scores: measured (default) or predicted.
    patches_key, image_key, tissue_key, cells_key
        Elements to show.
    map_key
        Map of :func:`spatialsig.tl.signature_map`: where the slide has it and it shows ``signature``, it lies over the H&E in
        the colours of its legend, and the patches are hidden below it.
    cells_pred_key
        Table of :func:`spatialsig.tl.predict_cells`: where the slide has it and it has ``signature``, its cells are coloured dots over
        the map or the patches, which are hidden below them; ``cells_key`` is then not shown.
    alpha
        Opacity of the coloured patches, and of the map, 0 to 1.
    run
        Start napari's event loop, which returns when the window closes; False (in a notebook after ``%gui qt``, in
        scripts that continue) returns at once.

    Returns
    -------
    The ``napari.Viewer``. Above 20,000 coloured patches these are one picture (a pixel per patch) instead of polygons.

    Raises
    ------
    InputError
        If ``data`` is more than one slide, napari is not installed, or there is no screen.
    KeyMissingError
        If the signature does not exist; the message lists what does.

    Examples
    --------
    >>> import spatialsig as sp
    >>> viewer = sp.pl.napari("S1.zarr", "Immune_T")  # doctest: +SKIP
    """
    if slide_count(data) != 1:
        msg = f"napari shows one slide; got {slide_count(data)}: pass one, such as `cohort['S1']`."
        raise InputError(msg)
    slide = next(open_slides(data))
    image_of(slide, image_key)
    has_patches = patches_key in slide.sdata.shapes
    channel, cells = map_channel(slide, map_key, signature), coloured_cells(slide, cells_pred_key, signature)
    shown_otherwise = channel is not None or cells is not None
    if signature is not None and not shown_otherwise and not has_patches:
        slide.patches(patches_key)  # says how to make them
    coloured = signature is not None and (not shown_otherwise or _has_values(slide, signature, table_key, patches_key))
    values = shown_values(slide.patches(patches_key), str(signature), table_key) if coloured else None
    viewer, layers = _open(slide)
    layers.add_sdata_image(slide.sdata, image_key, _keys.GLOBAL, multi=False)
    if cells_key in slide.sdata.shapes and cells is None:  # as coloured dots they come last
        layers.add_sdata_circles(slide.sdata, cells_key, _keys.GLOBAL, multi=False)
        viewer.layers[cells_key].visible = False  # a hundred thousand dots would hide the tissue
    if tissue_key in slide.sdata.shapes:
        layers.add_sdata_shapes(slide.sdata, tissue_key, _keys.GLOBAL, multi=False)
        _outline(viewer.layers[tissue_key], SECOND)
    if has_patches:
        _add_patches(viewer, layers, slide, patches_key, values, signature, alpha)
    if channel is not None:
        _hide_last(viewer, has_patches)
        add_map(viewer, slide, map_key, str(signature), channel, alpha)
    if cells is not None:
        _hide_last(viewer, has_patches or channel is not None)
        add_cells(viewer, slide, cells, cells_pred_key, str(signature))
    _fit(viewer)
    if run:
        import napari as package

        package.run()
    return viewer


def _hide_last(viewer: Any, is_covered: bool) -> None:  # noqa: FBT001
    """Hide the layer added last where the next one shows the same more finely."""
    if is_covered:
        viewer.layers[-1].visible = False


def _has_values(slide: Slide, signature: str, table_key: str, patches_key: str) -> bool:
    """Whether the patches have values of that name, beside the map that shows them."""
    tables = slide.sdata.tables
    return patches_key in slide.sdata.shapes and table_key in tables and signature in tables[table_key].var_names


def _open(slide: Slide) -> tuple[Any, Any]:
    """A viewer with the widgets of napari-spatialdata, and what adds layers to it."""
    try:
        import napari as package
        from napari_spatialdata import Interactive
    except ImportError as error:
        msg = f"`sp.pl.napari` needs napari and napari-spatialdata ({error}): {_INSTALL}."
        raise InputError(msg) from error
    _check_display()
    viewer = package.Viewer(title=f"spatialsig: {slide.name}")
    # Interactive takes the current viewer
    widgets = Interactive(for_others(slide.sdata), headless=True)._sdata_widget
    return viewer, widgets.viewer_model


def _check_display() -> None:
    """Refuse to open a window where there is no screen: Qt would end the process."""
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in named):
        msg = (
            "`sp.pl.napari` opens a window, and there is no screen here (`DISPLAY` is not set): use it on a desktop, over `ssh -X`, or "
            "under `xvfb-run`; `sp.pl.compare` and `sp.pl.patches` draw without a screen."
        )
        raise InputError(msg)


def _fit(viewer: Any) -> None:
    """Show the whole slide; the window has its final size only after its first events."""
    from qtpy.QtWidgets import QApplication

    viewer.window.resize(*WINDOW_PX)
    QApplication.processEvents()
    viewer.reset_view()


def _add_patches(
    viewer: Any, layers: Any, slide: Slide, patches_key: str, values: NDArray[np.float64] | None, signature: str | None,
    alpha: float,
) -> None:  # fmt: skip
    if values is not None and len(values) > MAX_SQUARES:
        _add_raster(viewer, slide, patches_key, values, f"{patches_key}: {signature}", alpha)
        return
    layers.add_sdata_shapes(slide.sdata, patches_key, _keys.GLOBAL, multi=False)
    layer = viewer.layers[patches_key]
    _outline(layer, ACCENT)
    if values is not None:
        order = slide.sdata.shapes[patches_key].index.get_indexer(layer.metadata["indices"])
        layer.features = {str(signature): values[order]}
        layer.face_color = colours(values[order])
        layer.edge_width = 0
        layer.opacity = alpha  # of the layer, so that its slider starts there


def _outline(layer: Any, colour: str) -> None:
    layer.edge_color = colour
    layer.face_color = "transparent"
    layer.opacity = 1.0
    low, high = np.min([d.min(axis=0) for d in layer.data], axis=0), np.max([d.max(axis=0) for d in layer.data], axis=0)
    layer.edge_width = float((high - low).max()) / LINES_PER_EDGE


def _add_raster(
    viewer: Any, slide: Slide, patches_key: str, values: NDArray[np.float64], name: str, alpha: float
) -> None:
    patches = slide.patches(patches_key)
    spec = patches.spec
    picture, to_image = raster(patches.origins, values, size=spec.size_l0, stride=spec.stride_l0)
    to_global = placed(slide, patches.shapes, f"shapes {patches_key!r}") @ to_image
    swap = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])  # napari counts (y, x)
    viewer.add_image(
        colours(picture.ravel()).reshape(*picture.shape, 4), rgb=True, name=name, affine=swap @ to_global @ swap,
        opacity=alpha, interpolation2d="nearest",
    )  # fmt: skip


def colours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGBA ``(n, 4)`` between 0 and 1 over the middle 96 % of the values; transparent where there is none."""
    from matplotlib import colormaps

    rgba: NDArray[np.float64] = colormaps[SCORE_MAP](robust_limits([values])(np.nan_to_num(values)))
    rgba[:, 3] = np.isfinite(values)
    return rgba


def raster(
    origins: NDArray[np.int64], values: NDArray[np.float64], *, size: int, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values ``(n,)`` of patches with corners ``(n, 2)`` (y0, x0, level-0 px) as a picture with one pixel per patch.

    A pixel is always one ``stride`` wide, so that patches with gaps between them leave no holes. Returns ``(rows, cols)``,
    NaN where no patch lies, and ``(3, 3)``: centres of its pixels (x, y, 1), counted from 0, to level-0 px.

    >>> picture, to_image = raster(np.array([[0, 0], [0, 10], [20, 0]]), np.array([1.0, 2, 3]), size=10, stride=10)
    >>> picture.tolist()
    [[1.0, 2.0], [nan, nan], [3.0, nan]]
    >>> (to_image @ [1, 0, 1])[:2].tolist()
    [15.0, 5.0]
    """
    first = origins.min(axis=0)
    cells = np.rint((origins - first) / stride).astype(np.int64)
    picture = np.full(tuple(cells.max(axis=0) + 1), np.nan)
    picture[tuple(cells.T)] = values
    y, x = first + size / 2
    to_image = np.array([[stride, 0.0, x], [0, stride, y], [0, 0, 1]])
    return picture, to_image
