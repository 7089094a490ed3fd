"""Whose slide a table of cells is, by its own columns: none is overwritten, and none holds two slides.

Floor 7, above evaluation. Used by io/_anndata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig._text import as_name, trimmed
from spatialsig.errors import InputError
from spatialsig.io._elements import OWN_COLUMNS, without_own
from spatialsig.store.tables import check_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

SLIDES = (_keys.SAMPLE, "library_id", "slide", "slide_id", "batch")  # columns that tell slides apart in joined tables


@dataclass(frozen=True)
class Identity:
    """Sample, patient and ids of the cells, where the table or the caller says them, and its other columns."""

    sample: str | None
    patient: str | None
    cell_ids: NDArray[Any]  # (n_obs,) str
    obs: pd.DataFrame


def identify(adata: AnnData, *, sample: str | None, patient: str | None) -> Identity:
    """Read them; :class:`InputError` where the table holds several slides or patients, or others than the caller says."""
    obs = adata.obs.rename(
        columns={name: str(name).casefold() for name in adata.obs if str(name).casefold() in OWN_COLUMNS}
    )
    check_names(obs.columns, where="adata.obs")
    check_names(adata.obsm.keys(), where="adata.obsm")
    link = adata.uns.get("spatialdata_attrs", {}).get("region_key")
    _refuse_several(adata, obs, SLIDES if link is None else (*SLIDES, link))
    if link == _keys.REGION_KEY:
        obs = obs.drop(columns=link, errors="ignore")  # it says what the rows annotated
    ids = pd.Series(adata.obs_names.astype(str).to_numpy(object), index=obs.index)
    own = _ids(obs)
    found = {
        _keys.SAMPLE: _one(obs, _keys.SAMPLE, sample),
        _keys.PATIENT: _one(obs, _keys.PATIENT, patient),
    }
    kept = [name for name in (*found, *([] if own is None else [_keys.CELL_ID])) if name in obs]
    obs = obs.drop(columns=kept)
    obs = without_own(obs, where="adata.obs")
    return Identity(**found, cell_ids=(ids if own is None else own).to_numpy(object), obs=obs)


def _refuse_several(adata: AnnData, obs: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """One image shows one slide."""
    libraries = adata.uns.get("spatial")
    names = {"adata.uns['spatial']": list(libraries) if isinstance(libraries, dict) else []}
    names |= {f"adata.obs[{column!r}]": obs[column].dropna().unique().tolist() for column in columns if column in obs}
    for where, slides in names.items():
        if len(slides) > 1:
            rows = f"{where} == name" if where.startswith("adata.obs") else "rows of one slide"
            msg = (
                f"the table holds {len(slides)} slides: {where} has {first_few(list(map(str, slides)))}; the image shows one. "
                f"Call `from_anndata` for each, with its own image: `adata[{rows}].copy()`. (Rename the "
                "column if it does not name slides.)"
            )
            raise InputError(msg)


def _one(obs: pd.DataFrame, column: str, given: str | None) -> str | None:
    """The one value of a column, which must be what the caller says."""
    values = [] if column not in obs else [as_name(value) for value in obs[column].dropna().unique()]
    if len(set(values)) > 1:
        msg = (
            f"adata.obs[{column!r}] has {len(values)} values: {first_few(values)}; wanted one, since a slide is of one."
        )
        raise InputError(msg)
    if given is not None and values and values[0] != trimmed(given):
        msg = (
            f"`{column}={given!r}`, but adata.obs[{column!r}] is {values[0]!r}: leave the argument out, or correct or rename "
            "the column."
        )
        raise InputError(msg)
    return trimmed(given) if given is not None else next(iter(values), None)


def _ids(obs: pd.DataFrame) -> pd.Series[Any] | None:
    """The column ``cell_id``, if it names every row, and no two alike."""
    if _keys.CELL_ID not in obs or obs[_keys.CELL_ID].isna().any():
        return None
    ids = obs[_keys.CELL_ID].astype(str).astype(object)
    return ids if ids.is_unique else None
