"""The card of a model says what is known of it, lies outside the checksums, and stays as it was edited."""

import logging
from pathlib import Path

import pandas as pd
import pytest
import yaml

import spatialsig as sp
from spatialsig._known import MODELS
from spatialsig.models.card import CARD, RESULTS, card_text, results_of, write_card
from spatialsig.models.hub import from_hub

from .test_directory import KINDS, vit


def evaluation() -> pd.DataFrame:
    """Two patients, one with two slides; of the shuffled control one correlation is missing."""
    rows = [
        (method, f"S{k}", patient, r, 0.8, r / 0.8)
        for method, values in {
            "he_only": (0.2, 0.4, 0.7),
            "he_only_permuted": (0.0, None, 0.1),
            "density": (0.1, 0.1, 0.1),
        }.items()
        for k, (patient, r) in enumerate(
            zip(("P1", "P1", "P2"), (float("nan") if v is None else v for v in values), strict=True)
        )
    ]
    rows.append(("he_only", "(all slides)", "(all slides)", 0.99, 0.99, 1.0))
    return pd.DataFrame(rows, columns=["method", "sample", "patient", "pearson", "ceiling", "share_of_ceiling"])


def test_results_are_means_over_patients() -> None:
    found = {row["method"]: row for row in results_of(evaluation())}
    assert found["he_only"]["pearson"] == pytest.approx((0.3 + 0.7) / 2)
    assert found["he_only"]["share_of_ceiling"] == pytest.approx((0.3 + 0.7) / 2 / 0.8)
    assert found["he_only_permuted"]["pearson"] == pytest.approx(0.05)
    assert (found["he_only"]["n_slides"], found["he_only"]["n_patients"]) == (3, 2)


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_is_saved_with_a_card_whose_header_a_hub_can_read(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    model.save(tmp_path / "m")
    text = (tmp_path / "m" / CARD).read_text()
    assert text == model.card()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "spatialsig"
    assert header["license"] == "other"
    assert "histopathology" in header["tags"]
    for title in ("Use", "What it learned from", "Results on held-out slides", "Where it ends", "Licence", "Versions"):
        assert f"## {title}\n" in text
    (tmp_path / "m" / CARD).write_text("mine")  # nobody's checksum
    assert type(from_hub(tmp_path / "m")) is type(model)
    (tmp_path / "m" / CARD).unlink()
    assert type(from_hub(tmp_path / "m")) is type(model)


def test_a_card_says_data_resolution_stain_results_and_limits() -> None:
    model = vit()
    model.run = {
        "training_samples": ["S1", "S2", "S3"], "training_patients": ["P1", "P2"], "test_fold": 4, "seed": 7,
        "inputs": {"image": {"stain": "macenko"}, "targets": {"method": "z_mean", "genes": ["CD3D", "CD2"]}},
        RESULTS: results_of(evaluation()),
    }  # fmt: skip
    text = model.card()
    for said in (
        "| slides | 3 |", "| patients | 2 |", "| held-out fold | 4 |", "2 genes; scored by `z_mean`",
        "64 px at 0.5 µm/px (32 µm)", "normalised (macenko)", "| **this model, H&E alone** | 0.500 | 0.800 | 62% |",
        "| control: H&E shuffled within a slide | 0.050 |", "3 slides of 2 patients", "cannot warn of slides unlike them",
    ):  # fmt: skip
        assert said in text, said
    assert "S1" not in text.split("## What it learned from")[1]  # names of slides may tell of people
    assert "license: cc-by-4.0" in card_text(model, license_id="cc-by-4.0")


def test_a_card_that_was_edited_is_kept_and_one_of_ours_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, place = vit(), tmp_path / "m"
    model.save(place)
    model.run = {RESULTS: results_of(evaluation())}
    model.save(place, overwrite=True)
    assert "0.500" in (place / CARD).read_text()
    edited = (place / CARD).read_text().replace("Not stated.", "CC BY 4.0 of our hospital.")
    (place / CARD).write_text(edited)
    logging.getLogger("spatialsig").addHandler(caplog.handler)
    model.save(place, overwrite=True)
    write_card(place, model.card())
    logging.getLogger("spatialsig").removeHandler(caplog.handler)
    assert (place / CARD).read_text() == edited
    assert caplog.text.count("was edited by hand and is kept; delete it") == 2


def test_load_says_one_line_also_of_an_ensemble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ensemble = sp.models.SignatureEnsemble([vit(), vit()])
    ensemble.run[RESULTS] = results_of(evaluation())
    ensemble.save(tmp_path / "e")
    logging.getLogger("spatialsig").addHandler(caplog.handler)
    sp.models.load_signature_model(tmp_path / "e")
    logging.getLogger("spatialsig").removeHandler(caplog.handler)
    assert [record.message for record in caplog.records] == [
        "loaded SignatureEnsemble of 2 models; 1 signatures (T); patches of 64 px at 0.5 µm/px; H&E alone; no training slides; "
        "r 0.50, 62% of the ceiling on 3 held-out slides"
    ]


def test_evaluate_gives_the_card_its_results() -> None:
    sdata = sp.datasets.toy_study()
    model = sp.datasets.toy_model(sdata)
    assert "Not evaluated yet" in model.card()
    table = sp.tl.evaluate(sdata, model)
    r = table[table["method"] == "he_only"]["pearson"].mean()
    assert f"| **this model, H&E alone** | {r:.3f} |" in model.card()


def test_a_card_names_signatures_that_a_control_does_better_on() -> None:
    rows = [
        (method, signature, "S1", "P1", r, 0.8, r / 0.8)
        for method, of in {"he_only": (0.9, 0.42), "colour": (0.3, 0.49), "neighbours": (0.99, 0.99)}.items()
        for signature, r in zip(("Immune_T", "Immune_B"), of, strict=True)
    ]
    columns = ["method", "signature", "sample", "patient", "pearson", "ceiling", "share_of_ceiling"]
    model = vit()
    model.run = {RESULTS: results_of(pd.DataFrame(rows, columns=columns))}
    text = model.card()
    assert "| Immune_T | 0.900 | colour alone (ridge) | 0.300 |  |" in text
    assert "| Immune_B | 0.420 | colour alone (ridge) | 0.490 | no better than the control |" in text
    assert "nothing follows for others" in text
    assert "predict_files" in text
