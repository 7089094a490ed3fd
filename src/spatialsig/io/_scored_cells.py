"""The cells of one slide with their predicted scores, as exports write them.

Floor 7, above evaluation. Used by io/_explorer, io/_geojson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.io._scores import one_slide
from spatialsig.slide.coordinates import image_of, placed, um_to_image
from spatialsig.slide.slides import open_slides
from spatialsig.slide.table_rows import dense

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data, Slide

RADIUS_UM = 3.0  # of the circle drawn for cells whose element has no outlines
CORNERS = 4  # per quarter of a circle


@dataclass(frozen=True)
class ScoredCells:
    """Cells of one slide, row by row of a table of ``tl.predict_cells``."""

    slide: Slide
    table: ad.AnnData
    table_key: str
    region: str
    instance_key: str

    @property
    def where(self) -> str:
        """The table, for messages."""
        return f"slide {self.slide.name!r}: table {self.table_key!r}"

    @property
    def ids(self) -> NDArray[np.str_]:
        """Id of every cell, as text."""
        return np.asarray(self.table.obs[_keys.CELL_ID]).astype(str)

    def values(self, signature: str) -> NDArray[np.float64]:
        """One score of every cell, ``(n,)``, NaN where there is none."""
        names = list(self.table.var_names)
        check_key(names, signature, name="signature", where=f"table {self.table_key!r}")
        return dense(self.table.X[:, [names.index(signature)]]).astype(np.float64)[:, 0]

    def rings(self, image_key: str) -> Iterator[NDArray[np.float64]]:
        """Outline of every cell, closed, ``(k, 2)`` px of the H&E."""
        shapes = self.slide.sdata.shapes.get(self.region)
        if shapes is None or (set(shapes.geometry.geom_type.unique()) == {"Point"} and "radius" not in shapes):
            yield from self._circles(image_key)
            return
        image = placed(self.slide, image_of(self.slide, image_key), f"image {image_key!r}")
        matrix = np.linalg.inv(image) @ placed(self.slide, shapes, f"shapes {self.region!r}", similar=False)
        rows = shapes.index.get_indexer(self.table.obs[self.instance_key])
        if (rows < 0).any():
            msg = f"{self.where} describes {int((rows < 0).sum())} cells that are not in shapes {self.region!r}; call `sp.tl.predict_cells` again."
            raise InputError(msg)
        geometry = np.asarray(shapes.geometry)[rows]
        radius = shapes["radius"].to_numpy(np.float64)[rows] if "radius" in shapes else np.zeros(len(rows))
        for shape, own in zip(geometry, radius, strict=True):
            outline = shape.buffer(own, quad_segs=CORNERS) if shape.geom_type == "Point" else shape
            outline = max(shapely.get_parts(outline), key=shapely.area)  # of several pieces, the nucleus
            yield shapely.get_coordinates(outline.exterior) @ matrix[:2, :2].T + matrix[:2, 2]

    def _circles(self, image_key: str) -> Iterator[NDArray[np.float64]]:
        xy = np.asarray(self.table.obsm[_keys.SPATIAL], np.float64)
        turn = np.linspace(0, 2 * np.pi, 4 * CORNERS + 1)
        ring = RADIUS_UM * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        for middle in xy:
            yield um_to_image(self.slide, image_key, middle + ring)

    @property
    def image_key(self) -> str:
        """H&E that the cells were predicted on."""
        return str(self.slide.params(self.table_key)["predict_cells"].get("image_key", _keys.IMAGE))


def is_of_cells(data: Data, table_key: str) -> bool:
    """Whether a table is one of ``tl.predict_cells``, on the first slide of ``data``."""
    slide = next(open_slides(data), None)
    return slide is not None and table_key in slide.sdata.tables and "predict_cells" in slide.params(table_key)


def scored_cells(data: Data, table_key: str) -> ScoredCells:
    """Read them; the errors name the slide and the function that makes the table."""
    slide = one_slide(data)
    table = slide.table(table_key, fix="Call `sp.tl.predict_cells` first.")
    slide.step(table_key, "predict_cells", fix="Wanted a table of `sp.tl.predict_cells`.")
    said = table.uns[TableModel.ATTRS_KEY]
    return ScoredCells(slide, table, table_key, str(said[TableModel.REGION_KEY]), str(said[TableModel.INSTANCE_KEY]))
