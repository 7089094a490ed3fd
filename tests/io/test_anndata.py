from __future__ import annotations

import anndata as ad
import dask.array as da
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from scipy import sparse
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning

UM = 0.7


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(2)
    spots = ad.AnnData(
        sparse.csc_matrix(rng.poisson(2, (30, 5)).astype(np.int64)),
        obs=pd.DataFrame({"zone": pd.Categorical(["a", "b"] * 15)}, index=[f"{i}x{i}" for i in range(30)]),
        var=pd.DataFrame(index=["CD3D", "CD3E", "CD3E", "MKI67", "DCN"]),
    )
    spots.obsm["spatial"] = rng.uniform(0, [400, 300], (30, 2))
    spots.obsm["X_pca"] = rng.normal(size=(30, 3))
    spots.uns["spatial"] = {"lib": {"images": {"hires": np.zeros((2, 2, 3))}}}
    return spots


@pytest.mark.parametrize("where", ["array", "path", "store"])
def test_positions_land_on_their_pixels(adata, pixels, tmp_path, where) -> None:
    imagecodecs.imwrite(tmp_path / "section_C2.png", pixels)
    image = pixels if where == "array" else tmp_path / "section_C2.png"
    out = tmp_path / "s.zarr" if where == "store" else None
    sdata = sp.io.from_anndata(adata, image, um_per_px=UM, patient="C", spot_um=100, out=out)
    table = sdata["table"]
    np.testing.assert_array_equal(table.X.toarray(), adata.X.toarray())
    assert table.X.format == "csr"
    assert table.X.dtype == np.float32
    np.testing.assert_allclose(table.obsm["spatial"], adata.obsm["spatial"] * UM)
    np.testing.assert_allclose(table.obsm["X_pca"], adata.obsm["X_pca"])
    circles = sd.transform(sdata["cell_circles"], to_coordinate_system="global")
    np.testing.assert_allclose(np.c_[circles.geometry.x, circles.geometry.y], adata.obsm["spatial"])
    np.testing.assert_allclose(circles["radius"], 50 / UM)
    to_global = get_transformation(sdata["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_array_equal(to_global, np.eye(3))
    np.testing.assert_array_equal(sdata["he_image"]["scale0"]["image"].values, np.moveaxis(pixels, 2, 0))
    assert sdata.attrs["spatialsig"]["um_per_global_px"] == UM
    assert set(table.obs["sample"]) == {"slide" if where == "array" else "section_C2"}
    assert set(table.obs["patient"]) == {"C"}
    assert table.obs["cell_id"].tolist() == adata.obs_names.tolist()
    assert table.obs["zone"].tolist() == adata.obs["zone"].tolist()
    assert table.var_names.tolist() == ["CD3D", "CD3E", "CD3E-1", "MKI67", "DCN"]
    assert table.var["gene_ids"].tolist() == ["CD3D", "CD3E", "CD3E", "MKI67", "DCN"]
    assert sd.models.get_table_keys(table) == ("cell_circles", "region", "cell_id")
    assert table.uns["spatialsig"]["from_anndata"]["cells_outside_image"] == 0


def test_micrometres_are_taken_as_they_are(adata, pixels) -> None:
    px = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    adata.obsm["um"] = adata.obsm["spatial"] * UM
    um = sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key="um", spatial_unit="um")
    np.testing.assert_allclose(um["table"].obsm["spatial"], px["table"].obsm["spatial"])
    np.testing.assert_allclose(um["cell_circles"]["radius"], 5.0)


def test_positions_in_columns_of_obs(adata, pixels) -> None:
    expected = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    adata.obs["cx"], adata.obs["cy"] = adata.obsm.pop("spatial").T
    sdata = sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("cx", "cy"))
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], expected["table"].obsm["spatial"])
    with pytest.raises(
        KeyMissingError, match=r"`spatial_key='x'` is not in adata.obs; available: \['cx', 'cy', 'zone'\]"
    ):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("x", "cy"))
    with pytest.raises(InputError, match=r"adata.obs\[\['zone', 'cy'\]\] is object of shape \(30, 2\); wanted"):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, spatial_key=("zone", "cy"))


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("unit", ["um", "px"])
def test_a_matrix_carries_positions_to_the_image(adata, pixels, unit, mirror) -> None:
    px = adata.obsm["spatial"]
    angle, scale, shift = 0.4, 1 / UM, np.array([-700.0, 5000.0])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, mirror])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    adata.obsm["spatial"] = (px - shift) @ np.linalg.inv(linear).T
    options = {} if unit == "um" else {"um_per_px": 0.3}
    sdata = sp.io.from_anndata(adata, pixels, spatial_unit=unit, to_image=matrix, **options)
    um = UM if unit == "um" else 0.3
    assert sp.io.mpp(sdata) == pytest.approx(um)
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], px * um)


def test_the_file_says_the_pixel_size_when_nobody_else_does(adata, pixels, tmp_path) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.35, "PhysicalSizeY": 0.35}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True, metadata=metadata)
    assert sp.io.mpp(sp.io.from_anndata(adata, tmp_path / "a.ome.tif")) == pytest.approx(0.35)
    with pytest.warns(SpatialsigWarning, match=r"says that its px are 0.35 um, but .* 0.7 um, 2 times"):
        sp.io.from_anndata(adata, tmp_path / "a.ome.tif", um_per_px=UM)
    with pytest.raises(InputError, match=r"image 'array' does not say how large its pixels are; pass `um_per_px=`"):
        sp.io.from_anndata(adata, pixels)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"has shape \(2, 2\); wanted a \(3, 3\) affine"),
        (np.diag([1, 0, 1]), "is singular"),
        (np.ones((3, 3)), r"has the last row \[1.0, 1.0, 1.0\]"),
        (np.diag([np.nan, 1, 1]), "numbers that are not finite"),
    ],
)
def test_matrices_that_are_no_map_are_refused(adata, pixels, matrix, message) -> None:
    with pytest.raises(InputError, match=rf"`to_image` .*{message}"):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, to_image=matrix)


def test_the_input_stays_as_it_is(adata, pixels) -> None:
    before = adata.copy()
    sp.io.from_anndata(adata, pixels, um_per_px=UM)
    assert adata.obs.equals(before.obs)
    assert list(adata.obsm) == list(before.obsm)
    assert (adata.X != before.X).nnz == 0


def test_what_lies_outside_is_counted(adata, pixels) -> None:
    adata.obsm["spatial"][:5, 0] += 1000
    sdata = sp.io.from_anndata(adata, pixels, um_per_px=UM)
    assert sdata["table"].uns["spatialsig"]["from_anndata"]["cells_outside_image"] == 5
    adata.obsm["spatial"][5:8, 1] -= 1000
    with pytest.raises(
        InputError, match=r"8 of 30 positions lie outside the image of 300 x 400 px .*spatial_unit='px'"
    ):
        sp.io.from_anndata(adata, pixels, um_per_px=UM)


def test_positions_that_are_lost_are_dropped_up_to_one_percent(adata, pixels) -> None:
    adata.var_names_make_unique()
    many = ad.concat([adata] * 4, index_unique="-")
    many.obsm["spatial"][7] = np.nan
    with pytest.warns(SpatialsigWarning, match="1 of 120 positions are not finite; these cells are left out"):
        sdata = sp.io.from_anndata(many, pixels, um_per_px=UM)
    assert sdata["table"].n_obs == 119
    assert many.obs_names[7] not in sdata["table"].obs_names
    assert sdata["table"].uns["spatialsig"]["from_anndata"]["cells_dropped_without_position"] == 1
    many.obsm["spatial"][8] = np.inf
    with pytest.raises(InputError, match=r"adata.obsm\['spatial'\]: 2 of 120 positions are not finite; at most 1%"):
        sp.io.from_anndata(many, pixels, um_per_px=UM)


def normalised(adata: ad.AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray())


FAULTS = {
    "normalised": (normalised, r"adata.X must hold raw counts .* Put raw counts into adata.X"),
    "negative": (lambda a: setattr(a, "X", -a.X), "must hold raw counts .* found values from -"),
    "NaN": (lambda a: setattr(a, "X", np.full(a.shape, np.nan)), "must hold raw counts"),
    "no X": (lambda a: setattr(a, "X", None), "adata.X is empty; wanted raw counts"),
    "one name twice": (lambda a: setattr(a, "obs_names", ["x"] * 30), "obs_names are not unique, as 'x'"),
    "three columns": (
        lambda a: a.obsm.update(spatial=np.zeros((30, 3))),
        r"obsm\['spatial'\] is float64 of shape \(30, 3\); wanted \(n_obs, 2\)",
    ),
    "text": (lambda a: a.obsm.update(spatial=np.full((30, 2), "1")), r"is <U1 of shape \(30, 2\); wanted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_and_nothing_is_written(adata, pixels, tmp_path, fault) -> None:
    spoil, message = FAULTS[fault]
    spoil(adata)
    with pytest.raises(InputError, match=message):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, out=tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"um_per_px": 0}, InputError, "`um_per_px=0` .* must be greater than 0"),
        ({"spot_um": -1}, InputError, "`spot_um=-1` .* must be"),
        ({"spatial_key": "xy"}, KeyMissingError, r"`spatial_key='xy'` is not in adata.obsm; available: .*'spatial'"),
        ({"spatial_unit": "mm"}, InputError, r"`spatial_unit='mm'` .* 'px' or 'um'"),
    ],
)
def test_arguments_are_checked(adata, pixels, change, error, message) -> None:
    with pytest.raises(error, match=message):
        sp.io.from_anndata(adata, pixels, **({"um_per_px": UM} | change))


def test_images_that_are_no_rgb_are_refused(adata, pixels) -> None:
    with pytest.raises(InputError, match=r"image 'array' is float64 with axes YXS"):
        sp.io.from_anndata(adata, pixels / 255, um_per_px=UM)
    with pytest.raises(InputError, match=r"image 'array' is uint8 with axes YX of shape"):
        sp.io.from_anndata(adata, pixels[..., 0], um_per_px=UM)


IMAGE = np.full((40, 60, 3), 200, np.uint8)


def cells(**obs: object) -> ad.AnnData:
    """Twelve cells on an image of 40 x 60 px, with these columns."""
    names = [f"c{i}" for i in range(12)]
    table = ad.AnnData(np.ones((12, 3), np.float32), obs=pd.DataFrame({"n": range(12)}, index=names))
    table.obsm["spatial"] = np.linspace(1, 39, 24).reshape(12, 2)
    for name, values in obs.items():
        table.obs[name] = values
    return table


def read_back(table: ad.AnnData, tmp_path, *, stored: bool = True) -> ad.AnnData:
    out = tmp_path / "s.zarr" if stored else None
    return sp.io.from_anndata(table, IMAGE, um_per_px=UM, out=out)["table"]


@pytest.mark.parametrize("name", ["patient", "Patient", "PATIENT"])
@pytest.mark.parametrize(("value", "patient"), [("P7", "P7"), (7, "7"), (7.0, "7"), (" P7\u00a0", "P7")])
def test_the_patient_of_the_table_is_the_patient(tmp_path, name, value, patient) -> None:
    sdata = sp.io.from_anndata(cells(**{name: value, "sample": "S1"}), IMAGE, um_per_px=UM)
    assert {key: sdata.attrs["spatialsig"][key] for key in ("sample", "patient")} == {
        "sample": "S1",
        "patient": patient,
    }
    assert set(sdata["table"].obs["patient"]) == {patient}


@pytest.mark.parametrize("column", ["sample", "library_id", "slide", "slide_id", "batch"])
def test_several_slides_in_one_table_are_refused_with_the_way_to_split_them(column) -> None:
    table = cells(**{column: pd.Categorical(["A", "B"] * 6)})
    message = (
        rf"holds 2 slides: adata.obs\['{column}'\] has A, B; .*`adata\[adata.obs\['{column}'\] == name\].copy\(\)`"
    )
    with pytest.raises(InputError, match=message):
        sp.io.from_anndata(table, IMAGE, um_per_px=UM)
    one = table[table.obs[column] == "B"].copy()
    assert sp.io.from_anndata(one, IMAGE, um_per_px=UM)["table"].n_obs == 6


def test_what_the_table_and_the_caller_say_must_agree() -> None:
    with pytest.raises(InputError, match="`patient='P2'`, but adata.obs\\['patient'\\] is 'P1'"):
        sp.io.from_anndata(cells(patient="P1"), IMAGE, um_per_px=UM, patient="P2")
    with pytest.raises(InputError, match=r"adata.obs\['patient'\] has 2 values: P1, P2"):
        sp.io.from_anndata(cells(patient=["P1", "P2"] * 6), IMAGE, um_per_px=UM)
    table = cells()
    table.uns["spatial"] = {"A": {}, "B": {}}
    with pytest.raises(InputError, match=r"holds 2 slides: adata.uns\['spatial'\] has A, B"):
        sp.io.from_anndata(table, IMAGE, um_per_px=UM)


def test_no_column_is_lost(tmp_path) -> None:
    ids = [f"aaaa{i}-1" for i in range(12)]
    with pytest.warns(SpatialsigWarning, match="kept under other names.*'region': 'region_original'"):
        table = read_back(cells(cell_id=ids, region=["rim", "core"] * 6), tmp_path)
    assert table.obs["cell_id"].tolist() == ids
    assert table.obs_names.tolist() == [f"c{i}" for i in range(12)]
    assert table.obs["region_original"].tolist() == ["rim", "core"] * 6
    with pytest.warns(SpatialsigWarning, match="'cell_id': 'cell_id_original'"):  # it names two cells alike
        again = read_back(cells(cell_id=["x"] * 12), tmp_path, stored=False)
    assert again.obs["cell_id"].tolist() == again.obs_names.tolist()
    mine = read_back(table, tmp_path, stored=False)  # a table of ours: nothing to say
    assert not {name for name in mine.obs if name.endswith("_original_original")}


TEXT, MISSING = ["a", "b", None, "c"] * 3, 3
COLUMNS = {
    "objects": pd.Series(TEXT, dtype=object),
    "objects with NaN": pd.Series(TEXT, dtype=object).fillna(np.nan),
    "string": pd.Series(TEXT, dtype="string"),
    "arrow string": pd.Series(TEXT, dtype="string[pyarrow]"),
    "str": pd.Series(TEXT, dtype=pd.StringDtype(na_value=np.nan)),
    "categories": pd.Series(TEXT, dtype="category"),
    "string categories": pd.Series(TEXT, dtype="string").astype("category"),
    "Int64": pd.Series([1, 2, None, 3] * 3, dtype="Int64"),
    "Float64": pd.Series([1, 2, None, 3] * 3, dtype="Float64"),
    "boolean": pd.Series([True, False, None, True] * 3, dtype="boolean"),
    "objects true or false": pd.Series([True, False, None, True] * 3, dtype=object),
    "objects whole": pd.Series([1, 2, None, 3] * 3, dtype=object),
    "objects numbers": pd.Series([1.5, 2.0, None, 3.0] * 3, dtype=object),
    "floats": pd.Series([1.5, 2, np.nan, 3] * 3),
    "arrow numbers": pd.Series([1.5, 2, None, 3] * 3, dtype="float64[pyarrow]"),
    "names with bars": pd.Series(["T/NK", "B cell", None, "a::b"] * 3, dtype="category"),
    "intervals": pd.cut(pd.Series([1.0, 2.0, np.nan, 3.0] * 3), 3),
}


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_missing_stays_missing(tmp_path, stored) -> None:
    names = [f"c{i}" for i in range(12)]
    given = {kind.replace(" ", "_"): column.set_axis(names) for kind, column in COLUMNS.items()}
    found = read_back(cells(**given), tmp_path, stored=stored).obs
    for kind, column in given.items():
        assert found[kind].isna().tolist() == [False, False, True, False] * 3, kind
        assert list(map(str, found[kind].dropna())) == list(map(str, column.dropna())), kind
        is_number = pd.api.types.is_numeric_dtype(found[kind])
        assert is_number or isinstance(found[kind].dtype, pd.CategoricalDtype), kind


REFUSED = {
    "times": (pd.date_range("2020", periods=12), r"obs\['x'\] holds datetime64\[(ns|us)\], which cannot be stored"),
    "durations": (pd.to_timedelta(np.arange(12)), "holds timedelta64"),
    "periods": (pd.period_range("2020", periods=12, freq="D"), "holds period"),
    "lists": ([[1]] * 12, r"holds objects that are mixed, which cannot be stored. Turn it into text"),
    "text and numbers": (pd.array(["a", 1] * 6, dtype=object), "holds objects that are mixed-integer"),
    "categories of times": (pd.Categorical(pd.date_range("2020", periods=12)), "has categories that are datetime64"),
    "bytes": (pd.array([b"a"] * 12, dtype=object), "holds objects that are bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_no_store_keeps_are_named(tmp_path, kind) -> None:
    values, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        read_back(cells(x=pd.Series(values, index=[f"c{i}" for i in range(12)])), tmp_path)
    assert not list(tmp_path.iterdir())
    slide = sp.io.from_anndata(cells(), IMAGE, um_per_px=UM)
    slide["table"].obs["x"] = pd.Series(values, index=slide["table"].obs_names)
    with pytest.raises(InputError, match=message):
        sp.io.write(slide, tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([1], r"adata.obs has 1, which cannot be stored: .*`rename\(columns=\{1: '1'\}\)`"),
        (["area/um2"], r"has 'area/um2', .*\{'area/um2': 'area_um2'\}.*sanitize_table"),
        (["_index"], r"\{'_index': 'index'\}"),
        ([""], "'unnamed'"),
        (["leiden", "Leiden"], r"has 'leiden', 'Leiden', which cannot be stored: names that differ in case only"),
        (["x" * 300], "cannot be stored"),
    ],
)
def test_names_of_columns_that_no_store_keeps(tmp_path, names, message) -> None:
    table = cells()
    table.obs = pd.DataFrame({name: range(12) for name in names}, index=table.obs_names)
    with pytest.raises(InputError, match=message):
        read_back(table, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["dask", "backed", "backed dense"])
def test_counts_may_lie_anywhere(adata, pixels, tmp_path, where) -> None:
    expected = adata.X.toarray()
    if where == "dask":
        adata.X = da.from_array(expected, chunks=(10, 5))
    else:
        adata.X = sparse.csr_matrix(adata.X) if where == "backed" else expected
        adata.var_names_make_unique()
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(sp.io.from_anndata(adata, pixels, um_per_px=UM)["table"].X.toarray(), expected)


def test_genes_are_named_by_a_column(adata, pixels) -> None:
    adata.var = pd.DataFrame({"symbol": ["A", "B", None, "", "A"]}, index=[f"ENSG{i}" for i in range(5)])
    table = sp.io.from_anndata(adata, pixels, um_per_px=UM, gene_symbols="symbol")["table"]
    assert table.var_names.tolist() == ["A", "B", "ENSG2", "ENSG3", "A-1"]
    assert table.var["gene_ids"].tolist() == [f"ENSG{i}" for i in range(5)]
    with pytest.raises(
        KeyMissingError, match=r"`gene_symbols='name'` is not in adata.var; available: \['gene_ids', 'symbol'\]"
    ):
        sp.io.from_anndata(adata, pixels, um_per_px=UM, gene_symbols="name")


def test_text_of_pandas_3_is_text(tmp_path) -> None:
    with pd.option_context("future.infer_string", True):
        table = read_back(cells(x=pd.Series(TEXT, index=[f"c{i}" for i in range(12)]), y="t"), tmp_path)
        sdata = sp.io.read(tmp_path / "s.zarr")
        sp.io.write(sdata, tmp_path / "again.zarr")
    assert table.obs["x"].isna().sum() == MISSING
    assert set(sp.io.read(tmp_path / "again.zarr")["table"].obs["y"]) == {"t"}


def test_every_step_works_with_the_text_of_pandas_3(tmp_path) -> None:
    with pd.option_context("future.infer_string", True):
        sp.datasets.synthetic_xenium(tmp_path / "b", n_slides=1, size_um=200)
        cohort = sp.Cohort.from_bundles(tmp_path / "b" / "bundles.csv", tmp_path / "stores")
        sp.pp.filter_cells(cohort)
        sp.pp.split(cohort, by="block", n_folds=2, block_um=100, buffer_um=0)
        sp.pp.highly_variable_genes(cohort, n_top_genes=40)
        sp.pp.make_patches(cohort, patch_px=56, um_per_px=1.0)
        sp.pp.assign_cells(cohort)
        sp.tl.score_cells(cohort, "seed")
        sp.tl.aggregate_patches(cohort, use_rep=None, min_cells=3)
        status = sp.io.status(cohort)
    assert set(sp.io.status(cohort)["state"]) == set(status["state"]) == {"fresh"}  # made there, read here
