"""The layouts hold the same slide, and the unmodified reader of spatialdata-io takes every one of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import spatialdata as sd
import spatialdata_io
import tifffile
import zarr

import spatialsig as sp
from spatialsig.datasets.synthetic.bundle.cells import areas
from spatialsig.errors import InputError

VERSIONS = ["1.0", "1.6", "2.0", "3.0", "4.0", "atera-preview"]
STAINS = ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"]
FLAGS = (
    "cells_boundaries", "nucleus_boundaries", "cells_as_circles", "cells_labels", "nucleus_labels", "transcripts",
    "morphology_mip", "morphology_focus", "aligned_images", "cells_table",
)  # fmt: skip


def read_all(bundle):
    """Everything ``spatialdata_io.xenium`` can read; its complaints are failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # tifffile keeps the first page of a multi-file image when pims closes it
        warnings.filterwarnings("ignore", message=".*reading array from closed file")
        sdata = spatialdata_io.xenium(bundle, **dict.fromkeys(FLAGS, True))
        focus = np.asarray(sd.get_pyramid_levels(sdata["morphology_focus"], n=0))
    return sdata, focus


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """One small slide in every layout; those that can have four stains in the odd ones."""
    root = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        return {
            version: sp.datasets.synthetic_xenium(
                root / version, n_slides=1, size_um=180.0, seed=3, version=version,
                stains=4 if version in ("2.0", "4.0") else 1, he_in_bundle=version != "1.6",
            )
            for version in VERSIONS
        }  # fmt: skip


@pytest.fixture(scope="session")
def bundles(written):
    return {version: Path(frame["bundle"][0]) for version, frame in written.items()}


@pytest.fixture(scope="session")
def read(bundles):
    return {version: read_all(bundle) for version, bundle in bundles.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_reader_finds_every_element(read, version):
    sdata, focus = read[version]
    assert set(sdata.labels) == {"cell_labels", "nucleus_labels"}
    assert set(sdata.shapes) == {"cell_boundaries", "cell_circles", "nucleus_boundaries"}
    assert set(sdata.points) == {"transcripts"}
    mip = {"morphology_mip"} if version < "2" else set()
    he = {"he_image"} if version != "1.6" else set()
    assert set(sdata.images) == {"morphology_focus"} | mip | he
    names = sd.models.get_channel_names(sdata["morphology_focus"])
    assert list(names) == ([0] if version < "2" else STAINS[: len(focus)])
    assert len(focus) == (4 if version in ("2.0", "4.0") else 1)
    if mip:
        np.testing.assert_array_equal(sd.get_pyramid_levels(sdata["morphology_mip"], n=0), focus)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_layout_holds_the_same_slide(written, read, version):
    (sdata, focus), (other, other_focus) = read[version], read["3.0"]
    table, expected = sdata["table"], other["table"]
    assert (table.X != expected.X).nnz == 0
    assert list(table.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(table.obsm["spatial"], expected.obsm["spatial"])
    np.testing.assert_array_equal(table.obs["total_counts"], expected.obs["total_counts"])
    np.testing.assert_array_equal(focus[0], other_focus[0])
    for name in ("cell_labels", "nucleus_labels"):
        np.testing.assert_array_equal(*(sd.get_pyramid_levels(s[name], n=0) for s in (sdata, other)))
    for name in ("cell_boundaries", "nucleus_boundaries"):
        np.testing.assert_allclose(sdata[name].area.to_numpy(), other[name].area.to_numpy(), rtol=1e-9)
    molecules = [s["transcripts"][["x", "y", "z"]].compute().to_numpy() for s in (sdata, other)]
    np.testing.assert_array_equal(*molecules)
    he = [tifffile.imread(written[v]["he_image"][0]) for v in (version, "3.0")]
    np.testing.assert_array_equal(*he)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_truth_speaks_of_the_cells_of_the_bundle(written, read, version):
    truth = ad.read_h5ad(Path(written[version]["bundle"][0]).parent / "S1_truth.h5ad")
    table = read[version][0]["table"]
    np.testing.assert_array_equal(truth.obs["cell_id"].astype(str), table.obs["cell_id"].astype(str))
    np.testing.assert_array_equal(truth.obsm["spatial"], table.obsm["spatial"])


@pytest.mark.parametrize(
    ("version", "kind"), [("1.0", "int32"), ("1.6", "binary"), ("2.0", "string"), ("3.0", "string"), ("4.0", "string")]
)
def test_cell_ids_have_the_type_of_the_layout(bundles, version, kind):
    for name in ("cells", "cell_boundaries", "nucleus_boundaries", "transcripts"):
        schema = pq.read_schema(bundles[version] / f"{name}.parquet")
        assert str(schema.field("cell_id").type) == kind
        assert ("label_id" in schema.names) == (version >= "2" and name.endswith("boundaries"))
    ids = pq.read_table(bundles[version] / "transcripts.parquet")["cell_id"].to_pylist()
    assert {"int32": -1, "binary": b"UNASSIGNED", "string": "UNASSIGNED"}[kind] in ids


MOLECULES = ["transcript_id", "cell_id", "overlaps_nucleus", "feature_name", "x_location", "y_location", "z_location", "qv"]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "more"),
    [
        ("1.0", []),
        ("1.6", ["fov_name", "nucleus_distance"]),
        ("2.0", ["fov_name", "nucleus_distance", "codeword_index"]),
        ("4.0", ["fov_name", "nucleus_distance", "codeword_index", "codeword_category", "is_gene"]),
    ],
)
def test_molecules_have_the_columns_of_the_layout(bundles, version, more):
    schema = pq.read_schema(bundles[version] / "transcripts.parquet")
    assert schema.names == MOLECULES + more
    assert str(schema.field("feature_name").type) == ("binary" if version < "2" else "string")


@pytest.mark.parametrize("version", VERSIONS)
def test_codewords_without_a_gene_are_named_as_the_layout_does(bundles, version):
    with h5py.File(bundles[version] / "cell_feature_matrix.h5") as file:
        kinds = set(file["matrix/features/feature_type"].asstr()[:])
        names = file["matrix/features/name"].asstr()[:]
    assert ("Blank Codeword" in kinds) == (version == "1.0")
    assert ("Unassigned Codeword" in kinds) == (version != "1.0")
    assert any(name.startswith("BLANK_") for name in names) == (version == "1.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_segmentation_has_the_arrays_of_the_layout(bundles, version):
    with zarr.storage.ZipStore(bundles[version] / "cells.zarr.zip", read_only=True) as store:
        root = zarr.open_group(store, mode="r")
        n = root["cell_summary"].shape[0]
        assert root["cell_id"].shape == ((n,) if version == "1.0" else (n, 2))
        assert ("seg_mask_value" in root) == (version == "1.6")
        assert ("polygon_sets" in root) == (version >= "2")
        assert ("nucleus_count" in root["cell_summary"].attrs["column_names"]) == (version >= "2")
        if version < "2":
            rings = root["polygon_vertices"][1].reshape(n, -1, 2)[:, :-1]
            np.testing.assert_allclose(areas(rings.astype(float)), root["cell_summary"][:, 2], rtol=1e-3)


def test_morphology_files(bundles):
    found = {
        version: sorted(path.relative_to(bundle).as_posix() for path in bundle.glob("**/*morphology*.ome.tif"))
        + sorted(path.relative_to(bundle).as_posix() for path in bundle.glob("**/ch*.ome.tif"))
        for version, bundle in bundles.items()
    }
    assert found["1.0"] == found["1.6"] == ["morphology_focus.ome.tif", "morphology_mip.ome.tif"]
    assert found["2.0"] == [f"morphology_focus/morphology_focus_000{i}.ome.tif" for i in range(4)]
    assert found["3.0"] == ["morphology_focus/morphology_focus_0000.ome.tif"]
    assert [Path(name).name.split("_")[0] for name in found["4.0"]] == ["ch0000", "ch0001", "ch0002", "ch0003"]
    assert found["4.0"][0] == "morphology_focus/ch0000_dapi.ome.tif"


def test_manifest_names_its_version_and_images(bundles):
    for version, bundle in bundles.items():
        manifest = json.loads((bundle / "experiment.xenium").read_text())
        assert manifest["analysis_sw_version"].startswith(f"xenium-{version if version < 'a' else '4.0'}")
        assert all((bundle / name).exists() for name in manifest["images"].values())


def test_stains_lie_where_they_belong(read):
    sdata, focus = read["4.0"]
    cells, nuclei = (
        np.asarray(sd.get_pyramid_levels(sdata[name], n=0)) > 0 for name in ("cell_labels", "nucleus_labels")
    )
    _, boundary, rna, protein = focus.astype(float)
    for stain in (boundary, rna, protein):
        assert stain[cells].mean() > 3 * stain[~cells].mean()
    # membranes are at the rim of the cell, outside most of the nucleus
    assert boundary[cells & ~nuclei].mean() > 1.3 * boundary[nuclei].mean()


def test_he_beside_the_bundle(written, bundles):
    image, alignment = (Path(written["1.6"][name][0]) for name in ("he_image", "he_alignment"))
    assert image.parent == alignment.parent == bundles["1.6"].parent
    assert image.exists()
    assert not list(bundles["1.6"].glob("*he_image*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"version": "2.5"},
            r"`version='2.5'` is not known; choose one of \['1.0', .*'4.0', 'atera-preview', 'atera-1.0'\]",
        ),
        ({"version": 3.0}, "`version=3.0` .* a valid string"),
        ({"stains": 2}, r"`stains=2` is not known; choose one of \[1, 4\]"),
        ({"version": "1.6", "stains": 4}, "`stains=4` needs `version` \"2.0\" or later; got `version='1.6'`"),
    ],
)
def test_an_unknown_layout_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        sp.datasets.synthetic_xenium(tmp_path / "out", n_slides=1, **options)
    assert not (tmp_path / "out").exists()
