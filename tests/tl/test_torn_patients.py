"""A patient that is learned from and held out, by a correction after the split or a copy, is refused wherever folds are used."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.quick import all_of

import spatialsig as sp
from spatialsig.errors import LeakageError
from spatialsig.slide import slides
from spatialsig.slide.folds import torn_patients
from spatialsig.slide.slides import open_slides

TORN = r"'P0' \(S\d in fold [01], S\d in fold [01]\)\. Its name was changed after the split.*`sp\.pp\.split` again on all slides"
Use = Callable[[sp.Cohort, sp.models.SignatureViT, Path], object]
USES: dict[str, Use] = {
    "train_vit": lambda cohort, _, __: sp.tl.train_vit(cohort, test_fold=0, use_rep=None),
    "train_vit chosen": lambda cohort, _, __: sp.tl.train_vit(cohort, test_fold=None, validation_fold=1, use_rep=None),
    "train_vit inner": lambda cohort, _, __: sp.tl.train_vit(cohort, test_fold=2, inner_fold=0, use_rep=None),
    "train_probe": lambda cohort, _, __: sp.tl.train_probe(cohort, "features"),
    "cross_validate": lambda cohort, _, place: sp.tl.cross_validate(cohort, run_dir=place / "cv", use_rep=None),
    "evaluate": lambda cohort, model, _: sp.tl.evaluate(cohort, model),
    "baselines": lambda cohort, _, __: sp.tl.baselines(cohort, test_fold=1),
    "calibrate": lambda cohort, model, _: sp.tl.calibrate(cohort, model, fold=0),
}


@pytest.fixture
def model(planted: ModuleType) -> sp.models.SignatureViT:
    return planted.tiny(test_fold=0)


@pytest.fixture
def cohort(planted: ModuleType, model: sp.models.SignatureViT, tmp_path: Path) -> sp.Cohort:
    """Slides of patients of their own, split by patient, of which two are then said to be of one."""
    for fold in range(3):
        slide = planted.labelled(f"S{fold}", model, seed=fold)
        slide.attrs["spatialsig"]["patient"] = f"P{fold}"
        sp.io.write(slide, tmp_path / f"S{fold}.zarr")
    cohort = sp.Cohort({f"S{k}": tmp_path / f"S{k}.zarr" for k in range(3)})
    sp.pp.split(cohort, n_folds=3)
    for slide in open_slides(cohort):
        if slide.attrs["split"]["fold"] in (0, 1):
            slide.attrs["patient"] = "P0"
            slide.commit_attrs()
    return cohort


@pytest.mark.parametrize("name", USES)
def test_a_patient_in_training_and_test_is_refused(
    name: str, cohort: sp.Cohort, model: sp.models.SignatureViT, tmp_path: Path
) -> None:
    with pytest.raises(LeakageError, match=TORN):
        USES[name](cohort, model, tmp_path)


@pytest.mark.parametrize("name", all_of(USES, quick={"train_vit", "evaluate"}))
def test_it_is_told_before_a_slide_is_read(
    name: str, cohort: sp.Cohort, model: sp.models.SignatureViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slides, "read_store", lambda *_, **__: pytest.fail("a store was read"))
    with pytest.raises(LeakageError, match=TORN):
        USES[name](cohort, model, tmp_path)


@pytest.mark.parametrize("name", all_of(["split", *USES], quick={"split", "train_vit inner", "evaluate"}))
def test_a_copy_under_another_patient_is_refused(
    name: str, cohort: sp.Cohort, model: sp.models.SignatureViT, tmp_path: Path
) -> None:
    for sample, patient in zip(cohort, ("P0", "P1", "P2"), strict=True):
        slide = sp.io.read(cohort.stores["S0" if sample == "S2" else sample])
        slide.attrs["spatialsig"] |= {"sample": sample, "patient": patient}
        sp.io.write(slide, tmp_path / "copied" / f"{sample}.zarr")
    copied = sp.Cohort(tmp_path / "copied")
    uses = USES | {"split": lambda cohort, _, __: sp.pp.split(cohort, by="slide", n_folds=3)}
    with pytest.raises(LeakageError, match=r"'S0' \(patient 'P0'\) and 'S2' \(patient 'P2'\) hold the same counts"):
        uses[name](copied, model, tmp_path)


def test_findings_say_it_and_a_new_split_mends_it(cohort: sp.Cohort) -> None:
    found = sp.tl.findings(cohort).set_index("name")
    assert found.loc["patient_in_two_folds", "severity"] == "error"
    sp.pp.split(cohort, n_folds=2)
    assert "patient_in_two_folds" not in set(sp.tl.findings(cohort)["name"])


def test_other_splits_may_have_a_patient_on_both_sides() -> None:
    by_patient = {f"S{k}": ("P", {"by": "patient", "fold": k}) for k in range(2)}
    assert torn_patients(by_patient)
    assert torn_patients(by_patient, [0])
    assert not torn_patients(by_patient, [2])
    assert not torn_patients(by_patient, [])
    for by in ("slide", "block", "random"):
        assert not torn_patients({name: (of, split | {"by": by}) for name, (of, split) in by_patient.items()})
    assert not torn_patients({name: (name, split) for name, (_, split) in by_patient.items()})
    assert not torn_patients({name: (of, {}) for name, (of, _) in by_patient.items()})
