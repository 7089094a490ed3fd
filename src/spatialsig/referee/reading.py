"""Files, frames and tables of predictions, read slide by slide.

Floor 11, above report. Used by referee/judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anndata as ad
import numpy as np
import pandas as pd
import shapely
from shapely.geometry import shape

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig._files import DECODING_ERRORS, content_hint
from spatialsig._text import decoded, delimiter_of, trimmed
from spatialsig.errors import FileMissingError, InputError
from spatialsig.referee.columns import Outside, of_anndata, of_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

One: TypeAlias = pd.DataFrame | ad.AnnData | str | Path
SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".parquet", ".h5ad", ".geojson", ".json")


def read_predictions(predictions: One | Mapping[str, One], samples: Sequence[str]) -> dict[str, Outside]:
    """Predictions of each slide that has some, whatever holds them.

    Raises
    ------
    FileMissingError
        If a file is not there.
    InputError
        If a source cannot be read, names slides that are not in the data, or does not say which slide its rows belong to.
    """
    if isinstance(predictions, Mapping):
        unknown = [name for name in predictions if name not in samples]
        if unknown:
            msg = f"`predictions` names slides that are not in the data: {first_few(unknown)}; the data hold {first_few(list(samples))}."
            raise InputError(msg)
        found: dict[str, Outside] = {}
        for name, source in predictions.items():
            found |= _of_slides(
                _read(source), where=_where(source, f"the predictions of slide {name!r}"), samples=[name]
            )
        return found
    if isinstance(predictions, str | Path) and Path(predictions).is_dir():
        return read_predictions(_files_in(Path(predictions), samples), samples)
    return _of_slides(_read(predictions), where=_where(predictions, "the predictions"), samples=samples)


def _where(source: One, otherwise: str) -> str:
    return str(source) if isinstance(source, str | Path) else otherwise


def _files_in(directory: Path, samples: Sequence[str]) -> dict[str, One]:
    """File of each slide in a directory: ``<sample>.csv``, or ``<sample>/<sample>.csv`` as `predict_files` leaves them."""
    found: dict[str, One] = {}
    for name in samples:
        for place in (directory, directory / name):
            path = next((p for suffix in SUFFIXES if (p := place / f"{name}{suffix}").is_file()), None)
            if path is not None:
                found.setdefault(name, path)
    if not found:
        wanted = ", ".join(f"{name}.csv" for name in list(samples)[:3])
        msg = f"{directory} holds no predictions of the slides; wanted files such as {wanted} ({', '.join(SUFFIXES)})."
        raise FileMissingError(msg)
    return found


def _read(source: One) -> pd.DataFrame | ad.AnnData:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.is_file():
        msg = f"{path} does not exist; wanted a file of predictions ({', '.join(SUFFIXES)}), or a directory of them."
        raise FileMissingError(msg)
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(end)), "")
    try:
        if suffix == ".h5ad":
            return ad.read_h5ad(path)
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix in {".geojson", ".json"}:
            return _geojson(json.loads(path.read_text(encoding="utf-8")), path)
        if suffix.endswith(".gz"):
            return pd.read_csv(path, sep="\t" if ".tsv" in suffix else ",")
        if suffix:
            text = decoded(path)
            return pd.read_csv(StringIO(text), sep=delimiter_of(text))
    except (*DECODING_ERRORS, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        msg = f"{path} cannot be read as predictions ({error}).{content_hint(path)}"
        raise InputError(msg) from error
    msg = f"{path} is of no known kind; wanted one of {', '.join(SUFFIXES)}.{content_hint(path)}"
    raise InputError(msg)


def _geojson(document: Any, path: Path) -> pd.DataFrame:
    """Squares of QuPath as a frame: middle and edge in px of the H&E, and their measurements."""
    features = document.get("features") if isinstance(document, Mapping) else document
    if not isinstance(features, list) or not features:
        msg = f"{path} is no GeoJSON with features; wanted one square (or cell) per prediction, as QuPath exports them."
        raise InputError(msg)
    rows, bounds = [], []
    for number, feature in enumerate(features):
        properties = feature.get("properties") or {}
        measured = properties.get("measurements") or {
            name: value for name, value in properties.items() if isinstance(value, int | float)
        }
        if isinstance(measured, list):  # early versions of QuPath: a list of name and value
            measured = {entry["name"]: entry["value"] for entry in measured}
        try:
            bounds.append(shapely.bounds(shape(feature["geometry"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path}: feature {number} has no geometry that can be read ({error})."
            raise InputError(msg) from error
        rows.append(dict(measured))
    low, high = np.split(np.asarray(bounds, np.float64), 2, axis=1)
    frame = pd.DataFrame(rows)
    frame["x_px"], frame["y_px"] = ((low + high) / 2).T
    frame["size_px"] = (high - low).mean(axis=1)
    return frame


def _of_slides(source: pd.DataFrame | ad.AnnData, *, where: str, samples: Sequence[str]) -> dict[str, Outside]:
    """Rows of each slide, by the column ``sample`` where there is one."""
    if not isinstance(source, pd.DataFrame | ad.AnnData):
        msg = f"{where} is of type {type(source).__name__}; wanted a path, a DataFrame, an AnnData, or a mapping of slides to those."
        raise InputError(msg)
    obs = source if isinstance(source, pd.DataFrame) else source.obs
    if not len(obs):
        msg = f"{where}: there are no rows."
        raise InputError(msg)
    convert = of_frame if isinstance(source, pd.DataFrame) else of_anndata
    if _keys.SAMPLE not in obs:
        if len(samples) > 1:
            msg = (
                f"{where} has no column {_keys.SAMPLE!r}, and the data hold {len(samples)} slides; add the column, or give a "
                "mapping: {'S1': 'S1.csv', ...}."
            )
            raise InputError(msg)
        return {samples[0]: convert(source, where=where, sample=samples[0])}
    named = obs[_keys.SAMPLE].astype(str).map(trimmed)
    chosen = {name: (named == name).to_numpy() for name in samples}
    found = {name: convert(source[rows], where=where, sample=name) for name, rows in chosen.items() if rows.any()}
    if not found:
        msg = f"{where}: column {_keys.SAMPLE!r} names {first_few(sorted(set(named)))}; the data hold {first_few(list(samples))}."
        raise InputError(msg)
    return found
