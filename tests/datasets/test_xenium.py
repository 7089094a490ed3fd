"""The folders are readable by others, deterministic, and refuse what makes no sense."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata_io
import tifffile
from spatialdata import get_pyramid_levels
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError


@pytest.fixture(scope="module")
def read(cohort):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return spatialdata_io.xenium(cohort["bundle"][0])


def full_resolution(element):
    return np.asarray(get_pyramid_levels(element, n=0))


def truth_of(cohort, row=0):
    return ad.read_h5ad(Path(cohort["bundle"][row]).parent / f"{cohort['sample'][row]}_truth.h5ad")


def test_spatialdata_io_reads_every_element(read):
    assert set(read.images) == {"he_image", "morphology_focus"}
    assert set(read.labels) == {"cell_labels", "nucleus_labels"}
    assert set(read.shapes) == {"cell_boundaries", "nucleus_boundaries"}
    assert set(read.points) == {"transcripts"}
    assert read["cell_boundaries"].is_valid.all()
    assert read["nucleus_boundaries"].is_valid.all()


def test_spatialdata_io_finds_the_alignment(cohort, read):
    written = np.loadtxt(cohort["he_alignment"][0], delimiter=",")
    np.testing.assert_allclose(get_transformation(read["he_image"]).matrix, written, rtol=1e-12)


def test_labels_at_the_nuclei_are_the_row_numbers(read):
    column, row = np.floor(read["table"].obsm["spatial"] / 0.2125).astype(int).T
    numbers = np.arange(1, read["table"].n_obs + 1)
    np.testing.assert_array_equal(full_resolution(read["cell_labels"])[row, column], numbers)
    np.testing.assert_array_equal(full_resolution(read["nucleus_labels"])[row, column], numbers)


def test_raster_and_polygon_areas_agree(read):
    pixels = np.bincount(full_resolution(read["cell_labels"]).ravel())[1:] * 0.2125**2
    polygons = read["cell_boundaries"].area.to_numpy()
    np.testing.assert_allclose(pixels, polygons, rtol=0.05)
    np.testing.assert_allclose(read["table"].obs["cell_area"], polygons, rtol=1e-4)


def test_dapi_is_bright_in_the_nuclei(read):
    dapi = full_resolution(read["morphology_focus"])[0]
    nuclei = full_resolution(read["nucleus_labels"]) > 0
    assert dapi.dtype == np.uint16
    assert dapi[nuclei].mean() > 5 * dapi[~nuclei].mean()


def test_transcripts_add_up_to_the_matrix(cohort, read):
    molecules = read["transcripts"].compute()
    assigned = molecules[(molecules["cell_id"] != "UNASSIGNED") & molecules["is_gene"]]
    assert (molecules.loc[assigned.index, "qv"] >= 20).all()
    counted = pd.crosstab(assigned["cell_id"].astype(str), assigned["feature_name"].astype(str))
    expected = read["table"].to_df().reindex(index=counted.index, columns=counted.columns)
    np.testing.assert_array_equal(counted.to_numpy(), expected.to_numpy())


def test_cells_carry_xenium_ids_out_of_spatial_order(read):
    ids = read["table"].obs["cell_id"].astype(str)
    assert ids.str.fullmatch(r"[a-p]{8}-1").all()
    assert ids.is_unique
    assert abs(np.corrcoef(np.argsort(np.argsort(ids)), read["table"].obsm["spatial"][:, 0])[0, 1]) < 0.1


def test_manifest_is_relative_in_the_file_and_absolute_in_the_frame(cohort):
    root = Path(cohort["bundle"][0]).parent
    stored = pd.read_csv(root / "bundles.csv")
    assert list(stored) == ["sample", "patient", "bundle", "he_image", "he_alignment"]
    for column in ("bundle", "he_image", "he_alignment"):
        assert [str(root / path) for path in stored[column]] == list(cohort[column])
        assert all(Path(path).is_absolute() and Path(path).exists() for path in cohort[column])
    assert list(cohort["patient"]) == ["P1", "P2"]


def test_he_is_a_pyramid_with_its_pixel_size(cohort):
    with tifffile.TiffFile(cohort["he_image"][0]) as file:
        levels = [level.shape for level in file.series[0].levels]
        assert 'PhysicalSizeX="0.2738"' in file.ome_metadata
        assert file.pages[0].compression.name == "JPEG"
        assert file.pages[0].is_tiled
    assert len(levels) > 1
    for larger, smaller in itertools.pairwise(levels):
        assert smaller == (larger[0] // 2, larger[1] // 2, 3)


def test_slides_lie_in_different_ways(cohort):
    first, second = (np.loadtxt(path, delimiter=",")[:2, :2] for path in cohort["he_alignment"])
    assert np.linalg.det(first) > 0 > np.linalg.det(second)
    assert abs(first[0, 1]) > 0.99 * abs(np.linalg.det(first)) ** 0.5
    for matrix in (first, second):
        assert np.sqrt(abs(np.linalg.det(matrix))) == pytest.approx(0.2738 / 0.2125)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """A function that writes tiny slides and returns the frame."""

    def write(**options):
        options = {"n_slides": 1, "size_um": 150.0, "seed": 3, "transcripts": False} | options
        return sp.datasets.synthetic_xenium(tmp_path_factory.mktemp("tiny"), **options)

    return write


def content(frame, row):
    bundle = Path(frame["bundle"][row])
    truth = truth_of(frame, row)
    matrix = sc.read_10x_h5(bundle / "cell_feature_matrix.h5", gex_only=False)
    cells = pd.read_parquet(bundle / "cells.parquet")
    image = tifffile.imread(frame["he_image"][row])
    molecules = pd.read_parquet(bundle / "transcripts.parquet")
    return truth.X, truth.obsm["he_px"], matrix.X.toarray(), cells, image, molecules


def same(one, other):
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


def test_same_seed_same_slide_whatever_the_number_of_slides_or_threads(smallest, monkeypatch):
    alone = content(smallest(), 0)
    monkeypatch.setattr(sp.settings, "threads", 1)
    pair = smallest(n_slides=2)
    assert same(alone, content(pair, 0))
    assert not same(alone, content(pair, 1))
    assert not same(alone, content(smallest(seed=4), 0))


def test_slides_of_one_patient_share_it(smallest):
    assert list(smallest(n_slides=3, n_patients=2)["patient"]) == ["P1", "P2", "P1"]


def test_registration_error_is_the_shift_between_file_and_truth(smallest):
    frame = smallest(registration_error_um=25.0)
    truth = truth_of(frame)
    believed = np.loadtxt(frame["he_alignment"][0], delimiter=",")
    he = np.c_[truth.obsm["he_px"], np.ones(truth.n_obs)]
    um = 0.2125 * (he @ believed.T)[:, :2]
    np.testing.assert_allclose(np.linalg.norm(um - truth.obsm["spatial"], axis=1), 25.0, rtol=1e-9)


def test_rotation_can_be_chosen(smallest):
    matrix = np.loadtxt(smallest(rotation_deg=30.0)["he_alignment"][0], delimiter=",")
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_slides": 0}, "`n_slides=0` .* greater than or equal to 1"),
        ({"size_um": -1.0}, "`size_um=-1.0` .* must be greater than 0"),
        ({"image_signal": 1.5}, "`image_signal=1.5` .* less than or equal to 1"),
        ({"stain_sd": -0.1}, "`stain_sd=-0.1` .* greater than or equal to 0"),
        ({"rotation_deg": [1.0, 2.0]}, r"one per slide \(1\); got 2 numbers"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        sp.datasets.synthetic_xenium(tmp_path / "out", **({"n_slides": 1} | option))
    assert not (tmp_path / "out").exists()


def test_an_existing_bundle_is_never_overwritten(tmp_path):
    (tmp_path / "S1").mkdir()
    with pytest.raises(InputError, match="already holds"):
        sp.datasets.synthetic_xenium(tmp_path, n_slides=1)
