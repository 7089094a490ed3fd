"""Six bundle layouts x 14 ways an H&E can lie: the same cells on the same pixels as the reader of spatialdata-io.

With ``HYPOTHESIS_PROFILE=thorough`` all 24 ways are tried: quarter turns, mirrored or not, straight or tilted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import spatialdata as sd
import tifffile
from scipy import ndimage
from spatialdata.transformations import get_transformation
from xarray import DataTree

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError
from spatialsig.geometry.affine import apply

LAYOUTS = {"1.0": "1.0-1.2", "1.6": "1.3-1.9", "2.0": "2-3", "3.0": "2-3", "4.0": "4", "atera-preview": "4"}
VERSIONS = [pytest.param(v, marks=() if v in {"4.0", "atera-1.0"} else pytest.mark.slow) for v in LAYOUTS]
# degrees -> quarter turns; from 4 on the same mirrored
PLACEMENTS = {0.0: range(8), 3.3: (0, 3, 6), -2.7: (1, 5, 7)}
if os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
    PLACEMENTS = dict.fromkeys(PLACEMENTS, range(8))
PIXEL_SIZE = 0.2125
AXES = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}


@dataclass(frozen=True)
class Placement:
    """One way the H&E lies, and where each nucleus then is."""

    image: Path
    alignment: Path
    pixels: np.ndarray  # (y, x, 3)
    he_px: np.ndarray  # (n_cells, 2), in the order of the truth


def turned(pixels: np.ndarray, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels after quarter turns and a mirroring, and the matrix from their px to those of the original."""
    back = np.eye(3)
    for _ in range(turn % 4):  # rot90 turns counterclockwise: (x, y) of the new image is (width - y, x) of the old
        back = back @ np.array([[0.0, -1, pixels.shape[1]], [1, 0, 0], [0, 0, 1]])
        pixels = np.rot90(pixels)
    if turn >= 4:
        back = back @ np.array([[-1.0, 0, pixels.shape[1]], [0, 1, 0], [0, 0, 1]])
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels), back


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Bundles of all layouts of one slide, and its H&E in all placements."""
    root = tmp_path_factory.mktemp("layouts")
    options = {"n_slides": 1, "size_um": 220.0, "density_per_mm2": 900.0, "gap_share": 0.0, "seed": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        for version in LAYOUTS:
            sp.datasets.synthetic_xenium(root / version, version=version, rotation_deg=0.0, **options)
        placements = {}
        for tilt, turns in PLACEMENTS.items():
            folder = root / f"tilt{tilt}"
            row = sp.datasets.synthetic_xenium(folder, rotation_deg=tilt, transcripts=False, **options).iloc[0]
            truth = ad.read_h5ad(folder / "S1_truth.h5ad")
            pixels = tifffile.imread(row["he_image"], series=0, level=0)
            matrix = np.loadtxt(row["he_alignment"], delimiter=",")
            for turn in turns:
                image, back = turned(pixels, turn)
                file = folder / f"turn{turn}.ome.tif"
                tifffile.imwrite(file, image, ome=True, photometric="rgb", tile=(256, 256), compression="zlib")
                np.savetxt(folder / f"turn{turn}.csv", matrix @ back, delimiter=",", fmt="%.18e")
                he_px = apply(np.linalg.inv(back), truth.obsm["he_px"])
                placements[tilt, turn] = Placement(file, folder / f"turn{turn}.csv", image, he_px)
    return root, placements


def linked(root: Path, version: str, placement: Placement | None, folder: Path) -> Path:
    """Bundle of a layout with the H&E of a placement, all of it links."""
    folder.mkdir(parents=True)
    for file in (root / version / "S1").iterdir():
        if "_he_" not in file.name:
            (folder / file.name).symlink_to(file)
    if placement is not None:
        (folder / "x_he_image.ome.tif").symlink_to(placement.image)
        (folder / "x_he_imagealignment.csv").symlink_to(placement.alignment)
    return folder


def cells_in_he_px(sdata: sd.SpatialData) -> pd.DataFrame:
    """Cells -> H&E px as any user of SpatialData would get them, by cell id."""
    circles = sdata["cell_circles"]
    to_global = get_transformation(circles).to_affine_matrix(**AXES)
    to_he = get_transformation(sdata["he_image"]).inverse().to_affine_matrix(**AXES)
    xy = apply(to_he @ to_global, np.c_[circles.geometry.x, circles.geometry.y])
    return pd.DataFrame(xy, index=circles.index.astype(str))


def theirs(bundle: Path) -> sd.SpatialData:
    from spatialdata_io import xenium

    off = ["cells_boundaries", "nucleus_boundaries", "cells_labels", "nucleus_labels", "transcripts"]
    return xenium(bundle, cells_as_circles=True, **dict.fromkeys([*off, "morphology_mip", "morphology_focus"], False))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "tilt", [*list(PLACEMENTS)[:1], *(pytest.param(tilt, marks=pytest.mark.slow) for tilt in list(PLACEMENTS)[1:])]
)
def test_cells_lie_on_the_same_pixels_in_both_readers(made, tmp_path, version, tilt) -> None:
    root, placements = made
    truth = ad.read_h5ad(root / version / "S1_truth.h5ad").obs["cell_id"].astype(str)
    for turn in PLACEMENTS[tilt]:
        placement = placements[tilt, turn]
        bundle = linked(root, version, placement, tmp_path / f"b{turn}")
        sdata = sp.io.read_xenium(bundle)
        ours, peers = cells_in_he_px(sdata), cells_in_he_px(theirs(bundle))
        assert sdata["he_image"]["scale0"]["image"].shape[1:] == placement.pixels.shape[:2]
        assert sorted(ours.index) == sorted(peers.index) == sorted(truth)
        assert np.abs(ours - peers.loc[ours.index]).to_numpy().max() < 0.01
        assert np.abs(ours.loc[truth].to_numpy() - placement.he_px).max() < 0.01


def blob_offsets(pixels: np.ndarray, he_px: np.ndarray, *, half_px: int = 22) -> np.ndarray:
    """Centroid of the stained blob minus the predicted centre, ``(n, 2)`` px, for nuclei that stand alone."""
    density = -np.log((pixels[..., 0].astype(float) + 1) / 256)  # haematoxylin takes the red away
    smooth = ndimage.gaussian_filter(density, 1.5)
    distance = np.linalg.norm(he_px[:, None] - he_px[None], axis=2) + np.diag(np.full(len(he_px), np.inf))
    inside = ((he_px > half_px) & (he_px < np.array(pixels.shape[1::-1]) - half_px)).all(axis=1)
    offsets = []
    for x, y in he_px[inside & (distance.min(axis=1) > 2 * half_px)]:
        x0, y0 = int(x) - half_px, int(y) - half_px
        window = smooth[y0 : y0 + 2 * half_px + 1, x0 : x0 + 2 * half_px + 1]
        floor, top = np.median(window), window.max()
        labels, _ = ndimage.label(window > (floor + top) / 2)
        centre = labels[half_px, half_px]
        if centre:
            row, col = ndimage.center_of_mass(labels == centre)
            offsets.append((col + 0.5 + x0 - x, row + 0.5 + y0 - y))
    return np.array(offsets)


@pytest.mark.parametrize("tilt", PLACEMENTS)
def test_painted_nuclei_are_where_cells_are_predicted(made, tmp_path, tilt) -> None:
    """Independent of every stored coordinate: the centroid of the stain around nuclei that stand alone."""
    root, placements = made
    for turn in PLACEMENTS[tilt]:
        sdata = sp.io.read_xenium(linked(root, "3.0", placements[tilt, turn], tmp_path / f"b{turn}"))
        pixels = sdata["he_image"]["scale0"]["image"].transpose("y", "x", "c").values
        offsets = blob_offsets(pixels, cells_in_he_px(sdata).to_numpy())
        assert len(offsets) >= 8
        assert np.linalg.norm(offsets, axis=1).mean() < 0.5


ALL = {"morphology": True, "boundaries": True, "transcripts": True}


def owners(shapes) -> list[str]:
    return (shapes["cell_id"] if "cell_id" in shapes else shapes.index.to_series()).astype(str).tolist()


def full(image) -> np.ndarray:
    return np.asarray((image["scale0"]["image"] if isinstance(image, DataTree) else image).data)


def check_everything(sdata: sd.SpatialData, peer: sd.SpatialData, truth: ad.AnnData) -> None:
    """Outlines, molecules and images are those of the other reader, with ids that are text."""
    assert set(sdata.images) == set(peer.images)
    for name in peer.images:
        np.testing.assert_array_equal(full(sdata[name]), full(peer[name]))
    ids = set(sdata["table"].obs["cell_id"])
    assert ids == set(truth.obs["cell_id"].astype(str))
    for name in ("cell_boundaries", "nucleus_boundaries"):
        assert owners(sdata[name]) == owners(peer[name])
        assert set(owners(sdata[name])) == ids
        assert all(isinstance(owner, str) for owner in sdata["cell_boundaries"].index)
        assert sdata[name].geometry.geom_equals(peer[name].geometry.set_axis(sdata[name].index)).all()
    ours, theirs_ = sdata["transcripts"].compute(), peer["transcripts"].compute()
    np.testing.assert_array_equal(ours[["x", "y", "z"]], theirs_[["x", "y", "z"]])
    assert ours["feature_name"].astype(str).tolist() == theirs_["feature_name"].astype(str).tolist()
    assert set(ours["cell_id"]) <= ids | {"UNASSIGNED"}
    assert (ours["cell_id"] != "UNASSIGNED").sum() == truth.uns["n_assigned"]
    one, two = (get_transformation(s["transcripts"]).to_affine_matrix(**AXES) for s in (sdata, peer))
    np.testing.assert_allclose(one, two)


def complete(root: Path, version: str) -> tuple[sd.SpatialData, ad.AnnData]:
    from spatialdata_io import xenium

    truth = ad.read_h5ad(root / version / "S1_truth.h5ad")
    molecules = pd.read_parquet(root / version / "S1" / "transcripts.parquet")["cell_id"]
    truth.uns["n_assigned"] = int((~molecules.isin([-1, "UNASSIGNED", b"UNASSIGNED"])).sum())
    off = {"cells_labels": False, "nucleus_labels": False, "aligned_images": False}
    return xenium(root / version / "S1", cells_as_circles=True, **off), truth


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_read_and_stored_whatever_the_version_says(made, tmp_path, version) -> None:
    root, _ = made
    peer, truth = complete(root, version)
    plain = linked(root, version, None, tmp_path / "plain")
    sdata = sp.io.read_xenium(plain, **ALL)
    assert sdata.attrs["spatialsig"]["source"]["xoa"] == LAYOUTS[version]
    for name, stated in (("a", "R&D"), ("b", None), ("c", "xenium-9.9.9.9" if version < "2" else "xenium-1.4.0.0")):
        bundle = linked(root, version, None, tmp_path / name)
        specs = json.loads((plain / "experiment.xenium").read_text())
        specs = {key: value for key, value in specs.items() if key != "analysis_sw_version"}
        (bundle / "experiment.xenium").unlink()
        more = {} if stated is None else {"analysis_sw_version": stated}
        (bundle / "experiment.xenium").write_text(json.dumps(specs | more))
        again = sp.io.read_xenium(bundle, **ALL)
        assert sorted(name for _, name, _ in again.gen_elements()) == sorted(
            name for _, name, _ in sdata.gen_elements()
        )
        assert owners(again["nucleus_boundaries"]) == owners(peer["nucleus_boundaries"])
    check_everything(sp.io.read_xenium(tmp_path / "a", **ALL, out=tmp_path / "s.zarr"), peer, truth)


@pytest.mark.parametrize("version", ["1.0", "1.6", "3.0"])
def test_rows_in_another_order_and_brackets_in_the_path(made, tmp_path, version) -> None:
    root, _ = made
    peer, truth = complete(root, version)
    bundle = linked(root, version, None, tmp_path / "region [1]")
    cells = pq.read_table(bundle / "cells.parquet")
    (bundle / "cells.parquet").unlink()
    pq.write_table(cells.take(np.random.default_rng(0).permutation(len(cells))), bundle / "cells.parquet")
    sdata = sp.io.read_xenium(bundle, **ALL)
    check_everything(sdata, peer, truth)
    order = sdata["table"].obs["cell_id"].tolist()
    assert order == peer["table"].obs["cell_id"].astype(str).tolist()
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], peer["table"].obsm["spatial"])
    assert (sdata["table"].X != peer["table"].X).nnz == 0


def test_outlines_of_other_cells_are_refused(made, tmp_path) -> None:
    root, _ = made
    bundle = linked(root, "1.6", None, tmp_path / "b")
    rows = pd.read_parquet(bundle / "cell_boundaries.parquet")
    last_first = rows.iloc[np.argsort(-rows.groupby("cell_id", sort=False).ngroup(), kind="stable")]
    (bundle / "cell_boundaries.parquet").unlink()
    last_first.to_parquet(bundle / "cell_boundaries.parquet", index=False)
    with pytest.raises(
        InputError, match=r"outlines in .*cell_boundaries.parquet' belong to other cells in cells.zarr.zip"
    ):
        sp.io.read_xenium(bundle, boundaries=True)


def test_the_old_name_of_unassigned_codewords_is_counted(made) -> None:
    root, _ = made
    for version, name in (("1.0", "Blank Codeword"), ("3.0", "Unassigned Codeword")):
        info = sp.io.read_xenium(root / version / "S1")["table"].uns["spatialsig"]["read_xenium"]
        assert name in info["features_dropped"]
        assert info["xoa"] == LAYOUTS[version]


def test_missing_images_are_named(made, tmp_path) -> None:
    root, _ = made
    bundle = linked(root, "3.0", None, tmp_path / "b")
    (bundle / "morphology_focus").unlink()
    with pytest.raises(FileMissingError, match=r"has no morphology images; wanted morphology_focus/ .*morphology_mip"):
        sp.io.read_xenium(bundle, morphology=True)
    (bundle / "morphology_focus.ome.tif").symlink_to(root / "1.6" / "S1" / "morphology_focus.ome.tif")
    with pytest.raises(InputError, match=r"images of XOA 1 but cells of XOA 2 and later"):
        sp.io.read_xenium(bundle, morphology=True)
