"""The patches of one slide that a table of scores describes, for the files made of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.patches import PatchSpec
    from spatialsig.slide.slides import Data, Slide

COLOURS = "viridis"


@dataclass(frozen=True)
class ScoredPatches:
    """Patches of one slide that a table describes, row by row."""

    slide: Slide
    spec: PatchSpec
    ids: NDArray[np.int64]  # (n,)
    origins: NDArray[np.int64]  # (n, 2) y0, x0, level-0 px
    table: ad.AnnData

    def values(self, signature: str) -> NDArray[np.float64]:
        """One score of every patch, ``(n,)``, NaN where not measured."""
        return np.asarray(self.table[:, signature].X, np.float64).reshape(-1)


def scored_patches(data: Data, table_key: str, patches_key: str) -> ScoredPatches:
    """Read them; the errors name the slide and the function that makes the table."""
    slides = list(open_slides(data))
    if len(slides) != 1:
        msg = f"`data` holds {len(slides)} slides; a file describes one: export them one by one."
        raise InputError(msg)
    (slide,) = slides
    table = slide.table(table_key, fix="Call `sp.tl.predict` first.")
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
    return ScoredPatches(slide, patches.spec, ids, patches.origins[there], table[rows[there]])


def score_names(table: ad.AnnData, signatures: Sequence[str] | None, table_key: str) -> list[str]:
    """Signatures asked for, all of the table when None."""
    names = list(table.var_names) if signatures is None else list(signatures)
    for name in names:
        check_key(list(table.var_names), name, name="signature", where=f"table {table_key!r}")
    return names


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give another path to write to, which takes the place of ``path`` once it is whole."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
