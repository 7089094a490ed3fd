"""The patches of one slide with their scores, as the exports write them.

Floor 7, above evaluation. Used by 6 modules of io, whole_slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.slide.slides import Data, open_slides
from spatialsig.slide.table_rows import MAKE_AGAIN, dense, numbers, place_of_table, scores_of

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Slide

COLOURS = "viridis"  # of scores, where a file has colours
LAYERS = (_keys.STD, _keys.LOWER, _keys.UPPER, _keys.SEM)


@dataclass(frozen=True)
class ScoredPatches:
    """Patches of one slide that a table describes, row by row."""

    slide: Slide
    spec: PatchSpec
    ids: NDArray[np.int64]  # (n,)
    origins: NDArray[np.int64]  # (n, 2) y0, x0, level-0 px
    table: ad.AnnData
    table_key: str

    @property
    def um_per_step(self) -> float:
        """Micrometres from one patch to the next."""
        return self.spec.stride_l0 * self.spec.image_um_per_px

    @property
    def where(self) -> str:
        """The table, for messages."""
        return place_of_table(self.slide, self.table_key)

    def values(self, signature: str) -> NDArray[np.float64]:
        """One score of every patch, ``(n,)``, NaN where not measured."""
        names = list(self.table.var_names)
        check_key(names, signature, name="signature", where=f"table {self.table_key!r}")
        return dense(self.table.X[:, [names.index(signature)]]).astype(np.float64)[:, 0]

    def raster(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """One px per patch ``(h, w, ...)``, NaN where there is none, and the corner (y, x) of the first px, level-0 px.

        Where patches overlap, a px is the middle of its patch, so that the px lie side by side.
        """
        first = self.origins.min(axis=0)
        cell = np.rint((self.origins - first) / self.spec.stride_l0).astype(np.int64)
        raster = np.full((*(cell.max(axis=0) + 1).tolist(), *values.shape[1:]), np.nan, np.float32)
        raster[cell[:, 0], cell[:, 1]] = values
        return raster, first + (self.spec.size_l0 - self.spec.stride_l0) / 2

    def layers(self) -> dict[str, NDArray[Any]]:
        """Deviations, errors and bounds ``(n, n_signatures)`` of the scores; refused where they cannot be those."""
        layers = self.table.layers
        blocks = {
            name: dense(numbers(layers[name], where=f"{self.where}.layers[{name!r}]"))
            for name in LAYERS
            if name in layers
        }
        for name in {_keys.STD, _keys.SEM} & set(blocks):
            if (blocks[name] < 0).any():
                msg = f"{self.where}.layers[{name!r}] has {int((blocks[name] < 0).sum())} values below 0. {MAKE_AGAIN}"
                raise InputError(msg)
        if {_keys.LOWER, _keys.UPPER} <= set(blocks) and (crossed := blocks[_keys.LOWER] > blocks[_keys.UPPER]).any():
            msg = f"{self.where}: {int(crossed.sum())} values of layers[{_keys.LOWER!r}] lie above layers[{_keys.UPPER!r}]. {MAKE_AGAIN}"
            raise InputError(msg)
        return blocks


def one_slide(data: Data) -> Slide:
    """The slide that a file is to describe; several are refused."""
    slides = list(open_slides(data))
    if len(slides) != 1:
        msg = f"`data` holds {len(slides)} slides; a file describes one: export them one by one."
        raise InputError(msg)
    return slides[0]


def scored_patches(data: Data, table_key: str, patches_key: str) -> ScoredPatches:
    """Read them; the errors name the slide and the function that makes the table."""
    slide = one_slide(data)
    table = slide.table(table_key, fix="Call `sp.tl.predict` first.")
    scores_of(slide, table_key)
    patches = slide.patches(patches_key)
    rows = patches.rows_in(table_key)
    there = rows >= 0
    if not there.any():
        msg = (
            f"slide {slide.name!r}: table {table_key!r} describes other patches than `patches_key={patches_key!r}`; make "
            "it again."
        )
        raise InputError(msg)
    ids = np.asarray(patches.ids, np.int64)[there]
    return ScoredPatches(slide, patches.spec, ids, patches.origins[there], table[rows[there]], table_key)
