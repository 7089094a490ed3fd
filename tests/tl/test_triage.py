"""Slides are accepted, reviewed and rejected as planted errors and an explicit rule want it."""

import copy
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, LeakageError, StaleError
from spatialsig.models.triage import Calibration

N = 12
NAMES = [f"C{k}" for k in range(N)]
SEEDS = [0] * N  # one picture, whose colours do not look like those of BGR; labels and predictions decide


@pytest.fixture(scope="module")
def model(planted: ModuleType) -> sp.models.SignatureViT:
    return planted.tiny(training_samples=["A"], training_patients=["P-A"])


@pytest.fixture(scope="module")
def cohort(planted: ModuleType, model: sp.models.SignatureViT, tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Slides with labels that the model predicts (little noise) or not (much), of which those look suspect."""
    where = tmp_path_factory.mktemp("triage")
    for k, name in enumerate(NAMES):
        slide = planted.labelled(name, model, seed=SEEDS[k], noise=50.0 if k >= 8 else 0.0, stride_um=32.0)
        sp.tl.predict(slide, model)
        slide["signatures_pred"].uns["spatialsig"]["predict"]["ood"] = {
            "slide": 0.1 + 0.05 * k,
            "share": 0.0,
            "reason": "",
        }
        sp.io.write(slide, where / f"{name}.zarr")
    return sp.Cohort({name: where / f"{name}.zarr" for name in NAMES})


def new_slide(planted: ModuleType, model: sp.models.SignatureViT, *, ood: float) -> sd.SpatialData:
    slide = planted.bare("new", seed=77, stride_um=32.0)
    sp.tl.predict(slide, model)
    slide["signatures_pred"].uns["spatialsig"]["predict"]["ood"] = {"slide": ood, "share": 0.0, "reason": ""}
    return slide


def test_decisions_follow_score_thresholds_and_domain(
    planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort, tmp_path: Path
) -> None:
    model = copy.copy(model)
    slide = new_slide(planted, model, ood=0.2)
    found = sp.tl.triage(slide, model, calibration=cohort, error_rate=0.1).set_index("signature")
    # 12 patients: (errors + 1) / 13 <= 0.1 allows none, so that slides below the first wrong one (0.5) are accepted
    assert found.loc["Immune_T", "accept_below"] == pytest.approx(0.5)
    assert found.loc["Immune_T", "reject_above"] == pytest.approx(0.45)
    assert found.loc["Immune_T", "n_patients"] == N
    assert found["decision"].to_dict() == {"Immune_T": "accept", "Fibroblast": "accept", "Absent": "review"}
    assert found.loc["Absent", "reason"] == "too few calibration patients have labels of it"
    for ood, wanted in ((0.49, "accept"), (0.55, "reject"), (1.4, "reject")):
        slide = new_slide(planted, model, ood=ood)
        assert sp.tl.triage(slide, model)["decision"][0] == wanted  # the model carries the calibration
    record = slide["signatures_pred"].uns["spatialsig"]["triage"]
    assert record["error_rate"] == 0.1
    assert record["decision"][0] == "reject"
    model.save(tmp_path / "m")
    back = sp.models.SignatureViT.load(tmp_path / "m")
    pd.testing.assert_frame_equal(sp.tl.triage(slide, back), sp.tl.triage(slide, model))
    ensemble = sp.models.SignatureEnsemble([model, planted.tiny(1, training_samples=["A"], training_patients=["P-A"])])
    ensemble.triage = model.triage
    ensemble.save(tmp_path / "e")
    assert sp.models.SignatureEnsemble.load(tmp_path / "e").triage["H&E"].as_json() == model.triage["H&E"].as_json()


def test_a_slide_outside_is_never_accepted(
    planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort
) -> None:
    right = cohort.subset(NAMES[:8])
    own = copy.copy(model)
    found = sp.tl.triage(new_slide(planted, own, ood=0.99), own, calibration=right, error_rate=0.2)
    assert found["decision"][0] == "accept"  # no error was seen
    found = sp.tl.triage(new_slide(planted, own, ood=1.01), own, error_rate=0.2)
    assert found["decision"][0] == "reject"  # more suspect than any slide that was right
    assert found["reason"][0] == "outside what the model learned from"
    own.triage["H&E"].score[:] += 2  # as if right slides had looked worse: it is not accepted all the same
    found = sp.tl.triage(new_slide(planted, own, ood=1.01), own, error_rate=0.2)
    assert found["decision"][0] == "review"


def test_errors_are_those_of_map_or_mean(planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort) -> None:
    own = copy.copy(model)
    sp.tl.triage(cohort, own, calibration=cohort, error_rate=0.2)
    found: Calibration = own.triage["H&E"]
    for k, name in enumerate(NAMES):
        truth, guess = cohort[name]["signatures"].X, cohort[name]["signatures_pred"].X
        known = np.isfinite(truth[:, 0])
        assert found.map[k, 0] == pytest.approx(np.corrcoef(truth[known, 0], guess[known, 0])[0, 1], abs=1e-6)
        apart = abs(guess[known, 1].mean(dtype=np.float64) - truth[known, 1].mean(dtype=np.float64)) / 2.0  # target_std
        assert found.mean[k, 1] == pytest.approx(apart, abs=1e-4)
    assert np.isnan(found.map[:, 2]).all()
    np.testing.assert_array_equal(found.wrong("map", 0.5)[:, 0], [0] * 8 + [1] * 4)
    loose = sp.tl.triage(cohort, own, error_rate=0.2, tolerance=0.0, error="map")
    assert (loose["decision"] == "accept").sum() >= 2 * 8


def test_refusals_say_what_is_missing(planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort) -> None:
    own, slide = copy.copy(model), new_slide(planted, model, ood=0.1)
    with pytest.raises(InputError, match=r"carries no calibration slides for 'H&E'.*Give `calibration`"):
        sp.tl.triage(slide, own)
    with pytest.raises(
        InputError,
        match=r"`error_rate=0\.05` needs held-out slides of at least 19 patients with labels .* there are 12",
    ):
        sp.tl.triage(slide, own, calibration=cohort, error_rate=0.05)
    assert own.triage is None
    with pytest.raises(StaleError, match="its predictions are of another model"):
        sp.tl.triage(slide, planted.tiny(5), calibration=cohort)
    with pytest.raises(KeyMissingError, match=r"Call `sp\.tl\.predict` first"):
        sp.tl.triage(planted.bare("raw"), own, calibration=cohort)
    own.run = own.run | {"training_samples": ["C1"]}
    with pytest.raises(LeakageError, match="slide 'C1' trained the model"):
        sp.tl.triage(slide, own, calibration=cohort)
    own.run = own.run | {"training_samples": ["A"], "training_patients": ["P-C2"]}
    with pytest.raises(LeakageError, match="slide 'C2' is of patient 'P-C2', from whom the model learned"):
        sp.tl.triage(slide, own, calibration=cohort)
    with pytest.raises(InputError, match=r"was predicted from 'H&E', and `use_rep='X_ae'` asks for 'H&E \+ X_ae'"):
        sp.tl.triage(slide, copy.copy(model), calibration=cohort, use_rep="X_ae")


def test_a_damaged_record_is_refused(model: sp.models.SignatureViT, cohort: sp.Cohort) -> None:
    from spatialsig.models.triage import calibration_from

    own = copy.copy(model)
    sp.tl.triage(cohort.subset(["C1"]), own, calibration=cohort)
    record = own.triage["H&E"].as_json()
    assert calibration_from({"H&E": record}, own.signatures, where="m")["H&E"].as_json() == record
    for broken in (record | {"score": record["score"][:-1]}, record | {"patients": []}, {"samples": []}, 3):
        with pytest.raises(InputError, match=r"m: the record of `sp\.tl\.triage` is damaged"):
            calibration_from({"H&E": broken}, own.signatures, where="m")


def test_slides_that_were_predicted_otherwise_do_not_compare(
    planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort
) -> None:
    model, slide = copy.copy(model), new_slide(planted, model, ood=0.2)
    slide["signatures_pred"].layers["std"] = np.ones(slide["signatures_pred"].shape, np.float32)
    for carried in (False, True):  # calibrated in this call, and before
        with pytest.raises(
            InputError, match=r"slide 'new' was predicted with deviations of 1 view.*calibration slides with no width"
        ):
            sp.tl.triage(slide, model, error_rate=0.1, **({} if carried else {"calibration": cohort}))


def test_slides_that_trained_the_model_are_for_review(
    planted: ModuleType, model: sp.models.SignatureViT, cohort: sp.Cohort
) -> None:
    model, slide = copy.copy(model), planted.bare("A", seed=77, stride_um=32.0)
    sp.tl.predict(slide, model)
    slide["signatures_pred"].uns["spatialsig"]["predict"]["ood"] = {"slide": 0.0, "share": 0.0, "reason": ""}
    found = sp.tl.triage(slide, model, calibration=cohort, error_rate=0.1)
    assert found["decision"].eq("review").all()
    assert found["reason"].str.contains("learned from this slide").all()
