from pathlib import Path

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._errors import InputError, LeakageError, SpatialsigWarning


@pytest.fixture
def cohort(tmp_path: Path) -> sp.Cohort:
    """Three slides of two patients, on disk."""
    slides = {"A1": "A", "A2": "A", "B1": "B"}
    for sample, patient in slides.items():
        sdata = sp.datasets.toy()
        sdata.attrs["spatialsig"] |= {"sample": sample, "patient": patient}
        sp.io.write(sdata, tmp_path / f"{sample}.zarr")
    return sp.Cohort({sample: tmp_path / f"{sample}.zarr" for sample in slides})


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


def test_random_patches_are_refused(toy: sd.SpatialData) -> None:
    with pytest.raises(LeakageError, match="puts neighbours of test patches into training"):
        sp.pp.split(toy, by="random")


def test_missing_patient_is_said(cohort: sp.Cohort) -> None:
    sdata = sd.read_zarr(cohort.stores["B1"])
    sdata.attrs["spatialsig"].pop("patient")
    sp.io.write(sdata, cohort.stores["B1"], overwrite=True)
    with pytest.warns(SpatialsigWarning, match=r"no patient is known for \['B1'\]"):
        sp.pp.split(cohort, n_folds=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_folds": 1}, "`n_folds` must be at least 2; got 1"),
        ({"n_folds": 4}, "needs as many groups by 'patient'; there are 1: .* Use by='block' for a single slide"),
        ({"by": "spots"}, r"`by='spots'` is not known; choose one of \['patient', 'slide', 'block', 'random'\]"),
        ({"by": "block", "block_um": -1.0}, "`block_um` must be a finite number above 0"),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sp.pp.split(toy, **kwargs)
    assert "split" not in toy.attrs["spatialsig"]
