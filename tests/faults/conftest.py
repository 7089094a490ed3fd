"""Bundles of five layouts that the faults break copies of, and the table of their answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

import spatialsig as sp

LAYOUTS = ("1.0", "1.6", "2.0", "3.0", "4.0")
IMAGE, ALIGNMENT = "S1_he_image.ome.tif", "S1_he_imagealignment.csv"


@dataclass
class Broken:
    """A copy of a bundle made of links; a file becomes its own when it is changed."""

    path: Path
    version: str

    def own(self, name: str) -> Path:
        """A file of the copy that may be written."""
        file = self.path / name
        if file.stat().st_nlink > 1:
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
        return file

    def write(self, name: str, content: bytes | str) -> None:
        file = self.own(name)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def truncate(self, name: str, share: float = 0.5) -> None:
        content = (self.path / name).read_bytes()
        self.write(name, content[: int(len(content) * share)])

    def remove(self, *names: str) -> None:
        for name in names:
            target = self.path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def specs(self, **fields: object) -> None:
        """Set fields of experiment.xenium; ``...`` removes one."""
        old = json.loads((self.path / "experiment.xenium").read_text())
        self.write("experiment.xenium", json.dumps({k: v for k, v in (old | fields).items() if v is not ...}))

    def cells(self, change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "cells.parquet") -> None:
        file = self.own(name)
        pq.write_table(pa.Table.from_pandas(change(pd.read_parquet(file)), preserve_index=False), file)

    def matrix(self, **fields: object) -> None:
        """Replace datasets of the matrix (``__`` for ``/``); a callable gets the old values, ``...`` removes."""
        with h5py.File(self.own("cell_feature_matrix.h5"), "r+") as file:
            group = file["matrix"]
            for key, value in fields.items():
                name = key.replace("__", "/")
                new = value(group[name][()]) if callable(value) else value
                del group[name]
                if new is not ...:
                    group[name] = new

    def alignment(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        file = self.own(ALIGNMENT)
        np.savetxt(file, change(np.loadtxt(file, delimiter=",")), delimiter=",", fmt="%.17g")

    def image(self, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels, **options: object) -> None:
        """Write the H&E again, plain, after a change of its pixels ``(y, x, 3)``."""
        pixels = change(tifffile.imread(self.path / IMAGE, series=0, level=0))
        kwargs = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib", "metadata": {"axes": "YXS"}}
        self.remove(IMAGE)
        tifffile.imwrite(self.path / IMAGE, pixels, ome=True, **(kwargs | options))


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
