"""Bundles of seven layouts that the faults break copies of, and the table of their answers."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from anndata.io import read_elem, write_elem

import spatialsig as sp
from spatialsig.datasets.synthetic.bundle.matrix_zarr import pack

ZARR = "atera-1.0"  # the layout whose counts and cells are one zipped Zarr
FILES = ("1.0", "1.6", "2.0", "3.0", "4.0", "atera-preview")  # counts as HDF5, cells as parquet
LAYOUTS = (*FILES, ZARR)
IMAGE, ALIGNMENT = "S1_he_image.ome.tif", "S1_he_imagealignment.csv"
MATRIX_ZARR = "cell_feature_matrix.zarr.zip"
# names of files, and what is said of them, where a layout has others than most
SPELLED = {
    "atera-preview": {ALIGNMENT: "S1_he_alignment.csv"},
    ZARR: {
        ALIGNMENT: "S1_he_alignment.csv",
        "experiment.xenium": "experiment.spatial",
        "cell_feature_matrix.h5": MATRIX_ZARR,
        "cells.parquet": MATRIX_ZARR,
        "morphology_focus": "morphology_2d",
        "morphology_focus/": "morphology_2d/",
        "morphology_focus/ch0000_dapi.ome.tif": "morphology_2d/ch0000_dapi.ome.tif",
        "cannot be read as HDF5": "is damaged",
        "/matrix/data": "/X/data",
        "features/feature_type": "feature_type",
        "Copy": "opy",
    },
}
# datasets of the matrix in HDF5 -> in the zipped Zarr
ARRAYS = {
    "barcodes": "obs/barcode",
    "features__id": "var/feature_id",
    "features__name": "var/feature_name",
    "features__feature_type": "var/feature_type",
}
CELL_COLUMNS = {"cell_id": "barcode", "x_centroid": "centroid_column", "y_centroid": "centroid_row"}


@contextmanager
def unpacked(file: Path) -> Iterator[zarr.Group]:
    """Content of a zipped Zarr, which is packed again when it was changed."""
    with TemporaryDirectory() as folder, zarr.config.set({"array.write_empty_chunks": True}):
        with zipfile.ZipFile(file) as zipped:
            zipped.extractall(folder)
        yield zarr.open_group(folder, mode="r+", zarr_format=2)
        pack(Path(folder), file)


def put_array(root: zarr.Group, name: str, values: np.ndarray) -> None:
    """Replace an array; text in a table is variable-width text, unless it is none."""
    if name in root:
        del root[name]
    if values.dtype.kind == "S" and not name.startswith("X/"):
        with suppress(UnicodeDecodeError):
            values = np.char.decode(values)
    if values.dtype.kind in "UO":
        values = values.astype(object)
        write_elem(root, name, values)
    else:
        root.create_array(name, data=values, chunks=tuple(max(size, 1) for size in values.shape))


@dataclass
class Broken:
    """A copy of a bundle made of links; a file becomes its own when it is changed."""

    path: Path
    version: str

    def spelled(self, text: str) -> str:
        """Name of a file, or what is said of it, in this layout."""
        return SPELLED.get(self.version, {}).get(text, text)

    def own(self, name: str) -> Path:
        """A file of the copy that may be written."""
        file = self.path / self.spelled(name)
        if file.stat().st_nlink > 1:
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
        return file

    def write(self, name: str, content: bytes | str) -> None:
        file = self.own(name)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def truncate(self, name: str, share: float = 0.5) -> None:
        content = (self.path / self.spelled(name)).read_bytes()
        self.write(name, content[: int(len(content) * share)])

    def remove(self, *names: str) -> None:
        for name in dict.fromkeys(map(self.spelled, names)):
            target = self.path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def specs(self, **fields: object) -> None:
        """Set fields of experiment.xenium; ``...`` removes one."""
        old = json.loads(self.own("experiment.xenium").read_text())
        self.write("experiment.xenium", json.dumps({k: v for k, v in (old | fields).items() if v is not ...}))

    def cells(self, change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "cells.parquet") -> None:
        file = self.own(name)
        if self.version == ZARR:
            self._obs(change)
            return
        pq.write_table(pa.Table.from_pandas(change(pd.read_parquet(file)), preserve_index=False), file)

    def matrix(self, **fields: object) -> None:
        """Replace datasets of the matrix (``__`` for ``/``); a callable gets the old values, ``...`` removes."""
        if self.version == ZARR:
            self._zarr(fields)
            return
        with h5py.File(self.own("cell_feature_matrix.h5"), "r+") as file:
            group = file["matrix"]
            for key, value in fields.items():
                name = key.replace("__", "/")
                new = value(group[name][()]) if callable(value) else value
                del group[name]
                if new is not ...:
                    group[name] = new

    def _zarr(self, fields: dict[str, object]) -> None:
        """The same changes where the matrix is a zipped Zarr; values are passed as HDF5 has them."""
        with unpacked(self.own(MATRIX_ZARR)) as root:
            for key, value in fields.items():
                name = ARRAYS.get(key, f"X/{key}")
                if key == "shape":
                    attrs = dict(root["X"].attrs)
                    old = np.array(attrs.pop("shape")[::-1])
                    new = value(old) if callable(value) else value
                    root["X"].attrs.put(attrs if new is ... else attrs | {"shape": np.asarray(new).tolist()[::-1]})
                elif value is ...:
                    del root[name]
                else:
                    old = np.asarray(root[name][...])
                    old = np.char.encode(old.astype("U64")) if old.dtype.kind in "TO" else old.astype(np.int64)
                    put_array(root, name, np.asarray(value(old) if callable(value) else value))
            if len(np.atleast_1d(fields.get("barcodes", [0]))) == 0:  # no cells at all
                for name in set(root["obs"]) - {"barcode"}:
                    put_array(root, f"obs/{name}", np.empty(0))

    def _obs(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """The same change of a table of cells where it is the ``obs`` of the matrix."""
        ours = {theirs: name for name, theirs in CELL_COLUMNS.items()}
        with unpacked(self.own(MATRIX_ZARR)) as root:
            old = {ours.get(name, name): read_elem(root["obs"][name]) for name in root["obs"]}
            new = change(pd.DataFrame(old))
            for name in old:
                del root["obs"][CELL_COLUMNS.get(name, name)]
            for name, column in new.items():
                name = CELL_COLUMNS.get(name, name)
                if isinstance(column.dtype, pd.CategoricalDtype):
                    write_elem(root["obs"], name, column.array)
                else:
                    values = column.to_numpy()
                    is_bytes = values.dtype == object and isinstance(values[0], bytes)
                    put_array(root, f"obs/{name}", values.astype("S") if is_bytes else values)

    def reorder_segmentation(self) -> None:
        """Rows of cells.zarr.zip in another order, outlines with them."""
        with unpacked(self.own("cells.zarr.zip")) as root:
            order = np.random.default_rng(4).permutation(root["cell_id"].shape[0])
            for name in ("cell_id", "cell_summary"):
                root[name][...] = np.asarray(root[name][...])[order]
            for number in "01":
                owner = root[f"polygon_sets/{number}/cell_index"]
                owner[...] = np.argsort(order)[np.asarray(owner[...])]

    def polygons(self, **fields: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change arrays of the outlines of the cells."""
        with unpacked(self.own("cells.zarr.zip")) as root:
            for name, change in fields.items():
                put_array(root, f"polygon_sets/1/{name}", change(np.asarray(root[f"polygon_sets/1/{name}"][...])))

    def alignment(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        file = self.own(ALIGNMENT)
        np.savetxt(file, change(np.loadtxt(file, delimiter=",")), delimiter=",", fmt="%.17g")

    def image(self, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels, **options: object) -> None:
        """Write the H&E again, plain, after a change of its pixels ``(y, x, 3)``."""
        pixels = change(tifffile.imread(self.path / IMAGE, series=0, level=0))
        kwargs = {
            "photometric": "rgb",
            "tile": (256, 256),
            "compression": "zlib",
            "ome": True,
            "metadata": {"axes": "YXS"},
        }
        self.remove(IMAGE)
        tifffile.imwrite(self.path / IMAGE, pixels, **(kwargs | options))


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> dict[str, Path]:
    """Whole bundles, one per layout."""
    root = tmp_path_factory.mktemp("originals")
    options = {"n_slides": 1, "size_um": 160.0, "density_per_mm2": 6000.0, "transcripts": False, "seed": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        for version in LAYOUTS:
            sp.datasets.synthetic_xenium(root / version, version=version, **options)
    return {version: root / version / "S1" for version in LAYOUTS}


@pytest.fixture
def broken(originals, tmp_path) -> Callable[[str], Broken]:
    """Make a copy of the bundle of a layout."""

    def copy(version: str) -> Broken:
        folder = tmp_path / "bundle" / "S1"
        shutil.copytree(originals[version], folder, copy_function=os.link)
        return Broken(folder, version)

    return copy
