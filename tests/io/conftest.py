"""A small Xenium bundle of known content, written file by file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

PIXEL_SIZE = 0.2125
N_CELLS, N_GENES, N_CONTROLS = 50, 12, 4
HE_SHAPE = (700, 900)  # y, x


@dataclass
class Bundle:
    """Paths and truth of a written bundle."""

    path: Path
    counts: np.ndarray  # (n_cells, n_features), genes first
    cell_ids: list[str]
    xy_um: np.ndarray
    he_xy: np.ndarray  # (n_cells, 2) px in the H&E
    pixels: np.ndarray  # (y, x, 3)
    matrix: np.ndarray
    radius_um: np.ndarray

    @property
    def he_image(self) -> Path:
        return self.path / "slide_he_image.ome.tif"

    @property
    def he_alignment(self) -> Path:
        return self.path / "slide_he_imagealignment.csv"

    def edit_specs(self, **fields: object) -> None:
        file = self.path / "experiment.xenium"
        specs = json.loads(file.read_text()) | fields
        file.write_text(json.dumps({k: v for k, v in specs.items() if v is not ...}))

    def edit_cells(self, change) -> None:
        file = self.path / "cells.parquet"
        change(pd.read_parquet(file)).to_parquet(file)

    def edit_matrix(self, **fields: np.ndarray | None) -> None:
        with h5py.File(self.path / "cell_feature_matrix.h5", "r+") as file:
            for name, value in fields.items():
                del file[f"matrix/{name}"]
                if value is not None:
                    file[f"matrix/{name}"] = value

    def write_he(self, pixels: np.ndarray, **kwargs: object) -> None:
        self.he_image.unlink(missing_ok=True)
        options = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib", "metadata": {"axes": "YXS"}}
        tifffile.imwrite(self.he_image, pixels, ome=True, **(options | kwargs))


def alignment(*, angle: float = 1.9, mirror: bool = False, scale: float = 0.9, shift=(250.0, 120.0)) -> np.ndarray:
    """H&E px -> morphology px: turn, mirror, scale, shift."""
    c, s = np.cos(angle), np.sin(angle)
    linear = scale * np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = shift
    return matrix


def write_bundle(path: Path, *, seed: int = 0, id_kind: str = "str", he: bool = True, mirror: bool = False) -> Bundle:
    """Write a bundle in which the cells of ``cells.parquet`` are in another order than the barcodes."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    n_features = N_GENES + N_CONTROLS
    counts = rng.poisson(0.7, (N_CELLS, n_features)).astype(np.int32)
    matrix = alignment(mirror=mirror)
    he_xy = rng.uniform([5, 5], [HE_SHAPE[1] - 5, HE_SHAPE[0] - 5], (N_CELLS, 2))
    xy_um = PIXEL_SIZE * (he_xy @ matrix[:2, :2].T + matrix[:2, 2])
    letters = np.array(list("abcdefghijklmnop"))
    cell_ids = ["".join(rng.choice(letters, 8)) + "-1" for _ in range(N_CELLS)]
    ids: list[object] = list(cell_ids)
    if id_kind == "int":
        cell_ids = [str(i + 1) for i in range(N_CELLS)]
        ids = [int(i) for i in cell_ids]
    elif id_kind == "bytes":
        ids = [i.encode() for i in cell_ids]

    (path / "experiment.xenium").write_text(
        json.dumps({"pixel_size": PIXEL_SIZE, "analysis_sw_version": "xenium-2.0.0.10", "run_name": "r"})
    )
    area = rng.uniform(20, 90, N_CELLS)
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "x_centroid": xy_um[:, 0],
            "y_centroid": xy_um[:, 1],
            "transcript_counts": counts[:, :N_GENES].sum(1),
            "total_counts": counts.sum(1),
            "cell_area": area,
            "nucleus_area": area / 3,
        }
    )
    cells.sample(frac=1, random_state=1).reset_index(drop=True).to_parquet(path / "cells.parquet")

    csc = sparse.csc_matrix(counts.T)
    names = [f"GENE{i}" for i in range(N_GENES)] + [f"NegControl_{i}" for i in range(N_CONTROLS)]
    names[3] = names[2]  # symbols are not unique
    kinds = ["Gene Expression"] * N_GENES + ["Negative Control Probe"] * 3 + ["Unassigned Codeword"]
    with h5py.File(path / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(cell_ids, dtype="S12")
        group["data"], group["indices"] = csc.data, csc.indices.astype(np.int64)
        group["indptr"], group["shape"] = csc.indptr.astype(np.int64), np.array(csc.shape, np.int32)
        group["features/id"] = np.array([f"ENSG{i:05d}" for i in range(n_features)], dtype="S12")
        group["features/name"] = np.array(names, dtype="S20")
        group["features/feature_type"] = np.array(kinds, dtype="S25")
        group["features/genome"] = np.array(["GRCh38"] * n_features, dtype="S8")
        group["features/_all_tag_keys"] = np.array([b"genome"])

    smooth = rng.integers(90, 240, (HE_SHAPE[0] // 10, HE_SHAPE[1] // 10, 3), dtype=np.uint8)
    pixels = smooth.repeat(10, 0).repeat(10, 1) + rng.integers(0, 8, (*HE_SHAPE, 3), dtype=np.uint8)
    bundle = Bundle(path, counts, cell_ids, xy_um, he_xy, pixels, matrix, np.sqrt(area / np.pi))
    if he:
        bundle.write_he(pixels)
        np.savetxt(bundle.he_alignment, matrix, delimiter=",")
    return bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "S1")
