"""The patches of a slide, read once: sizes, places, folds, pixels, cells, and the rows of tables that describe them.

Floor 4, above train. Used by 21 modules of 11 rooms.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._hashing import array_hash, json_hash
from spatialsig.data.level_pixels import check_shown
from spatialsig.data.patches import PatchSource, image_levels
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.geometry.affine import apply
from spatialsig.slide.coordinates import image_to_um, placed, um_per_global
from spatialsig.slide.counts import LOST_ATTRS
from spatialsig.slide.folds import folds_of, inner_folds_of, is_training
from spatialsig.slide.parts import pixels_of, stain_of
from spatialsig.slide.records import PatchSpec
from spatialsig.slide.table_rows import PatchMatrix, aligned, matrix_of, rows_of_patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.slide.slides import Slide


class Patches:
    """The patches of one slide.

    Parameters
    ----------
    slide
        The slide.
    key
        Shapes element of the patches.

    Attributes
    ----------
    spec
        How they were cut.
    shapes
        The element itself, one square per row; that of now, also after another takes its place.

    Raises
    ------
    KeyMissingError
        If there is no such element, or nothing says how it was cut.
    """

    def __init__(self, slide: Slide, key: str) -> None:
        where = f"the shapes of slide {slide.name!r}"
        check_key(slide.sdata.shapes, key, name="patches_key", where=where, fix="Call `sp.pp.make_patches` first.")
        recorded = slide.attrs.get("patches", {})
        where = f"the patches that `sp.pp.make_patches` cut on slide {slide.name!r}"
        fix = f"Call `sp.pp.make_patches` again. {LOST_ATTRS}"
        check_key(recorded, key, name="patches_key", where=where, fix=fix)
        slide.lineage.check(key)
        self.slide, self.key = slide, key
        self.shapes: gpd.GeoDataFrame = slide.sdata.shapes[key]
        self.spec = PatchSpec(**recorded[key])
        self._rows: dict[str, tuple[ad.AnnData, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.shapes)

    @property
    def ids(self) -> pd.Index:
        """Ids of the patches, as tables refer to them."""
        index: pd.Index = self.shapes.index
        return index

    # places

    @cached_property
    def origins(self) -> NDArray[np.int64]:
        """Top-left corners ``(n_patches, 2)`` as y0, x0 in level-0 px."""
        return np.asarray(self.shapes[[_keys.Y0, _keys.X0]], np.int64)

    @cached_property
    def centres_px(self) -> NDArray[np.float64]:
        """Centres ``(n_patches, 2)`` as x, y in level-0 px."""
        return np.asarray(self.origins[:, ::-1] + self.spec.size_l0 / 2, np.float64)

    @cached_property
    def centres_um(self) -> NDArray[np.float64]:
        """Centres ``(n_patches, 2)`` as x, y in µm."""
        return apply(self._to_um, self.centres_px)

    @cached_property
    def extent_um(self) -> float:
        """Width of a patch along the axes of the cells, µm: on a rotated image it is more than its edge."""
        return float(self.spec.size_l0 * np.abs(self._to_um[:2, :2]).sum(axis=1).max())

    @cached_property
    def _to_um(self) -> NDArray[np.float64]:
        if self.spec.image_key in self.slide.sdata.images:
            return image_to_um(self.slide, self.spec.image_key)
        scale = um_per_global(
            self.slide
        )  # squares carry the transformations of their image, also where it is not there
        return np.diag([scale, scale, 1.0]) @ placed(self.slide, self.shapes, f"shapes {self.key!r}")

    # folds

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """Fold of every patch, ``(n_patches,)``; a patch that straddles two blocks is in the buffer."""
        return folds_of(self.slide, self.centres_um, extent_um=self.extent_um)

    def training(self, test_fold: int | None) -> NDArray[np.bool_]:
        """Patches a model may learn from: neither of the test fold nor in a buffer; all of them when it is None."""
        return is_training(self.slide, self.centres_um, test_fold=test_fold, extent_um=self.extent_um)

    def inner_folds(self, test_fold: int) -> NDArray[np.int64]:
        """Inner fold of every patch while ``test_fold`` is held out."""
        return inner_folds_of(self.slide, self.centres_um, test_fold=test_fold, extent_um=self.extent_um)

    # pixels and cells

    @property
    def pixel_parts(self) -> list[str]:
        """Parts of the slide that decide what the images of the patches look like."""
        return [self.key, pixels_of(self.spec.image_key), stain_of(self.key)]

    def source(self, rows: NDArray[np.int64] | None = None, *, as_scanned: bool = False) -> PatchSource:
        """Images of the patches (of ``rows`` only, where given), to be read on demand.

        With ``as_scanned`` their colours are those of the scan, also where ``pp.normalize_stain`` was called.
        """
        stain = None if as_scanned else self.spec.stain
        if stain is not None:
            self.slide.lineage.check(stain_of(self.key))
        return PatchSource(
            sample=self.slide.name,
            levels=image_levels(self.slide.sdata, self.spec.image_key),
            origins=self.origins if rows is None else self.origins[rows],
            size_l0=self.spec.size_l0,
            out_px=self.spec.patch_px,
            recolour=None if stain is None else np.array(stain["matrix"]),
        )

    def membership(self, table_key: str) -> sparse.csr_matrix:
        """Membership of the cells of a table in patches, CSR ``(n_cells, n_patches)`` of 0 and 1."""
        membership = self.slide.obsm(table_key, _keys.MEMBERSHIP, name="key", fix="Call `sp.pp.assign_cells` first.")
        assigned = self.slide.params(table_key).get("assign_cells", {}).get("patches_key", self.key)
        if assigned != self.key:
            msg = (
                f"slide {self.slide.name!r}: cells are assigned to the patches of {assigned!r}, not of {self.key!r}; call "
                f"`sp.pp.assign_cells(..., patches_key={self.key!r})` first."
            )
            raise InputError(msg)
        if membership.shape[1] != len(self):
            msg = (
                f"slide {self.slide.name!r}: cells are assigned to {membership.shape[1]} patches, but {self.key!r} holds "
                f"{len(self)}; call `sp.pp.assign_cells` again."
            )
            raise InputError(msg)
        return membership

    # tables about the patches

    def rows_in(self, table_key: str) -> NDArray[np.int64]:
        """Row of the table that describes each patch, ``(n_patches,)``; -1 where none does.

        Raises
        ------
        InputError
            If rows carry no patch id, ids repeat, or rows describe patches that are no longer there.
        """
        table = self.slide.table(table_key)
        if table_key not in self._rows or self._rows[table_key][0] is not table:
            self._rows[table_key] = table, rows_of_patches(self, table, table_key)
        return self._rows[table_key][1]

    def matrix(self, key: str, *, name: str, fix: str = "") -> PatchMatrix:
        """Numbers of table ``key`` (its ``X``, or with ``"table/entry"`` an entry of its ``obsm``) for every patch.

        ``name`` is the argument that named the table, ``fix`` what to do if it is not there, for the messages.
        """
        return matrix_of(self, key, name=name, fix=fix)

    def labels(self, signatures_key: str, *, name: str = "signatures_key") -> PatchMatrix:
        """Measured scores of every patch; :class:`InputError` for a table of predicted ones."""
        found = self.matrix(signatures_key, name=name, fix="Call `sp.tl.aggregate_patches` first.")
        if {"predict", "cross_validate"} & found.record.keys() and "aggregate_patches" not in found.record:
            msg = (
                f"`{name}={signatures_key!r}` of slide {self.slide.name!r} holds scores that a model predicted; wanted labels, "
                "as `sp.tl.aggregate_patches` makes them."
            )
            raise InputError(msg)
        return found

    def embedding(self, signatures_key: str, use_rep: str | None, *, fix: str = "") -> NDArray[np.float32] | None:
        """Embedding of every patch in the table of the labels, ``(n_patches, d)``; None when none is asked for."""
        if use_rep is None:
            return None
        self.slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
        return self.matrix(_keys.entry(signatures_key, use_rep), name="use_rep", fix=fix).values

    def column(self, table_key: str, column: str) -> NDArray[np.float64]:
        """Numeric column of a table for every patch, ``(n_patches,)``; NaN where there is none."""
        obs = self.slide.table(table_key).obs
        if column not in obs:
            return np.full(len(self), np.nan)
        return aligned(obs[[column]], self.rows_in(table_key), np.float64)[:, 0]

    def n_cells(self, signatures_key: str) -> NDArray[Any] | None:
        """Cells of every patch by the table of the labels; NaN without a row, None where there are no fresh labels of them."""
        if signatures_key not in self.slide.sdata.tables or any(self.slide.lineage.stale(signatures_key)):
            return None
        rows, counts = self.rows_in(signatures_key), np.asarray(self.slide.table(signatures_key).obs[_keys.N_CELLS])
        if (rows >= 0).all():
            return counts[rows]
        return np.where(rows >= 0, counts[rows], np.nan) if (rows >= 0).any() else None

    def table(self, values: NDArray[Any], names: Sequence[str], *, n_cells: NDArray[Any] | None) -> ad.AnnData:
        """Table with one row per patch that annotates them: ids, sample, patient, fold and positions filled in.

        ``n_cells`` is None on a slide without cells.
        """
        slide = self.slide
        obs = pd.DataFrame(
            {
                _keys.REGION_KEY: pd.Categorical([self.key] * len(self)),
                _keys.PATCH_ID: self.ids.to_numpy(),
                _keys.SAMPLE: pd.Categorical([slide.name] * len(self)),
                _keys.PATIENT: pd.Categorical([slide.patient] * len(self)),
                _keys.FOLD: self.folds,
            },
            index=[f"{slide.name}-{i}" for i in self.ids],
        )
        if n_cells is not None:
            obs[_keys.N_CELLS] = n_cells
        table = ad.AnnData(np.asarray(values, np.float32), obs=obs, var=pd.DataFrame(index=list(names)))
        table.obsm[_keys.SPATIAL] = self.centres_um
        return TableModel.parse(
            table, region=self.key, region_key=_keys.REGION_KEY, instance_key=_keys.PATCH_ID, overwrite_metadata=True
        )

    def rows_named(self, ids: Sequence[Any] | None) -> NDArray[np.int64]:
        """Rows of the patches with these ids, ascending; all of them when None."""
        if ids is None:
            return np.arange(len(self))
        rows = np.asarray(self.ids.get_indexer(pd.Index(ids)), np.int64)
        if not len(rows) or (rows < 0).any():
            unknown = [patch for patch, row in zip(ids, rows, strict=True) if row < 0]
            msg = (
                f"`patches`: {unknown or 'none given'}; slide {self.slide.name!r} has patches {self.ids.min()} to "
                f"{self.ids.max()} in {self.key!r}."
            )
            raise KeyMissingError(msg)
        return np.unique(rows)

    @property
    def content_hash(self) -> str:
        """Hash of where the patches lie, how they are read, and which fold they belong to."""
        slide = self.slide
        return json_hash(
            [array_hash(self.origins), asdict(self.spec), slide.name, slide.patient, slide.attrs.get("split")]
        )


def level_read(slide: Slide, image_key: str, *, size_l0: float, out_px: int) -> tuple[int, float]:
    """Level of the pyramid that patches of ``size_l0`` level-0 px are read from, and its pixels per pixel of the patch."""
    levels = image_levels(slide.sdata, image_key)
    source = PatchSource(slide.name, levels, np.empty((0, 2), np.int64), size_l0, out_px)
    index = next(i for i, level in enumerate(levels) if level is source.level)
    check_shown(levels, index, name=f"slide {slide.name!r}: image {image_key!r}")
    return index, size_l0 / max(source.level.downsample) / out_px
