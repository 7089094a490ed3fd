"""What a model or a table has learned from, by name, against the slides that are held out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import SpatialsigWarning
from spatialsig.evaluation.evaluate import all_findings
from spatialsig.slide.seen import noted, read_note, seen_of

SIZE = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
FIT: dict[str, Any] = {"size": SIZE, "max_epochs": 1}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Three patients, a fold each."""
    place = tmp_path_factory.mktemp("cohort")
    for number in range(3):
        slide = sp.datasets.toy_study(seed=number)
        split = {"by": "patient", "n_folds": 3, "seed": 0, "fold": number}
        slide.attrs["spatialsig"] |= {"sample": f"S{number}", "patient": f"P{number}", "split": split}
        for table in slide.tables.values():
            table.obs["sample"] = f"S{number}"
        del slide.attrs["spatialsig"]["lineage"]  # the folds are others than those that it was scored with
        sp.io.write(slide, place / f"S{number}.zarr")
    return sp.Cohort(place)


@pytest.fixture(scope="module")
def network(cohort: sp.Cohort) -> sp.models.PretrainedViT:
    """Has not seen fold 0."""
    return sp.tl.pretrain_vit(cohort, test_fold=0, **FIT)


def told(data: sp.Cohort | sd.SpatialData, **options: Any) -> tuple[list[str], list[str]]:
    """Warnings of a training that name what was seen, and the findings of its model."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        model = sp.tl.train_vit(data, use_rep=None, **options)
    said = [text for one in caught if "has learned from" in (text := str(one.message))]
    return said, [one.text for one in all_findings([], model, None) if one.name == "given_from_test"]


def test_a_pretrained_network_is_compared_with_what_is_held_out(
    cohort: sp.Cohort, network: sp.models.PretrainedViT, tmp_path: Path
) -> None:
    assert network.run["training_patients"] == ["P1", "P2"]
    assert told(cohort, test_fold=0, pretrained=network, **FIT) == ([], [])
    network.save(tmp_path / "n")
    said, found = told(cohort, test_fold=1, pretrained=tmp_path / "n", **FIT)
    assert len(said) == len(found) == 1
    for text in (*said, *found):
        assert "he pretrained network has learned from S1 of patient P1, which is held out here" in text


def test_features_say_what_their_network_has_seen(cohort: sp.Cohort, network: sp.models.PretrainedViT) -> None:
    sp.tl.embed_patches(cohort, network)
    options = {"backbone": "table:embedding", "max_epochs": 1, "size": SIZE}
    assert told(cohort, test_fold=0, **options) == ([], [])
    said, found = told(cohort, test_fold=2, **options)
    assert "The network of 'embedding' has learned from S2 of patient P2" in found[0]
    assert len(said) == 1


def test_a_table_that_was_changed_by_hand_is_not_kept(cohort: sp.Cohort, network: sp.models.PretrainedViT) -> None:
    store = cohort.stores["S0"]
    sp.tl.embed_patches(store, network, key_added="kept")
    right = np.asarray(sp.io.read(store)["kept"].X)
    edited = sp.io.read(store)
    edited["kept"].X = np.zeros_like(right)
    sp.io.write(edited, store, overwrite=True)
    sp.tl.embed_patches(store, network, key_added="kept", skip_done=True)
    np.testing.assert_array_equal(np.asarray(sp.io.read(store)["kept"].X), right)


SPLIT = {"by": "patient", "fold": 1}


@pytest.mark.parametrize(
    ("run", "split", "found"),
    [
        ({"training_samples": ["S"]}, SPLIT, True),
        ({"training_patients": ["P"]}, SPLIT, True),
        ({"training_samples": ["T"], "training_patients": ["Q"]}, SPLIT, False),
        ({"training_samples": ["S"]}, SPLIT | {"fold": 0}, False),
        ({"training_samples": ["S"]}, {"by": "block"}, False),  # both sides lie on one slide
        ({}, SPLIT, False),
    ],
)
def test_slides_are_known_by_name_or_patient(run: dict[str, Any], split: dict[str, Any], found: bool) -> None:
    assert bool(seen_of([("S", "P", split)], read_note(noted(run)), [1])) is found
    assert read_note({"seen": "{"}) == read_note({"seen": "[1]"}) == {}
