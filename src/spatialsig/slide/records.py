"""What functions leave with a slide for others to read, in ``attrs["spatialsig"]`` and in ``uns["spatialsig"]`` of its tables.

Editors and other software can write there too, so the records of a slide are checked when it is opened.

Floor 4, above train. Used by 12 modules of inference, io, labels, pl, pp, slide, tl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from annotated_types import MaxLen
from pydantic import AfterValidator, BaseModel, Field

from spatialsig import _keys
from spatialsig._arguments import (
    Count,
    Fraction,
    Key,
    Natural,
    NotNegative,
    Positive,
    Seed,
    Several,
    UmPerPx,
    check_record,
)
from spatialsig.store.lazy_tables import LazyTables

if TYPE_CHECKING:
    import anndata as ad
    import spatialdata as sd

Params: TypeAlias = Mapping[str, Any]
# of cells by signatures -> what a scorer of this name keeps beside the weights
SCORERS = {
    "zscore": ("mean", "std"),
    "score_genes": ("controls",),
    "ucell": ("max_rank",),
    "aucell": ("n_up",),
    "ulm": (),
}


def _number(text: str) -> str:
    """A number written to its last bit, as text: JSON knows neither NaN nor infinity."""
    float.fromhex(text)
    return text


Exact: TypeAlias = Annotated[str, AfterValidator(_number)]


class BlockSplit(BaseModel):
    """Folds by blocks."""

    by: Literal["block"]
    n_folds: Several
    seed: Seed
    block_um: Positive
    buffer_um: NotNegative


class RandomSplit(BaseModel):
    """Folds drawn at random."""

    by: Literal["random"]
    n_folds: Several
    seed: Seed


class GroupSplit(BaseModel):
    """Fold of a whole slide."""

    by: Literal["patient", "slide"]
    fold: Natural


def _stain(record: dict[str, Any]) -> dict[str, Any]:
    if np.shape(record.get("matrix", ())) != (3, 3) or not isinstance(record.get("method"), str):
        msg = "the record of a stain, with `method` and a `matrix` of 3 x 3 numbers"
        raise ValueError(msg)
    return record


@dataclass(frozen=True)
class PatchSpec:
    """Sizes of the patches of a slide in model px, in level-0 px, and µm/px of both.

    ``level`` is the level of the pyramid that is read, and ``resample`` the px of it per px of the patch (1: as it is);
    ``tissue_key`` the element that said where tissue is (None: found on the image); ``made_by`` the function or tool;
    ``stain`` what ``pp.normalize_stain`` measured (None: the colours of the scan). Slides patched by an early version
    lack these.
    """

    image_key: Key
    patch_px: Count
    um_per_px: UmPerPx
    size_l0: Count
    stride_l0: Count
    image_um_per_px: UmPerPx
    min_tissue: Fraction
    level: Natural | None = None
    resample: Positive | None = None
    tissue_key: str | None = None
    made_by: str = "make_patches"
    stain: Annotated[dict[str, Any], AfterValidator(_stain)] | None = None

    @property
    def design(self) -> tuple[int, float]:
        """Edge in px and µm/px, as a model sees them; all slides must share both."""
        return self.patch_px, self.um_per_px


class Size(BaseModel):
    """Shape of a part of a table."""

    n: list[Natural]


class Spots(Size):
    """Some values of a part, see :mod:`spatialsig.slide.fingerprints`."""

    row: list[str]
    column: list[str]
    value: list[Exact]
    sum: Exact
    kept: list[Any]


class Entry(BaseModel):
    """What a part was made from, see :mod:`spatialsig.slide.lineage`."""

    made_by: str
    sources: dict[str, str] = Field(alias="from")
    spots: dict[str, Spots | Size]
    content: str | None = None
    held: dict[str, str] = {}


class SlideRecords(BaseModel):
    """What functions know by name; users keep what they like beside it."""

    split: BlockSplit | RandomSplit | GroupSplit | None = Field(None, discriminator="by")
    patches: dict[str, PatchSpec] = {}
    lineage: dict[str, Entry | Annotated[dict[str, Any], MaxLen(0)]] = {}
    qc_alignment: Params = {}
    qc_patches: Params = {}
    align_he: Params = {}
    find_tissue: dict[str, Params] = {}
    attention: dict[str, Params] = {}
    signature_map: dict[str, Params] = {}
    file_um_per_px: dict[str, list[Positive]] = {}


def _scores(record: dict[str, Any]) -> dict[str, Any]:
    """A record by which the same scores can be made again; early versions did not keep the weights."""
    if "weights" not in record:
        return record
    method = record.get("method")
    if not (isinstance(method, str) and method in SCORERS):
        msg = f"a record with a 'method' of {sorted(SCORERS)}"
        raise ValueError(msg)
    n_genes, n_names = (len(record[field]) if np.ndim(record.get(field, "")) else 0 for field in ("genes", "names"))
    shapes = {"mean": (n_genes,), "std": (n_genes,), "max_rank": (), "n_up": ()}
    for field in ("weights", *SCORERS[method]):
        shape = shapes.get(field, (n_genes, n_names))
        value = record.get(field, ())
        if np.shape(value) != shape or np.asarray(value).dtype.kind not in "iuf":
            msg = f"a record whose {field!r} are numbers of the shape {shape}, for {n_genes} genes and {n_names} signatures"
            raise ValueError(msg)
    return record


class Labels(BaseModel):
    """How cells became labels of patches."""

    patches_key: str = _keys.PATCHES
    stat: str = "mean"
    trim: Fraction = 0.0


class TableRecords(BaseModel):
    """What functions left with a table and others read."""

    score_cells: Annotated[Params, AfterValidator(_scores)] = {}
    aggregate_patches: Labels | None = None
    assign_cells: Params = {}
    embed_cells: Params = {}
    embed_patches: Params = {}
    filter_cells: Params = {}
    predict: Params = {}
    predict_cells: Params = {}
    cross_validate: Params = {}


def check_records(sdata: sd.SpatialData, *, name: str) -> None:
    """Refuse records that no function wrote; those of a table that is not read yet once it is.

    Raises
    ------
    InputError
        Naming the record and what stands in it.
    """
    records = sdata.attrs.get(_keys.NAMESPACE, {})
    check_record(SlideRecords, records, where=f"slide {name}: sdata.attrs[{_keys.NAMESPACE!r}]")
    check_table = partial(_check_table, name)
    if isinstance(sdata.tables, LazyTables):
        sdata.tables.checks.append(check_table)
    else:
        for key, table in sdata.tables.items():
            check_table(key, table)


def _check_table(slide: str, key: str, table: ad.AnnData) -> None:
    where = f"slide {slide}: tables[{key!r}].uns[{_keys.NAMESPACE!r}]"
    check_record(TableRecords, table.uns.get(_keys.NAMESPACE, {}), where=where)
