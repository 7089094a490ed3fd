import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import tifffile

import spatialsig as sp
from spatialsig.errors import InputError, LeakageError, SpatialsigWarning
from spatialsig.slide.folds import torn_patients
from spatialsig.slide.slides import open_slides


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return sp.datasets.toy(size_um=120)["table"]


SLIDES = {"A1": "A", "A2": "A", "B1": "B"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, cells: ad.AnnData) -> Path:
    root = tmp_path_factory.mktemp("stores")
    for number, (sample, patient) in enumerate(SLIDES.items()):
        attrs = {"spatialsig": {"sample": sample, "patient": patient, "um_per_global_px": 0.2125}}
        own = cells.copy()
        own.X = own.X * (1 + number)  # the same counts would be those of a copy
        sp.io.write(sd.SpatialData(tables={"table": own}, attrs=attrs), root / f"{sample}.zarr")
    return root


@pytest.fixture
def cohort(tmp_path: Path, stores: Path) -> sp.Cohort:
    """Three slides of two patients, on disk; without images, which no split by slide looks at."""
    shutil.copytree(stores, tmp_path / "stores")
    return sp.Cohort({sample: tmp_path / "stores" / f"{sample}.zarr" for sample in SLIDES})


def fold(cohort: sp.Cohort, sample: str) -> int:
    return cohort[sample].attrs["spatialsig"]["split"]["fold"]


def test_slides_of_one_patient_share_a_fold(cohort: sp.Cohort) -> None:
    sp.pp.split(cohort, n_folds=2)
    assert fold(cohort, "A1") == fold(cohort, "A2") != fold(cohort, "B1")
    for sample in cohort.stores:
        back = sd.read_zarr(cohort.stores[sample])
        assert set(back["table"].obs["fold"]) == {fold(cohort, sample)}


def test_by_slide_every_slide_stands_alone(cohort: sp.Cohort) -> None:
    sp.pp.split(cohort, by="slide", n_folds=3)
    assert {fold(cohort, s) for s in cohort.stores} == {0, 1, 2}


SITES = {"A1": "Basel", "A2": "Basel", "B1": "Oslo"}


def with_attribute(cohort: sp.Cohort, name: str, values: dict[str, str], *, in_cells: bool = False) -> None:
    for slide in open_slides(cohort):
        if in_cells:
            slide.sdata.tables["table"].obs[name] = values[slide.name]
            slide.sdata.write_element("table", overwrite=True)
        else:
            slide.attrs[name] = values[slide.name]
            slide.commit_attrs()


@pytest.mark.parametrize("n_folds", [2, "all"])
def test_every_value_of_an_attribute_is_held_out(cohort: sp.Cohort, n_folds: int | str) -> None:
    with_attribute(cohort, "site", SITES)
    sp.pp.split(cohort, by="site", n_folds=n_folds)
    assert fold(cohort, "A1") == fold(cohort, "A2") != fold(cohort, "B1")
    made = cohort["A1"].attrs["spatialsig"]["split"]
    assert (made["by"], made["n_folds"]) == ("site", 2)


def test_a_patient_of_two_sites_would_leak(cohort: sp.Cohort) -> None:
    with_attribute(cohort, "site", {"A1": "Basel", "A2": "Oslo", "B1": "Oslo"})
    with pytest.raises(
        LeakageError, match=r"`by='site'`: patient 'A' has slides of 2 values, A1 \(Basel\), A2 \(Oslo\)"
    ):
        sp.pp.split(cohort, by="site", n_folds="all")
    assert "split" not in cohort["A1"].attrs["spatialsig"]


def test_a_misspelt_way_to_split_is_named(cohort: sp.Cohort) -> None:
    with pytest.raises(InputError, match=r"`by='pateint'`: slide 'A1' does not have it.*Did you mean 'patient'"):
        sp.pp.split(cohort, by="pateint", n_folds=2)


def test_a_patient_renamed_after_a_split_by_site_is_noticed(cohort: sp.Cohort) -> None:
    with_attribute(cohort, "site", SITES)
    sp.pp.split(cohort, by="site", n_folds=2)
    splits = {name: ("A", cohort[name].attrs["spatialsig"]["split"]) for name in SITES}
    assert "'A'" in torn_patients(splits, None)


def test_random_patches_are_refused_unless_asked_for_twice(toy: sd.SpatialData) -> None:
    with pytest.raises(LeakageError, match="puts neighbours of test patches into training.*`allow_leakage=True`"):
        sp.pp.split(toy, by="random")
    assert "split" not in toy.attrs["spatialsig"]
    with pytest.warns(SpatialsigWarning, match="every score will be too high. Never report it"):
        sp.pp.split(toy, by="random", allow_leakage=True, n_folds=3)
    assert toy.attrs["spatialsig"]["split"]["allow_leakage"] is True
    assert set(toy["table"].obs["fold"]) == {0, 1, 2}


def test_inner_folds_are_patients_too(cohort: sp.Cohort) -> None:
    sp.pp.split(cohort, by="slide", n_folds=3, n_inner_folds=2)
    inner = {s: cohort[s].attrs["spatialsig"]["split"]["inner"] for s in cohort.stores}
    for sample, found in inner.items():
        assert found[fold(cohort, sample)] == -1
        assert len(found) == 3
    for test_fold in range(3):
        assert sorted(found[test_fold] for found in inner.values()) == [-1, 0, 1]


def test_patches_of_two_folds_never_overlap(patched: sd.SpatialData) -> None:
    """... though the blocks have no buffer: a patch that reaches into two of them belongs to neither."""
    sp.pp.split(patched, by="block", block_um=150, buffer_um=0, n_folds=2)
    labels, patches = patched["signatures"], patched["patches"]
    fold = labels.obs["fold"].to_numpy()  # written again by the call
    assert set(fold) == {-1, 0, 1}
    size = patched.attrs["spatialsig"]["patches"]["patches"]["size_l0"]
    corners = patches[["y0", "x0"]].to_numpy()
    gap = np.abs(corners[fold == 0][:, None] - corners[fold == 1][None]).max(axis=-1)
    assert gap.min() >= size
    cells = patched["table"].obs["fold"]
    assert set(cells) == {0, 1}


def test_strata_are_spread(cohort: sp.Cohort) -> None:
    for slide in open_slides(cohort):
        slide.attrs["tissue"] = "lung" if slide.name == "A2" else "breast"
        slide.commit_attrs()
    sp.pp.split(cohort, by="slide", n_folds=2, stratify="tissue")
    assert fold(cohort, "A1") != fold(cohort, "B1")
    with pytest.raises(
        InputError, match="`stratify='cell_type'`: slide 'A1' has [2-8] values of it in its cells; wanted one"
    ):
        sp.pp.split(cohort, by="slide", n_folds=2, stratify="cell_type")
    with pytest.raises(InputError, match="`stratify='grade'`: slide 'A1' does not have it"):
        sp.pp.split(cohort, by="slide", n_folds=2, stratify="grade")


def test_missing_patient_is_said(cohort: sp.Cohort) -> None:
    sdata = sd.read_zarr(cohort.stores["B1"])
    sdata.attrs["spatialsig"].pop("patient")
    sp.io.write(sdata, cohort.stores["B1"], overwrite=True)
    with pytest.warns(SpatialsigWarning, match=r"no patient is known for \['B1'\]"):
        sp.pp.split(cohort, n_folds=2)


def test_a_patient_written_into_the_cells_is_not_ignored_in_silence(tmp_path: Path) -> None:
    slides = {f"S{n}": sp.datasets.toy(size_um=100, seed=n, sample=f"S{n}", patient=f"S{n}") for n in (1, 2, 3)}
    slides["S2"]["table"].obs["patient"] = "S1"
    slides["S3"].attrs["spatialsig"]["patient"] = "S1"  # the way that counts
    for name, sdata in slides.items():
        sp.io.write(sdata, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort(tmp_path)
    with pytest.warns(
        SpatialsigWarning, match="says something else: S2 is of 'S2', its cells of 'S1'. Let the two agree"
    ):
        sp.pp.split(cohort, n_folds=2)
    assert fold(cohort, "S1") == fold(cohort, "S3")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_folds": 1}, "`n_folds=1` .* greater than or equal to 2"),
        ({"n_folds": 4}, "needs as many groups by 'patient'; there are 1: .* Use by='block' for a single slide"),
        (
            {"by": "spots"},
            r"`by='spots'`: slide 'toy' does not have it; wanted one. Set sdata.attrs\['spatialsig'\]\['spots'\]",
        ),
        ({"by": "block", "n_folds": "all"}, r"`n_folds='all'` holds out one patient.*`by='block'` takes a number"),
        ({"n_inner_folds": 1}, "`n_inner_folds=1` .* greater than or equal to 2"),
        ({"seed": -1}, "`seed=-1` .* greater than or equal to 0"),
        ({"by": "block", "buffer_um": -1.0}, "`buffer_um=-1.0` .* greater than or equal to 0"),
        ({"by": "block", "stratify": "tissue"}, "spreads whole slides over folds; it needs by='patient'"),
        ({"by": "block", "block_um": -1.0}, "`block_um=-1.0` .* must be greater than 0"),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sp.pp.split(toy, **kwargs)
    assert "split" not in toy.attrs["spatialsig"]


def test_slides_whose_patient_nobody_named_are_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stores = {}
    for sample, patient in (("P1.a", None), ("P1.b", None), ("P2.a", "P2.a"), ("P3.a", "P3")):
        tifffile.imwrite(image := tmp_path / f"{sample}.tif", rng.integers(0, 255, (64, 64, 3), np.uint8))
        stores[sample] = tmp_path / f"{sample}.zarr"
        sp.io.read_he(image, um_per_px=0.5, sample=sample, patient=patient, out=stores[sample])
    with pytest.warns(SpatialsigWarning, match=r"no patient is known for \['P1.a', 'P1.b'\]; each counts as its own"):
        sp.pp.split(sp.Cohort(stores), n_folds=2)
