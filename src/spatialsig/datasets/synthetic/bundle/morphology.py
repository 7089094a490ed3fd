"""The morphology images of a run: DAPI alone, or with the three stains of the cell segmentation kit.

Floor 8, above io, pl, pp, tl. Used by 3 modules of datasets.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.datasets.synthetic.bundle.cells import fill_rings
from spatialsig.datasets.synthetic.image.paint import blur, paint_parts
from spatialsig.datasets.synthetic.image.tiff import Channel, write_morphology
from spatialsig.datasets.synthetic.tissue.nuclei import STROMAL

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.bundle.cells import Outlines
    from spatialsig.datasets.synthetic.bundle.layouts import Layout
    from spatialsig.datasets.synthetic.slide import SyntheticSlide

_DAPI_BACKGROUND = 12
# no noise and a few hundred grey levels: JPEG 2000 then takes half the time
_DAPI_BRIGHTNESS = 330.0
_DAPI_BLUR = np.array([0.0625, 0.25, 0.375, 0.25, 0.0625], dtype=np.float32)
# name in the OME-XML, name in the file name of layout 4, purpose
_STAINS = (
    ("DAPI", "dapi", "Nuclear"),
    ("ATP1A1/CD45/E-Cadherin", "atp1a1_cd45_e-cadherin", "Boundary"),
    ("18S", "18s", "Interior RNA"),
    ("AlphaSMA/Vimentin", "alphasma_vimentin", "Interior protein"),
)
N_STAINS = (1, len(_STAINS))
_BAND_PX = 1024
_BACKGROUND = 20
_WALL_UM = 0.8  # thickness of a stained membrane


def render_dapi(
    nuclei_px: NDArray[np.float64], density: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.uint16]:
    """Draw nuclei ``(n, n_vertices, 2)`` px, brighter where the chromatin is denser, ``shape`` uint16."""
    image = np.empty(shape, dtype=np.uint16)
    border = len(_DAPI_BLUR) // 2

    def paint_band(row0: int) -> None:
        out = image[row0 : row0 + _BAND_PX]
        band = np.zeros((len(out) + 2 * border, shape[1]), dtype=np.float32)
        fill_rings(band, row0 - border, nuclei_px, _DAPI_BRIGHTNESS * density)
        blur(band, _DAPI_BLUR)
        out[:] = band[border : border + len(out)].astype(np.uint16) + _DAPI_BACKGROUND

    paint_parts(paint_band, range(0, shape[0], _BAND_PX))
    return image


def _shrunk(rings_um: NDArray[np.float64], by_um: float) -> NDArray[np.float64]:
    """Rings drawn towards the mean of their vertices by a length, never beyond it."""
    centre = rings_um.mean(axis=1, keepdims=True)
    spokes = rings_um - centre
    length = np.linalg.norm(spokes, axis=-1, keepdims=True)
    shrunk: NDArray[np.float64] = centre + spokes * (1 - by_um / np.maximum(length, 1e-6)).clip(0.0)
    return shrunk


def _levels(slide: SyntheticSlide) -> dict[str, NDArray[np.float64]]:
    """Brightness of each cell in grey levels: membranes of non-stroma, RNA by the library, protein of stroma."""
    library = slide.counts.rates.sum(axis=1).astype(np.float64)
    stroma = STROMAL[slide.tissue.cell_type]
    return {
        "Boundary": np.where(stroma, 120.0, 700.0),
        "Interior RNA": 300.0 * np.sqrt(library / np.median(library)) if len(library) else library,
        "Interior protein": np.where(stroma, 650.0, 60.0),
    }


def _render(slide: SyntheticSlide, outlines: Outlines, purpose: str) -> NDArray[np.uint16]:
    """Fill every cell with its level; a membrane stain leaves the inside dark."""
    pixel_size = slide.recipe.pixel_size_um
    if purpose == "Nuclear":
        return render_dapi(outlines.nucleus / pixel_size, slide.nuclei.density, slide.frames.morphology_shape)
    layers = [(outlines.cell / pixel_size, _levels(slide)[purpose])]
    if purpose == "Boundary":
        layers.append((_shrunk(outlines.cell, _WALL_UM) / pixel_size, 0.1 * layers[0][1]))
    image = np.zeros(slide.frames.morphology_shape, dtype=np.uint16)

    def fill_band(row0: int) -> None:
        for rings, values in layers:
            fill_rings(image[row0 : row0 + _BAND_PX], row0, rings, values)

    paint_parts(fill_band, range(0, image.shape[0], _BAND_PX))
    image += _BACKGROUND
    return image


def morphology_paths(layout: Layout, stains: int) -> list[str]:
    """Files of the focused image, relative to the bundle, in the order of the channels."""
    if layout.morphology == "projections":
        return ["morphology_focus.ome.tif"]
    if layout.morphology == "numbered":
        names = [f"morphology_focus_{number:04d}" for number in range(stains)]
    else:
        names = [f"ch{number:04d}_{short}" for number, (_, short, _) in enumerate(_STAINS[:stains])]
    return [f"{layout.morphology_dir}/{name}.ome.tif" for name in names]


def write_morphology_images(
    bundle: Path, slide: SyntheticSlide, outlines: Outlines, layout: Layout, run_id: uuid.UUID
) -> None:
    """Write the images of a layout: two projections, or one file per stain that names all the others."""
    paths = [bundle / name for name in morphology_paths(layout, slide.recipe.stains)]
    channels = [
        Channel(name, purpose, path.name, uuid.uuid5(run_id, path.name))
        for (name, _, purpose), path in zip(_STAINS, paths, strict=False)
    ]
    paths[0].parent.mkdir(exist_ok=True)
    for number, (channel, path) in enumerate(zip(channels, paths, strict=True)):
        pixels = _render(slide, outlines, channel.purpose)
        write_morphology(path, pixels, channels, number, um_per_px=slide.recipe.pixel_size_um)
        if layout.morphology == "projections":
            # one layer of cells: the maximum over the depth is the focused image
            mip = bundle / "morphology_mip.ome.tif"
            own = [Channel(channel.name, channel.purpose, mip.name, uuid.uuid5(run_id, mip.name))]
            write_morphology(mip, pixels, own, 0, um_per_px=slide.recipe.pixel_size_um)
