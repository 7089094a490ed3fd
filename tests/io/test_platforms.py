"""The snippets of ``docs/platforms.md`` on small exports in the files of each platform."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from scipy import sparse

import spatialsig as sp

DOCS = Path(__file__).resolve().parents[2] / "docs"
N, GENES = 40, ["CD3D", "CD3E", "MKI67", "DCN", "ACTA2", "RGS5"]
HEIGHT, WIDTH = 900, 1100


def snippet(section: str) -> str:
    """Python code below a heading of the page."""
    text = (DOCS / "platforms.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None, section
    return found.group(1)


def run(section: str) -> sd.SpatialData:
    names: dict[str, object] = {}
    exec(compile(snippet(section), f"platforms.md: {section}", "exec"), names)
    return names["sdata"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(5).poisson(2, (N, len(GENES))).astype(np.int32)


def grid(pitch_px: float, turn: float = 0.01) -> np.ndarray:
    """Places of spots, px: a slightly turned grid of 8 x 5."""
    columns, rows = np.meshgrid(np.arange(8), np.arange(5))
    xy = pitch_px * np.c_[columns.ravel(), rows.ravel()]
    return xy @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + [120.0, 90.0]


def write_tiff(path: str, pixels: np.ndarray, um: float | None = None) -> None:
    metadata = {"axes": "YXS"} | ({} if um is None else {"PhysicalSizeX": um, "PhysicalSizeY": um})
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), ome=um is not None, metadata=metadata)


def write_10x(path: Path, counts: np.ndarray, barcodes: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    csc = sparse.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["data"], group["indices"], group["indptr"] = csc.data, csc.indices, csc.indptr
        group["shape"] = np.array(csc.shape, np.int32)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i}" for i in range(len(GENES))], dtype="S")
        features["name"] = np.array(GENES, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(GENES), dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(GENES), dtype="S")


def check(sdata: sd.SpatialData, xy_px: np.ndarray, counts: np.ndarray, um: float, pixels: np.ndarray | None) -> None:
    """Counts, positions in um, circles in px, the pixels and their size are those that were written."""
    table = sdata["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts)
    assert table.var_names.tolist() == GENES
    np.testing.assert_allclose(table.obsm["spatial"], xy_px * um, rtol=1e-6)
    circles = sd.transform(sdata["cell_circles"], to_coordinate_system="global")
    np.testing.assert_allclose(np.c_[circles.geometry.x, circles.geometry.y], xy_px, rtol=1e-6)
    assert sp.io.mpp(sdata) == pytest.approx(um, rel=1e-6)
    if pixels is not None:
        np.testing.assert_array_equal(sdata["he_image"]["scale0"]["image"].values, np.moveaxis(pixels, 2, 0))
    assert sd.read_zarr(sdata.path)["table"].n_obs == len(counts)
    assert table.uns["spatialsig"]["from_anndata"]["cells_outside_image"] == 0


def test_visium(counts, pixels) -> None:
    pitch, order = 130.0, np.random.default_rng(6).permutation(N)
    xy, barcodes = grid(pitch), [f"AAAC{i:03d}-1" for i in range(N)]
    write_10x(Path("outs/filtered_feature_bc_matrix.h5"), counts[order][:30], [barcodes[i] for i in order[:30]])
    frame = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": 1,
            "array_row": np.arange(N) // 8,
            "array_col": np.arange(N) % 8,
            "pxl_row_in_fullres": xy[:, 1],
            "pxl_col_in_fullres": xy[:, 0],
        }
    )
    Path("outs/spatial").mkdir()
    frame.to_csv("outs/spatial/tissue_positions.csv", index=False)
    write_tiff("he_fullres.tif", pixels)
    sdata = run("Visium")
    check(sdata, xy[order[:30]], counts[order[:30]], 100 / pitch, pixels)
    assert sdata["cell_circles"]["radius"].iloc[0] == pytest.approx(27.5)


def test_visium_hd(counts, pixels) -> None:
    um = 0.2737
    bins = Path("outs/binned_outputs/square_008um")
    xy, barcodes = grid(8 / um), [f"s_008um_00000_{i:05d}-1" for i in range(N)]
    write_10x(bins / "filtered_feature_bc_matrix.h5", counts, barcodes)
    (bins / "spatial").mkdir()
    pd.DataFrame(
        {
            "barcode": barcodes[::-1],
            "in_tissue": 1,
            "array_row": 0,
            "array_col": 0,
            "pxl_row_in_fullres": xy[::-1, 1],
            "pxl_col_in_fullres": xy[::-1, 0],
        }
    ).to_parquet(bins / "spatial/tissue_positions.parquet")
    scale = {"microns_per_pixel": um, "bin_size_um": 8.0, "spot_diameter_fullres": 8 / um, "tissue_hires_scalef": 0.1}
    (bins / "spatial/scalefactors_json.json").write_text(json.dumps(scale))
    write_tiff("he_fullres.btf", pixels)
    sdata = run("Visium HD")
    check(sdata, xy, counts, um, pixels)
    assert sdata["cell_circles"]["radius"].iloc[0] == pytest.approx(4.0)


def test_legacy_spatial_transcriptomics(counts, pixels) -> None:
    pitch = 120.0
    xy = grid(pitch)
    x, y = np.tile(np.arange(8), 5) + 2, np.repeat(np.arange(5), 8) + 3
    names = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    pd.DataFrame(counts, index=names, columns=GENES).to_csv("C2.tsv.gz", sep="\t")
    selection = {"x": x, "y": y, "new_x": x + 0.01, "new_y": y, "pixel_x": xy[:, 0], "pixel_y": xy[:, 1], "selected": 1}
    pd.DataFrame(selection).iloc[::-1].to_csv("C2_selection.tsv", sep="\t", index=False)
    Path("C2.jpg").write_bytes(imagecodecs.jpeg8_encode(pixels, level=90))
    sdata = run("Legacy Spatial Transcriptomics")
    check(sdata, xy, counts, 200 / pitch, imagecodecs.jpeg8_decode(Path("C2.jpg").read_bytes()))
    assert set(sdata["table"].obs["sample"]) == {"C2"}


def registration(scale: float, *, mirror: bool) -> np.ndarray:
    """Matrix to px of the H&E, from a frame far away and perhaps upside down."""
    matrix = scale * np.array([[0.02, 1, 0], [-1, 0.02, 0], [0, 0, 1 / scale]])
    if mirror:
        matrix = matrix @ np.diag([1.0, -1.0, 1.0])
    return matrix


def to_frame(xy_px: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (np.c_[xy_px, np.ones(len(xy_px))] @ np.linalg.inv(matrix).T)[:, :2]


def test_cosmx(counts, pixels) -> None:
    um = 0.25
    xy, matrix = grid(100), registration(0.12028 / um, mirror=True)
    matrix[:2, 2] = [-3000, 5000]
    frame = to_frame(xy, matrix)
    fov, cell = np.repeat([1, 2], N // 2), np.tile(np.arange(1, N // 2 + 1), 2)
    Path("flat").mkdir()
    control = {"NegPrb1": 1, "SystemControl7": 2}
    table = pd.DataFrame({"fov": fov, "cell_ID": cell}).join(pd.DataFrame(counts, columns=GENES)).assign(**control)
    outside = pd.DataFrame([[1, 0, *[99] * len(GENES), 5, 5]], columns=table.columns)
    pd.concat([outside, table]).to_csv("flat/S1_exprMat_file.csv.gz", index=False)
    cells = {
        "fov": fov,
        "cell_ID": cell,
        "Area": 900,
        "CenterX_global_px": frame[:, 0],
        "CenterY_global_px": frame[:, 1],
    }
    pd.DataFrame(cells | {"cell_id": "c_1_1", "version": "v6"}).iloc[::-1].to_csv(
        "flat/S1_metadata_file.csv.gz", index=False
    )
    np.savetxt("global_px_to_he_px.csv", matrix, delimiter=",")
    write_tiff("he.ome.tif", pixels, um)
    sdata = run("CosMx")
    check(sdata, xy, counts, um, pixels)
    assert sdata["table"].obs_names[0] == "1_1"


def test_merscope(counts, pixels) -> None:
    um, mosaic_um = 0.25, 0.108
    xy = grid(100)
    to_mosaic = np.array([[1 / mosaic_um, 0, 2500.0], [0, 1 / mosaic_um, 4100.0], [0, 0, 1]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    to_he = np.eye(3)
    to_he[:2, :2], to_he[:2, 2] = turn * mosaic_um / um, [-200, 800]
    centres = to_frame(xy, to_he @ to_mosaic)
    ids = [str(3_000_000_000_000_000_000 + i) for i in range(N)]
    Path("region_0/images").mkdir(parents=True)
    frame = pd.DataFrame(counts, columns=GENES).assign(**{"Blank-1": 1})
    frame.insert(0, "cell", ids)
    frame.to_csv("region_0/cell_by_gene.csv", index=False)
    cells = {
        "EntityID": ids,
        "fov": 0,
        "volume": 500.0,
        "center_x": centres[:, 0],
        "center_y": centres[:, 1],
        "min_x": 0,
    }
    pd.DataFrame(cells).iloc[::-1].to_csv("region_0/cell_metadata.csv", index=False)
    np.savetxt("region_0/images/micron_to_mosaic_pixel_transform.csv", to_mosaic)
    np.savetxt("mosaic_px_to_he_px.csv", to_he, delimiter=",")
    write_tiff("he.ome.tif", pixels, um)
    sdata = run("MERSCOPE")
    check(sdata, xy, counts, um, pixels)
    assert sdata["table"].obs_names.tolist() == ids


def test_every_section_with_code_is_run_here() -> None:
    text = (DOCS / "platforms.md").read_text(encoding="utf-8")
    sections = [part.split("\n")[0] for part in text.split("\n## ")[1:] if "```python" in part]
    assert sections == ["Visium", "Visium HD", "Legacy Spatial Transcriptomics", "CosMx", "MERSCOPE"]
