"""Each known trap has its sentence, and nothing is said of what is in order."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import KeyMissingError
from spatialsig.evaluation.evaluate import findings_table
from spatialsig.evaluation.findings_scores import after_cross_validation, score_findings
from spatialsig.evaluation.findings_slides import SlideFacts, slide_facts, slide_findings
from spatialsig.slide.slides import Slide

GENES = ["CD3D", "CD8A", "MS4A1", "CD79A", "EPCAM", "KRT8"]
WEIGHTS = np.array([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5], [0, 0], [0, 0]])
SCORED = {
    "method": "zscore", "names": ["T", "B"], "genes": GENES, "weights": WEIGHTS, "mean": np.ones(6), "std": np.ones(6),
    "n_genes_panel": np.array([2, 2]), "n_genes_measured": np.array([2, 2]), "test_fold": 0,
}  # fmt: skip
CLEAN = SlideFacts(
    name="S1",
    patient="P1",
    patient_known=True,
    split={"by": "patient", "fold": 0},
    alignment={"verdict": "good", "shift_um": 3.0},
    scored=SCORED,
    embedded={"genes": ["EPCAM", "KRT8"], "test_fold": 0},
    labelled={"stat": "mean", "tie_fraction": np.array([0.01, np.nan])},
    assigned={"share_on_image": 1.0, "share_in_patches": 0.95},
    chosen={"test_fold": 0},
    controls=[],
    signatures=["T", "B"],
)


def scored(**changes: Any) -> dict[str, Any]:
    return {"scored": SCORED | changes}


@pytest.mark.parametrize(
    ("change", "name", "severity", "text"),
    [
        ({"split": {"by": "random"}}, "random_split", "error", "folds of S2 are random patches"),
        (
            {"patient": "P1", "split": {"by": "patient", "fold": 1}}, "patient_in_two_folds", "error",
            r"'P1' \(S1 in fold 0, S2 in fold 1\)\. Its name was changed after the split.*`sp.pp.split` again",
        ),
        ({"patient_known": False}, "patient_unknown", "warning", r"patient of 1 of 2 slides is not known \(S2\)"),
        (
            {"embedded": {"genes": ["CD3D", "EPCAM"]}}, "embedding_shares_genes", "error",
            r"made from 1 of the 4 genes that the labels are made of \(CD3D\)",
        ),
        (scored(mean=np.full(6, 1.1)), "scales_differ", "error", "labels of S2 and S1 are on different scales"),
        (scored(genes=GENES[::-1]) | {"embedded": {}}, "scales_differ", "error", "labels of S2 and S1 are on different scales"),
        (
            {"assigned": {"share_on_image": 0.3, "share_in_patches": 0.21}}, "cells_outside_patches", "error",
            r"21% of the cells lie in a patch \(30% on the image\).*is in um",
        ),
        (
            {"labelled": {"stat": "median", "tie_fraction": np.array([0.41, np.nan])}}, "labels_tie", "warning",
            r"41% of the patches have one identical label of T \(stat='median'\).* Use `stat='mean'`\.",
        ),
        (
            {"labelled": {"stat": "mean", "tie_fraction": np.array([0.41, np.nan])}}, "labels_tie", "warning",
            r"41% of the patches have one identical label of T \(stat='mean'\).*Most of its cells score alike",
        ),
        ({"controls": ["NegControlProbe_1"]}, "controls_in_counts", "warning", "1 columns of the counts are no genes"),
        (
            {"alignment": {"verdict": "shifted", "shift_um": 14.2}}, "registration_poor", "warning",
            r"lies 14.2 um off the cells \(more than 10\)",
        ),
        (
            {"alignment": {"verdict": "wrong", "shift_um": None, "mistake": "x and y are swapped", "fix": "Swap"}},
            "registration_wrong", "error", "x and y are swapped",
        ),
        ({"alignment": {}}, "registration_unchecked", "note", "nobody looked whether"),
        ({"chosen": {"test_fold": -1}}, "genes_from_test", "error", r"genes were chosen with the test fold 0 in view \(S2"),
        (
            {"embedded": {"genes": ["EPCAM"], "test_fold": 1}}, "embedding_from_test", "error",
            "autoencoder was trained with the test fold 0 in view",
        ),
        *(
            (
                {"embedded": {"genes": ["EPCAM"], "test_fold": 0, "seen": seen}}, "embedding_from_test",
                "error", r"in view \(S[12] of patient",
            )
            for seen in ('{"training_samples": ["S2"]}', '{"training_patients": ["P1", "S9"]}')
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_one_thing_wrong_is_one_finding(change: dict[str, Any], name: str, severity: str, text: str) -> None:
    (found,) = slide_findings([CLEAN, replace(CLEAN, name="S2", **change)], test_fold=0)
    assert (found.name, found.severity) == (name, severity)
    assert pd.Series(found.text).str.contains(text).item()


def test_a_clean_cohort_is_left_alone() -> None:
    assert not list(slide_findings([CLEAN, replace(CLEAN, name="S2")], test_fold=0))
    assert not list(slide_findings([replace(CLEAN, patient_known=False)], test_fold=None))


def test_signatures_that_are_nearly_one_or_hardly_there() -> None:
    weights = WEIGHTS.copy()
    weights[1, 1] = 0.5
    changed = SCORED | {"weights": weights, "n_genes_panel": np.array([2, 9])}
    found = {f.name: f.text for f in slide_findings([replace(CLEAN, scored=changed)], test_fold=0)}
    assert "T and B share 1 of 2 measured genes" in found["signatures_overlap"]
    assert "B is measured by 2 of its 9 genes" in found["coverage_low"]


def test_facts_are_those_the_functions_leave(patched: sd.SpatialData) -> None:
    """The names under which the functions keep their parameters; the toy's seed signatures overlap."""
    patched["table"].var["feature_types"] = ["Gene Expression"] * (patched["table"].n_vars - 1) + ["Negative Control"]
    facts = slide_facts(Slide(patched), signatures_key="signatures", table_key="table")
    assert facts.scored["names"] == facts.signatures
    assert facts.split["by"] == "block"
    assert 0.9 < facts.assigned["share_on_image"] <= 1
    assert len(facts.labelled["tie_fraction"]) == len(facts.signatures)
    assert facts.controls == [patched["table"].var_names[-1]]
    found = sp.tl.findings(patched)
    assert set(found["name"]) == {"signatures_overlap", "controls_in_counts", "registration_unchecked"}
    assert found["severity"].tolist() == ["warning", "warning", "note"]
    text = found.set_index("name")["text"]["signatures_overlap"]
    assert "Pericyte and SmoothMuscle share 4 of 6 measured genes" in text


@pytest.mark.parametrize("name", ["signatures_key", "table_key"])
def test_a_key_that_is_on_no_slide_is_no_clean_bill(toy: sd.SpatialData, name: str) -> None:
    assert sp.tl.findings(toy)["name"].tolist() == ["registration_unchecked"]  # it has no labels, by the default name
    with pytest.raises(KeyMissingError, match=rf"{name}.*'typo'.*tables of the slides"):
        sp.tl.findings(toy, **{name: "typo"})


def evaluation(**methods: float) -> pd.DataFrame:
    """Three patients; correlations as given, otherwise those of a healthy model."""
    r = {
        "he_only": 0.7, "fused": 0.8, "fused_permuted": 0.3, "ae_only": 0.4, "hand_features": 0.6, "colour": 0.4,
        "density": 0.2, "coordinates": -0.03, "neighbours": 0.5, "train_mean": 0.0,
    } | methods  # fmt: skip
    rows = [
        {
            "method": method, "signature": signature, "sample": f"S{k}", "patient": f"P{k}", "n_patches": 200.0,
            "pearson": value, "ceiling": 0.95, "share_of_ceiling": value / 0.95, "p": 0.001 if value > 0.05 else 0.6,
            "r_n_cells": 0.1 if signature in "AB" else -0.1, "r_log_counts": 0.05, "stain_shift": 0.5 + 0.1 * k,
        }
        for method, value in r.items() for signature in "ABCD" for k in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def names(table: pd.DataFrame) -> list[str]:
    return [finding.name for finding in score_findings(table)]


def test_a_healthy_evaluation_is_left_alone() -> None:
    assert names(evaluation()) == []


@pytest.mark.parametrize(
    ("methods", "expected", "text"),
    [
        ({"coordinates": 0.31}, "split_leaks", r"Position alone, .* reaches r = 0.310"),
        ({"ae_only": 0.94}, "embedding_leak", "embedding alone reaches 99% of the ceiling"),
        ({"fused_permuted": 0.79}, "image_ignored", r"r = 0.800, shuffled 0.790"),
        ({"density": 0.69}, "density_suffices", r"Nuclear density alone does as well \(r = 0.690\)"),
        ({"colour": 0.72}, "colour_suffices", "Colour alone does as well"),
        ({"hand_features": 0.71}, "hand_features_suffices", "A ridge regression on simple image features"),
        ({"neighbours": 0.75}, "neighbours_suffices", "mean label of the patches around"),
        ({"he_only": 0.44}, "he_only_collapses", r"falls from r = 0.800 to 0.440, below a ridge .*\(0.600\)"),
    ],
)
def test_scores_that_give_a_trap_away(methods: dict[str, float], expected: str, text: str) -> None:
    found = {f.name: f.text for f in score_findings(evaluation(**methods))}
    assert expected in found
    assert pd.Series(found[expected]).str.contains(text).item()
    assert set(found) <= {expected, "hand_features_suffices", "neighbours_suffices"}  # the notes go with a poor model


def test_a_chance_likeness_of_two_slides_is_no_leak() -> None:
    table = evaluation(coordinates=0.12)
    table.loc[table["method"] == "coordinates", "p"] = 0.4
    assert names(table) == []
    assert names(table.drop(columns="p")) == ["split_leaks"]
    coordinates = table["method"] == "coordinates"
    table.loc[coordinates, "p"] = np.nan  # as on a slide that leaves hardly any shift
    assert names(table) == []
    table.loc[coordinates, "p"] = 0.4
    table.loc[coordinates & (table["signature"] == "A"), "p"] = 1e-6  # one of four; a leak shows in most
    assert names(table) == []
    table.loc[coordinates & (table["signature"] == "B"), "p"] = 1e-6
    assert names(table) == ["split_leaks"]


def test_patches_are_no_replicates() -> None:
    table = evaluation()
    table.loc[table["method"] == "he_only", "p"] = 0.3
    assert names(table) == ["not_beyond_chance"]
    assert names(table[table["patient"] == "P0"]) == ["not_beyond_chance", "few_patients"]


def test_few_patients_are_not_told_to_do_what_was_done() -> None:
    few = evaluation()[lambda table: table["patient"] == "P0"]
    advice = "Use `sp.tl.cross_validate`"
    (alone,) = [f for f in score_findings(few) if f.name == "few_patients"]
    assert advice in alone.text
    (crossed,) = [
        f for f in score_findings(few.assign(fold=0)) if f.name == "few_patients"
    ]  # as cross_validate returns it
    assert (advice in crossed.text, "only more patients help" in crossed.text) == (False, True)
    beside = after_cross_validation(findings_table([alone]))
    assert advice not in beside["text"].item()
    assert "read the numbers of the cross-validation" in beside["text"].item()


def test_slides_without_enough_patches_are_named() -> None:
    table = evaluation()
    first = table["sample"].iloc[0]
    table.loc[table["sample"] == first, "n_patches"] = 9
    (found,) = [finding for finding in score_findings(table) if finding.name == "few_patches"]
    assert (found.severity, f"{first} (9): fewer than 10 labelled patches" in found.text) == ("warning", True)
    table["n_patches"] = 9
    (found,) = [finding for finding in score_findings(table) if finding.name == "few_patches"]
    assert found.severity == "error"


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("ceiling", 0.5, "labels_noisy"),
        ("ceiling", np.nan, "no_ceiling"),
        ("r_n_cells", 0.4, "labels_follow_n_cells"),
        ("r_log_counts", -0.7, "labels_follow_log_counts"),
        ("stain_shift", 3.0, "stain_shift"),
    ],
)
def test_labels_and_slides_that_cannot_carry_a_score(column: str, value: float, expected: str) -> None:
    table = evaluation()
    table.loc[:, column] = value
    assert set(names(table)) == {expected}


@dataclass
class Config:
    fusion: str = "gated"
    modality_dropout: float = 0.0


class Model(sp.models.SignatureViT):
    """What a model says of itself, without a network."""

    def __init__(self, config: Config | None = None, run: dict[str, Any] | None = None) -> None:
        self.config = config or Config()  # type: ignore[assignment]
        self.run = run or {"test_fold": 1}


def test_a_model_that_always_saw_the_embedding(patched: sd.SpatialData) -> None:
    found = sp.tl.findings(patched, Model())
    assert {"never_without_embedding", "scores_from_test"} <= set(found["name"])  # scored with fold 0 held out
    assert found["severity"].iloc[0] == "error"
    kept = sp.tl.findings(patched, Model(Config(modality_dropout=0.3), {"test_fold": 0}))
    assert not {"never_without_embedding", "scores_from_test"} & set(kept["name"])
    distilled = sp.tl.findings(patched, Model(run={"test_fold": 0, "distil": 0.5}))
    assert "never_without_embedding" not in set(distilled["name"])
