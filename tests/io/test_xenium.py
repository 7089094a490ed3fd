from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import (
    AlignmentError,
    FileMissingError,
    InputError,
    SpatialsigError,
    SpatialsigWarning,
    StoreError,
)
from spatialsig.geometry.affine import apply, um_to_he_px

from .conftest import HE_SHAPE, N_GENES, PIXEL_SIZE, alignment, write_bundle

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
real = pytest.mark.real


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"real data {path.name} is not beside the checkout")
    return path


@pytest.fixture(scope="module", params=["lazy", "out", "mirrored"])
def case(tmp_path_factory, request):
    """A bundle and the object read from it, left as they are by the tests."""
    directory = tmp_path_factory.mktemp("case")
    bundle = write_bundle(directory / "S1", mirror=request.param == "mirrored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        out = directory / "out" / "s.zarr" if request.param == "out" else None
        return bundle, sp.io.read_xenium(bundle.path, patient="P1", out=out)


def test_counts_are_the_genes_in_the_order_of_the_barcodes(case) -> None:
    bundle, sdata = case
    table = sdata["table"]
    assert sparse.isspmatrix_csr(table.X) or isinstance(table.X, sparse.csr_array)
    assert table.X.dtype == np.float32
    np.testing.assert_array_equal(table.X.toarray(), bundle.counts[:, :N_GENES])
    assert table.obs["cell_id"].tolist() == bundle.cell_ids
    np.testing.assert_allclose(table.obsm["spatial"], bundle.xy_um)
    assert table.obsm["spatial"].dtype == np.float64
    np.testing.assert_array_equal(table.obs["total_counts"], bundle.counts.sum(1))
    assert table.var_names.is_unique
    assert table.var["gene_ids"].tolist() == [f"ENSG{i:05d}" for i in range(N_GENES)]
    assert set(table.obs["sample"]) == {"S1"}
    assert set(table.obs["patient"]) == {"P1"}


def test_what_was_left_out_is_counted(case) -> None:
    bundle, sdata = case
    info = sdata["table"].uns["spatialsig"]["read_xenium"]
    assert info["features_dropped"] == {"Negative Control Probe": 3, "Unassigned Codeword": 1}
    controls = bundle.counts[:, N_GENES : N_GENES + 3].sum()
    assert info["counts_dropped"] == {
        "Negative Control Probe": controls,
        "Unassigned Codeword": bundle.counts[:, -1].sum(),
    }
    assert info["cells_dropped_without_position"] == 0


def test_the_matrices_of_the_cases_turn_and_mirror(case) -> None:
    bundle, _ = case
    assert abs(bundle.matrix[0, 1]) > 0.5 * abs(bundle.matrix[0, 0])
    assert np.linalg.det(bundle.matrix) != pytest.approx(1, abs=0.1)


def test_image_is_the_file_pixel_by_pixel(case) -> None:
    bundle, sdata = case
    image = sdata["he_image"]["scale0"]["image"]
    np.testing.assert_array_equal(image.transpose("y", "x", "c").values, bundle.pixels)
    assert image.coords["c"].values.tolist() == ["r", "g", "b"]
    assert image.dtype == np.uint8
    half = bundle.pixels.reshape(350, 2, 450, 2, 3).astype(float).mean((1, 3))
    np.testing.assert_array_equal(sdata["he_image"]["scale1"]["image"].values, np.floor(half + 0.5).transpose(2, 0, 1))


def test_every_cell_lands_on_its_he_pixel(case) -> None:
    """The oracle is the planted H&E position, through the transformations that spatialdata sees."""
    bundle, sdata = case
    to_he = get_transformation(sdata["he_image"]).inverse()
    circles = sd.transform(sdata["cell_circles"], to_coordinate_system="global")
    global_xy = np.stack([circles.geometry.x, circles.geometry.y], axis=1)
    np.testing.assert_allclose(
        apply(to_he.to_affine_matrix(("x", "y"), ("x", "y")), global_xy), bundle.he_xy, atol=1e-8
    )
    own = apply(um_to_he_px(bundle.matrix, PIXEL_SIZE), sdata["table"].obsm["spatial"])
    np.testing.assert_allclose(own, bundle.he_xy, atol=1e-8)


def test_table_annotates_the_circles(case) -> None:
    bundle, sdata = case
    region, region_key, instance_key = sd.models.get_table_keys(sdata["table"])
    assert (region, region_key, instance_key) == ("cell_circles", "region", "cell_id")
    assert sdata["cell_circles"].index.tolist() == sdata["table"].obs["cell_id"].tolist()
    np.testing.assert_allclose(sdata["cell_circles"]["radius"], bundle.radius_um)
    _, joined = sd.join_spatialelement_table(sdata=sdata, spatial_element_names="cell_circles", table_name="table")
    assert len(joined) == len(bundle.cell_ids)


def test_attrs_hold_names_and_scale(case) -> None:
    bundle, sdata = case
    attrs = sdata.attrs["spatialsig"]
    assert attrs["sample"] == "S1"
    assert attrs["patient"] == "P1"
    assert attrs["um_per_global_px"] == PIXEL_SIZE
    assert attrs["source"]["bundle"] == str(bundle.path.resolve())
    assert attrs["source"]["he_alignment"] == str(bundle.he_alignment.resolve())


def test_agrees_with_the_unmodified_reader(case) -> None:
    """spatialdata_io needs cells.zarr.zip even for a lean read; only its table and image code is compared here."""
    bundle, sdata = case
    from spatialdata_io.readers import xenium as peer

    image = peer.xenium_aligned_image(bundle.he_image, bundle.he_alignment)
    ours = get_transformation(sdata["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    theirs = get_transformation(image).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    pixels = image.data.compute() if not hasattr(image, "children") else image["scale0"]["image"].values
    np.testing.assert_array_equal(sdata["he_image"]["scale0"]["image"].values, pixels)


@pytest.mark.parametrize("kind", ["int", "bytes"])
def test_ids_of_every_type_become_text(tmp_path, kind) -> None:
    bundle = write_bundle(tmp_path / "S", id_kind=kind)
    table = sp.io.read_xenium(bundle.path)["table"]
    assert table.obs["cell_id"].tolist() == bundle.cell_ids
    np.testing.assert_allclose(table.obsm["spatial"], bundle.xy_um)


def test_bundle_without_he_gives_cells_only(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "S", he=False)
    sdata = sp.io.read_xenium(bundle.path, out=tmp_path / "s.zarr")
    assert not sdata.images
    assert sdata.attrs["spatialsig"]["source"]["he_image"] is None
    assert sdata.attrs["spatialsig"]["patient"] == "S"  # asked for nothing: the sample's


def test_keys_and_files_can_be_given(tmp_path) -> None:
    plain, other = write_bundle(tmp_path / "A", he=False), write_bundle(tmp_path / "B")
    sdata = sp.io.read_xenium(
        plain.path, he_image=other.he_image, he_alignment=other.matrix, image_key="he", table_key="cells", sample="x"
    )
    assert set(sdata.images) == {"he"}
    assert set(sdata.tables) == {"cells"}
    assert set(sdata["cells"].obs["sample"]) == {"x"}


def test_cells_without_a_place_are_dropped_and_counted(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "S")
    cells = pd.read_parquet(bundle.path / "cells.parquet")
    assert len(cells) == 50  # one of 50 is 2 %: too many
    bundle.edit_cells(lambda c: c.assign(x_centroid=c["x_centroid"].where(c.index != 7)))
    with pytest.raises(InputError, match=r"1 of 50 cells .*cells.parquet' have no finite centroid; at most 1%"):
        sp.io.read_xenium(bundle.path)


def test_one_percent_without_a_place_is_tolerated(tmp_path, monkeypatch) -> None:
    from spatialsig.io.xenium import cells

    monkeypatch.setattr(cells, "MAX_WITHOUT_POSITION", 0.02)
    bundle = write_bundle(tmp_path / "S")
    lost = pd.read_parquet(bundle.path / "cells.parquet")["cell_id"][7]
    bundle.edit_cells(lambda c: c.assign(y_centroid=c["y_centroid"].where(c.index != 7, np.inf)))
    with pytest.warns(
        SpatialsigWarning, match=r"1 of 50 cells .*cells.parquet' have no finite centroid and are left out"
    ):
        sdata = sp.io.read_xenium(bundle.path)
    kept = [i for i in bundle.cell_ids if i != lost]
    assert sdata["table"].obs["cell_id"].tolist() == kept
    rows = [bundle.cell_ids.index(i) for i in kept]
    np.testing.assert_array_equal(sdata["table"].X.toarray(), bundle.counts[rows, :N_GENES])
    assert sdata["table"].uns["spatialsig"]["read_xenium"]["cells_dropped_without_position"] == 1


def test_unknown_areas_get_the_median_radius(bundle) -> None:
    bundle.edit_cells(lambda c: c.assign(cell_area=c["cell_area"].where(c["cell_id"] != bundle.cell_ids[0])))
    radius = sp.io.read_xenium(bundle.path)["cell_circles"]["radius"].to_numpy()
    assert radius[0] == pytest.approx(np.sqrt(np.median(bundle.radius_um[1:] ** 2)))
    np.testing.assert_allclose(radius[1:], bundle.radius_um[1:])


def test_an_existing_store_is_kept(tmp_path) -> None:
    bundle, out = write_bundle(tmp_path / "S1", he=False), tmp_path / "s.zarr"
    sp.io.read_xenium(bundle.path, out=out, sample="first")
    with pytest.raises(StoreError, match=r"already exists; pass `overwrite=True`"):
        sp.io.read_xenium(bundle.path, out=out, sample="second")
    assert sp.io.read(out).attrs["spatialsig"]["sample"] == "first"
    sp.io.read_xenium(bundle.path, out=out, sample="second", overwrite=True)
    assert sp.io.read(out).attrs["spatialsig"]["sample"] == "second"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _indices_out_of_range(b) -> None:
    import h5py

    with h5py.File(b.path / "cell_feature_matrix.h5", "r+") as file:
        file["matrix/indices"][3] = 10**9


def _counts(b, value: float) -> None:
    import h5py

    with h5py.File(b.path / "cell_feature_matrix.h5", "r+") as file:
        data = file["matrix/data"][()].astype(float)
    data[0] = value
    b.edit_matrix(data=data)


def _by_features(b) -> None:
    csr = sparse.csr_matrix(b.counts.T)
    b.edit_matrix(data=csr.data, indices=csr.indices.astype(np.int64), indptr=csr.indptr.astype(np.int64))


FAULTS = {
    "files missing": (
        lambda b: [(b.path / n).unlink() for n in ("cells.parquet", "experiment.xenium")],
        FileMissingError,
        r"experiment.xenium'.*cells.parquet'",
    ),
    "no alignment": (lambda b: b.he_alignment.unlink(), AlignmentError, "has no alignment.*he_alignment="),
    "alignment singular": (
        lambda b: np.savetxt(b.he_alignment, np.diag([0.0, 0, 1]), delimiter=","),
        AlignmentError,
        "imagealignment.csv' is singular",
    ),
    "alignment NaN": (
        lambda b: np.savetxt(b.he_alignment, np.full((3, 3), np.nan), delimiter=","),
        AlignmentError,
        "9 NaN or infinite",
    ),
    "alignment inverse": (
        lambda b: np.savetxt(b.he_alignment, np.linalg.inv(b.matrix), delimiter=","),
        AlignmentError,
        "outside the H&E of 700 x 900 px.*it fits as its inverse",
    ),
    "alignment with axes swapped": (
        lambda b: np.savetxt(b.he_alignment, b.matrix[:, [1, 0, 2]], delimiter=","),
        AlignmentError,
        "outside the H&E.*x and y swapped",
    ),
    "alignment in um": (
        lambda b: np.savetxt(b.he_alignment, np.diag([PIXEL_SIZE, PIXEL_SIZE, 1]) @ b.matrix, delimiter=","),
        AlignmentError,
        "implies an H&E pixel of 0.0406 um; wanted 0.1-2.0 um.*not to um",
    ),
    "alignment of another slide": (
        lambda b: np.savetxt(b.he_alignment, alignment(shift=(9e4, 9e4)), delimiter=","),
        AlignmentError,
        "100% of 50 cells outside the H&E.*check that image, matrix and bundle are of one slide",
    ),
    "two images": (
        lambda b: (b.path / "other_he_image.ome.tif").write_bytes(b""),
        InputError,
        r"holds 2 H&E images: \['other_he_image.ome.tif', 'slide_he_image.ome.tif'\]; choose one",
    ),
    "pixel_size missing": (lambda b: b.edit_specs(pixel_size=...), InputError, "`pixel_size` in .* is None"),
    "pixel_size 0": (lambda b: b.edit_specs(pixel_size=0), InputError, "`pixel_size` .* is 0; wanted um"),
    "pixel_size NaN": (lambda b: b.edit_specs(pixel_size=float("nan")), InputError, "`pixel_size` .* is nan"),
    "pixel_size text": (lambda b: b.edit_specs(pixel_size="0.2125"), InputError, "is '0.2125'"),
    "pixel_size x 10": (lambda b: b.edit_specs(pixel_size=2.125), InputError, "is 2.125; wanted um per morphology px"),
    "specs truncated": (lambda b: _truncate(b.path / "experiment.xenium"), InputError, "no valid JSON"),
    "specs a list": (
        lambda b: (b.path / "experiment.xenium").write_text("[]"),
        InputError,
        "experiment.xenium' holds a list; wanted fields as `pixel_size`",
    ),
    "h5 truncated": (lambda b: _truncate(b.path / "cell_feature_matrix.h5"), InputError, "cannot be read as HDF5"),
    "h5 empty": (
        lambda b: (b.path / "cell_feature_matrix.h5").write_bytes(b""),
        InputError,
        "cannot be read as HDF5",
    ),
    "h5 without features": (lambda b: b.edit_matrix(features=None), InputError, "no dataset.s. .*features/id"),
    "h5 index out of range": (
        _indices_out_of_range,
        InputError,
        "indices 0 to 1000000000 in cells 1 to 50, out of range for 16",
    ),
    "h5 by features": (_by_features, InputError, "stored by features; wanted one row of values per cell"),
    "h5 negative counts": (lambda b: _counts(b, -1), InputError, "1 counts that are negative or no whole"),
    "h5 fractional counts": (lambda b: _counts(b, 0.5), InputError, "1 counts that are negative or no whole"),
    "h5 NaN counts": (lambda b: _counts(b, np.nan), InputError, "1 counts that are negative or no whole"),
    "h5 wrong shape": (
        lambda b: b.edit_matrix(shape=np.array([3, 3])),
        InputError,
        r"says shape \[3, 3\] but names 16",
    ),
    "h5 no genes": (
        lambda b: b.edit_matrix(**{"features/feature_type": np.array([b"Protein Expression"] * 16)}),
        InputError,
        r"no features of type 'Gene Expression'; it has \['Protein Expression'\]",
    ),
    "parquet truncated": (lambda b: _truncate(b.path / "cells.parquet"), InputError, "cannot be read as parquet"),
    "parquet without centroids": (
        lambda b: b.edit_cells(lambda c: c.drop(columns="x_centroid")),
        InputError,
        r"no column\(s\) \['x_centroid'\]",
    ),
    "parquet centroids as text": (
        lambda b: b.edit_cells(lambda c: c.assign(x_centroid=c["x_centroid"].astype(str))),
        InputError,
        r"column\(s\) \['x_centroid'\] .* hold no numbers",
    ),
    "duplicated cells": (
        lambda b: b.edit_cells(lambda c: pd.concat([c, c.iloc[:2]])),
        InputError,
        "cells.parquet' lists 2 cell ids more than once",
    ),
    "cells without match": (
        lambda b: b.edit_cells(lambda c: c.iloc[3:]),
        InputError,
        "3 cells of cell_feature_matrix.h5 are not in cells.parquet and 0 the other way",
    ),
    "gray image": (
        lambda b: b.write_he(b.pixels[..., 0], photometric="minisblack", metadata={"axes": "YX"}),
        InputError,
        r"is uint8 with axes YX of shape \(700, 900\); wanted 8-bit RGB",
    ),
    "16-bit image": (lambda b: b.write_he(b.pixels.astype(np.uint16) * 100), InputError, "16"),
    "float image": (lambda b: b.write_he(b.pixels.astype(np.float32)), InputError, "is float32 with axes YXS"),
    "transparent image": (
        lambda b: b.write_he(np.dstack([b.pixels, np.full(HE_SHAPE, 254, np.uint8)]), extrasamples=["unassalpha"]),
        InputError,
        r"is transparent at y 0-\d+, x 0-900 px",
    ),
    "image truncated": (
        lambda b: _truncate(b.he_image),
        InputError,
        "he_image.ome.tif' is (truncated|not a whole TIFF)",
    ),
    "image empty": (lambda b: b.he_image.write_bytes(b""), InputError, "he_image.ome.tif' is not a whole"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_and_nothing_is_written(bundle, tmp_path, fault) -> None:
    spoil, error, message = FAULTS[fault]
    spoil(bundle)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=rf"(?s){message}") as caught:
        sp.io.read_xenium(bundle.path, out=tmp_path / "s.zarr")
    assert isinstance(caught.value, SpatialsigError)
    assert sorted(tmp_path.rglob("*")) == before


def test_corrupt_tile_names_the_place(bundle, tmp_path) -> None:
    import tifffile

    with tifffile.TiffFile(bundle.he_image) as tif:
        offset = tif.pages.first.dataoffsets[0]
    data = bytearray(bundle.he_image.read_bytes())
    data[offset : offset + 200] = b"\xff" * 200
    bundle.he_image.write_bytes(data)
    with pytest.raises(InputError, match=r"he_image.ome.tif' cannot be decoded at y 0-\d+, x 0-900 px"):
        sp.io.read_xenium(bundle.path, out=tmp_path / "s.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["S1"]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("rgba", {"extrasamples": ["unassalpha"]}),
        ("planar", {"planarconfig": "separate", "metadata": {"axes": "SYX"}}),
        ("strips", {"tile": None, "rowsperstrip": 16}),
        ("jpeg tiles of 240", {"tile": (240, 240)}),
    ],
)
def test_other_forms_of_rgb_give_the_same_pixels(bundle, tmp_path, shape, options) -> None:
    pixels = bundle.pixels
    if shape == "rgba":
        pixels = np.dstack([pixels, np.full(HE_SHAPE, 255, np.uint8)])
    elif shape == "planar":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    bundle.write_he(pixels, **options)
    for sdata in (sp.io.read_xenium(bundle.path), sp.io.read_xenium(bundle.path, out=tmp_path / "s.zarr")):
        np.testing.assert_array_equal(
            sdata["he_image"]["scale0"]["image"].transpose("y", "x", "c").values, bundle.pixels
        )


def test_alignment_without_an_image_is_refused(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "S", he=False)
    with pytest.raises(InputError, match=r"has no H&E image; give `he_image=` too"):
        sp.io.read_xenium(bundle.path, he_alignment=alignment())


def test_wrong_path_is_named() -> None:
    with pytest.raises(FileMissingError, match=r"bundle 'nowhere' does not exist"):
        sp.io.read_xenium("nowhere")


@real
def test_real_bundle_loads_and_returns(tmp_path) -> None:
    path = need(REAL / "xenium_mouse_ileum_tiny")
    sdata = sp.io.read_xenium(path)
    assert sdata["table"].shape == (23, 5006)
    assert sdata["table"].X.nnz == 29  # 30 non-zeros, one of them on an unassigned codeword
    assert sdata["table"].uns["spatialsig"]["read_xenium"]["counts_dropped"]["Unassigned Codeword"] == 1
    sp.io.write(sdata, tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert (back["table"].X != sdata["table"].X).nnz == 0
    specs = json.loads((path / "experiment.xenium").read_text())
    assert back.attrs["spatialsig"]["um_per_global_px"] == specs["pixel_size"]


@real
def test_real_bundle_equals_the_unmodified_reader() -> None:
    from spatialdata_io import xenium

    path = need(REAL / "xenium_mouse_ileum_tiny")
    off = dict.fromkeys(["cells_boundaries", "nucleus_boundaries", "cells_labels", "nucleus_labels"], False)
    peer = xenium(path, **off, cells_as_circles=True, transcripts=False, morphology_mip=False, morphology_focus=False)
    ours = sp.io.read_xenium(path)
    assert (ours["table"].X != peer["table"].X).nnz == 0
    assert ours["table"].var_names.equals(peer["table"].var_names)
    np.testing.assert_array_equal(ours["table"].obsm["spatial"], peer["table"].obsm["spatial"])
    pd.testing.assert_frame_equal(pd.DataFrame(ours["cell_circles"]), pd.DataFrame(peer["cell_circles"]))
    assert get_transformation(ours["cell_circles"]) == get_transformation(peer["cell_circles"])


@real
def test_real_boundaries_and_transcripts_come_on_request() -> None:
    path = need(REAL / "xenium_mouse_ileum_tiny")
    sdata = sp.io.read_xenium(path, boundaries=True, transcripts=True)
    assert {"cell_boundaries", "nucleus_boundaries", "cell_circles"} <= set(sdata.shapes)
    assert "transcripts" in sdata.points
    assert not sdata.images
