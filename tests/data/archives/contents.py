"""Every value of an archive, and what is computed from it, as plain arrays: read through public names only."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import shutil
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import shapely
import spatialdata as sd
from scipy.sparse import issparse
from spatialdata.transformations import get_transformation

import spatialsig as sp

Arrays = dict[str, np.ndarray]
SLIDES = ("A", "B")
ENSEMBLE = {"n_members": 2, "fusion": "none", "max_epochs": 1, "batch_size": 8}
SIGNATURES = {"Immune": ["CD3E", "CD8A", "PTPRC", "CD4"], "Stroma": ["COL1A1", "DCN", "LUM", "PDGFRB"]}


def unpack(archive: Path, to: Path) -> tuple[Path, Path]:
    """Folders of slides and models of an archive."""
    for name in ("slides", "models"):
        shutil.unpack_archive(archive / f"{name}.tar.xz", to / name, filter="data")
    return to / "slides", to / "models"


def read_arrays(path: Path) -> Arrays:
    """What :func:`write_arrays` wrote."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as arrays:
        return dict(arrays)


# --- what lies in stores and models ---


def stored(slides: Path, models: Path) -> Arrays:
    """Every value of every store and model, by its place."""
    arrays: Arrays = {}
    for path in sorted(slides.glob("*.zarr")):
        sdata = sp.io.read(path)
        arrays[f"{path.stem}/attrs"] = as_json(sdata.attrs)
        for kind, name, element in sdata.gen_elements():
            arrays |= under(f"{path.stem}/{kind}/{name}", element_values(kind, element))
    for name, model in loaded(models).items():
        arrays |= under(f"models/{name}", model_values(model))
    return under("stored", arrays)


def loaded(models: Path) -> dict[str, Any]:
    """Every archived model by the name of its directory."""
    readers = {
        "autoencoder": sp.models.Autoencoder.load,
        "autoencoder_plain": sp.models.Autoencoder.load,
        "seed_files": sp.models.import_seed_autoencoder,
        "pretrained": sp.models.PretrainedViT.load,
    }
    names = sorted(path.name for path in models.iterdir() if path.name != "run")
    return {name: readers.get(name, sp.models.load_signature_model)(models / name) for name in names}


def element_values(kind: str, element: Any) -> Arrays:
    """Values and place of one element."""
    if kind == "tables":
        return table_values(element)
    if kind in {"images", "labels"}:
        values = image_values(element)
    elif kind == "points":
        values = frame_values(element.compute().reset_index(drop=True))
    else:
        coordinates = shapely.get_coordinates(element.geometry.to_numpy())
        per_shape = shapely.get_num_coordinates(element.geometry.to_numpy())
        values = {"coordinates": coordinates, "n_coordinates": per_shape, "index": plain(element.index)}
        values |= frame_values(element.drop(columns="geometry"))
    places = get_transformation(element, get_all=True)
    axes = ("x", "y")
    return values | {f"to_{name}": t.to_affine_matrix(axes, axes) for name, t in places.items()}


def image_values(element: Any) -> Arrays:
    """Pixels of every scale: floats whole, integers as their hash."""
    scales = {s: element[s]["image"] for s in element} if hasattr(element, "children") else {"only": element}
    values = {}
    for name, scale in scales.items():
        pixels = np.asarray(scale.data)
        values[name] = pixels if pixels.dtype.kind == "f" else sha256(pixels)
        values[f"{name}_channels"] = plain(pd.Index(scale.coords["c"].to_numpy()))
    return values


def table_values(table: ad.AnnData) -> Arrays:
    """Every part of a table."""
    values = {"X": dense(table.X), "uns": as_json(dict(table.uns)), "obs_names": plain(table.obs_names)}
    values |= {"var_names": plain(table.var_names)}
    values |= under("obs", frame_values(table.obs)) | under("var", frame_values(table.var))
    for part in ("layers", "obsm"):
        for key, value in getattr(table, part).items():
            if isinstance(value, pd.DataFrame):
                values |= under(f"{part}/{key}", frame_values(value))
            else:
                values[f"{part}/{key}"] = dense(value)
    return values


def frame_values(frame: pd.DataFrame) -> Arrays:
    """Columns of a frame."""
    return {str(name): plain(frame[name]) for name in frame.columns}


def model_values(model: Any) -> Arrays:
    """Weights as a hash, every other part whole."""
    if hasattr(model, "members"):
        values = {f"member-{i}/{k}": v for i, m in enumerate(model.members) for k, v in model_values(m).items()}
        return values | {"intervals": as_json(model.intervals), "run": as_json(model.run)}
    weights = model.net.state_dict()
    values = {"weights": sha256(*(weights[name].cpu().numpy() for name in sorted(weights)))}
    values |= {"weight_names": np.array(sorted(weights)), "config": as_json(model.config)}
    values["run"] = as_json({key: value for key, value in model.run.items() if key != "source"})  # a path
    for name in ("genes", "signatures", "mean", "std", "target_mean", "target_std", "ae_mean", "ae_std"):
        if hasattr(model, name):
            values[name] = np.asarray(getattr(model, name))
    for name in ("intervals", "patch_px", "um_per_px"):
        if hasattr(model, name):
            values[name] = as_json(getattr(model, name))
    return values


# --- what follows from them ---


def computed(slides: Path) -> Arrays:
    """What comes out of the archived stores without a network; the stores are written to."""
    cohort = open_cohort(slides)
    sp.tl.score_cells(cohort, SIGNATURES, key_added="again")
    sp.pp.make_patches(cohort, patch_px=24, um_per_px=2.0, stride_um=24.0, key_added="patches_again")
    sp.tl.aggregate_patches(cohort, min_cells=3, key_added="signatures_again", **LABELS)
    arrays: Arrays = {}
    for name in SLIDES:
        sdata = cohort[name]
        arrays[f"{name}/cells/scores"] = dense(sdata["table"].obsm["again"])
        arrays |= under(f"{name}/signatures_again", table_values(sdata["signatures_again"]))
        arrays |= under(f"{name}/patches_again", element_values("shapes", sdata["patches_again"]))
    return under("computed", arrays)


def by_networks(slides: Path, models: Path) -> Arrays:
    """What the archived networks make of the archived slides, in memory."""
    trained, arrays = loaded(models), {}
    for sample in SLIDES:
        sdata = sd.deepcopy(sp.io.read(slides / f"{sample}.zarr"))
        for name in ("autoencoder", "autoencoder_plain", "seed_files"):
            sp.tl.embed_cells(sdata, trained[name], key_added=f"X_{name}")
            arrays[f"{name}/{sample}"] = dense(sdata["table"].obsm[f"X_{name}"])
        for name, use_rep, n_views in PREDICTIONS:
            key = f"{name}_{'he' if use_rep is None else 'fused'}_{n_views}"
            sp.tl.predict(sdata, trained[name], use_rep=use_rep, n_views=n_views, key_added=key)
            values = {"X": dense(sdata[key].X)} | {layer: dense(v) for layer, v in sdata[key].layers.items()}
            arrays |= under(f"{key}/{sample}", values)
        for method in ("gradient", "rollout"):
            baseline = {"baseline": "glass"} if method == "gradient" else {}  # the only one there was
            sp.tl.attention(
                sdata, trained["vit"], method=method, patches=[0, 3], key_added=f"{method}_again", **baseline
            )
            arrays[f"{method}/{sample}"] = np.asarray(sdata[f"{method}_again"].data)
    return under("network", arrays)


PREDICTIONS = [  # model, embedding, views
    ("vit", None, 1),
    ("vit", "X_ae", 1),
    ("vit_gaussian", None, 2),
    ("vit_lora", None, 1),
    ("vit_table", None, 1),
    ("ensemble", None, 1),
]
LABELS: dict[str, Any] = {"obs": ["transcript_counts", "cell_type"], "layers": ["lognorm"]}


def open_cohort(slides: Path) -> sp.Cohort:
    """The two toy slides."""
    return sp.Cohort({name: slides / f"{name}.zarr" for name in SLIDES})


# --- values as plain arrays ---


def under(prefix: str, arrays: Arrays) -> Arrays:
    """The same arrays one folder down."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def dense(values: Any) -> np.ndarray:
    return values.toarray() if issparse(values) else np.asarray(values)


def plain(column: Any) -> np.ndarray:
    """A column as numbers or text, without pickles."""
    if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind not in "biuf":
        return np.asarray(column.astype(str), dtype=str)
    return np.asarray(column)


def as_json(value: Any) -> np.ndarray:
    """Nested settings as one text."""
    return np.array(json.dumps(value, sort_keys=True, default=_simple))


def _simple(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, pd.DataFrame):
        return value.to_dict("list")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else dict(value)


def sha256(*arrays: np.ndarray) -> np.ndarray:
    """Hash of types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return np.array(digest.hexdigest())
