"""H&E of a whole slide drawn from its nuclei and tissue, tile by tile.

Floor 8, above io, pl, pp, tl. Used by datasets/_toy, datasets/_xenium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from spatialsig.datasets.synthetic.image import paint
from spatialsig.datasets.synthetic.image.draw_artefacts import draw_artefacts
from spatialsig.datasets.synthetic.image.noise import fibre_texture
from spatialsig.datasets.synthetic.image.paint import paint_parts
from spatialsig.datasets.synthetic.tissue.fields import FIELD_STEP_UM, Field, grid_points
from spatialsig.datasets.synthetic.tissue.nuclei import STROMAL, Nuclei
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.coordinates import Frames
    from spatialsig.datasets.synthetic.image.appearance import Stain
    from spatialsig.datasets.synthetic.slide import SyntheticSlide
    from spatialsig.datasets.synthetic.tissue.grow import Tissue

_TILE = 256


def _cell_array(nuclei: Nuclei, frames: Frames) -> NDArray[np.float32]:
    """Everything the kernels read of a cell, ``(n_cells, N_COLUMNS)``: centres in H&E px, lengths in um."""
    cells = np.empty((len(nuclei.centre_um), paint.N_COLUMNS), dtype=np.float32)
    amp2, phase2, amp3, phase3 = nuclei.lobes.T
    cells[:, [paint.X, paint.Y]] = apply(frames.um_to_he, nuclei.centre_um)
    cells[:, [paint.A, paint.B]] = nuclei.axes_um
    cells[:, [paint.COS, paint.SIN]] = nuclei.direction
    cells[:, [paint.AMP2, paint.COS2, paint.SIN2]] = np.stack([amp2, np.cos(phase2), np.sin(phase2)], axis=1)
    cells[:, [paint.AMP3, paint.COS3, paint.SIN3]] = np.stack([amp3, np.cos(phase3), np.sin(phase3)], axis=1)
    cells[:, [paint.REACH, paint.WIDTH]] = nuclei.cytoplasm_um
    cells[:, paint.DENSITY] = nuclei.density
    cells[:, paint.TEXTURE] = nuclei.texture
    cells[:, paint.EOSIN] = nuclei.eosin
    cells[:, paint.BASO] = nuclei.basophilia
    cells[:, paint.RIM] = nuclei.rim
    cells[:, paint.NUCLEOLUS] = nuclei.nucleolus
    cells[:, paint.SPINDLE] = STROMAL[nuclei.drawn_type]
    return cells


def _stroma(nuclei: Nuclei, frames: Frames) -> Field:
    """Share of spindle cells around every place, so that fibres lie where their makers lie."""
    n = grid_points(frames.extent_um, FIELD_STEP_UM)
    edges = (np.arange(n + 1) - 0.5) * FIELD_STEP_UM
    spindle = STROMAL[nuclei.drawn_type].astype(float)
    rows_columns = nuclei.centre_um[:, ::-1]
    share = [
        ndimage.gaussian_filter(np.histogramdd(rows_columns, (edges, edges), weights=weights)[0], 2.0)
        for weights in (spindle, np.ones_like(spindle))
    ]
    return Field((share[0] / (share[1] + 1e-3)).astype(np.float32), FIELD_STEP_UM)


def _members(
    cells: NDArray[np.float32], shape: tuple[int, int], border: int, um_per_px: float
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Cells that reach into each tile, by tile row and column, ascending so that drawing order never changes."""
    reach = 1.4 * cells[:, [paint.REACH, paint.A, paint.B]].max(axis=1) / um_per_px + border + 2
    n_rows, n_cols = -(-shape[0] // _TILE), -(-shape[1] // _TILE)
    first = np.floor((cells[:, [paint.Y, paint.X]] - reach[:, None]) / _TILE).astype(np.int64)
    last = np.floor((cells[:, [paint.Y, paint.X]] + reach[:, None]) / _TILE).astype(np.int64)
    first, last = first.clip(0), last.clip(max=(n_rows - 1, n_cols - 1))
    pairs = [
        np.stack([((first[:, 0] + down) * n_cols + first[:, 1] + right)[within], np.flatnonzero(within)], axis=1)
        for down in range(int((last - first)[:, 0].max(initial=0)) + 1)
        for right in range(int((last - first)[:, 1].max(initial=0)) + 1)
        for within in [(first[:, 0] + down <= last[:, 0]) & (first[:, 1] + right <= last[:, 1])]
    ]
    tile, cell = np.concatenate(pairs).T
    order = np.lexsort((cell, tile))
    starts = np.searchsorted(tile[order], np.arange(n_rows * n_cols + 1))
    return {divmod(t, n_cols): cell[order[starts[t] : starts[t + 1]]] for t in range(n_rows * n_cols)}


def _blur_weights(blur_px: float) -> NDArray[np.float32]:
    half = max(int(np.ceil(3 * blur_px)), 1)
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / blur_px) ** 2)
    kernel: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kernel


def _tile_painter(
    image: NDArray[np.uint8], nuclei: Nuclei, tissue: Tissue, frames: Frames, stain: Stain, seed: int
) -> tuple[Callable[[tuple[int, int]], None], list[tuple[int, int]]]:
    """Prepare everything tiles share; returns the function that paints one tile, and all tiles."""
    cells = _cell_array(nuclei, frames)
    weights = _blur_weights(stain.blur_um / frames.he_um_per_px)
    border = weights.size // 2
    members = _members(cells, frames.he_shape, border, frames.he_um_per_px)
    threads = fibre_texture(tissue.fibres, extent_um=frames.extent_um, seed=seed)
    stroma = _stroma(nuclei, frames)
    to_um = np.ascontiguousarray(frames.he_to_um)
    linear = np.ascontiguousarray(to_um[:2, :2])

    def paint_tile(tile: tuple[int, int]) -> None:
        view = image[tile[0] * _TILE : (tile[0] + 1) * _TILE, tile[1] * _TILE : (tile[1] + 1) * _TILE]
        row0, col0 = tile[0] * _TILE - border, tile[1] * _TILE - border
        shape = (view.shape[0] + 2 * border, view.shape[1] + 2 * border)
        blue, pink = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        near, second = np.full(shape, paint.FAR), np.full(shape, paint.FAR)
        owner = np.full(shape, -1, np.int32)
        paint.stamp_cells(blue, near, second, owner, row0, col0, members[tile], cells, linear, seed)
        has_tissue = paint.fill_tissue(
            blue, pink, near, second, owner, row0, col0, cells, to_um,
            tissue.outline.values, tissue.outline.step_um, threads.values, threads.step_um,
            stroma.values, stroma.step_um, seed,
        )  # fmt: skip
        if has_tissue:
            paint.blur(blue, weights)
            paint.blur(pink, weights)
        paint.develop(view, blue, pink, border, row0, col0, stain.vectors, stain.white, stain.noise, seed)

    return paint_tile, list(members)


def render_he(nuclei: Nuclei, tissue: Tissue, frames: Frames, stain: Stain, *, seed: int) -> NDArray[np.uint8]:
    """Draw the H&E of a slide, ``(height, width, 3)`` uint8; the same pixels whatever the number of threads."""
    image = np.empty((*frames.he_shape, 3), dtype=np.uint8)
    paint_tile, tiles = _tile_painter(image, nuclei, tissue, frames, stain, seed)
    paint_parts(paint_tile, tiles)
    return image


def paint_he(slide: SyntheticSlide) -> NDArray[np.uint8]:
    """The H&E of a slide with all its artefacts, ``(height, width, 3)`` uint8."""
    he = render_he(slide.nuclei, slide.tissue, slide.frames, slide.stain, seed=slide.pixel_seed)
    draw_artefacts(he, slide.artefacts, slide.frames, slide.stain, seed=slide.pixel_seed)
    return he
