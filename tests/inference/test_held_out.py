"""Nothing that judges takes what its model has learned from, nor labels that the model did not learn: every judge is tried."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import spatialdata as sd
from tests.quick import all_of

import spatialsig as sp
from spatialsig.errors import InputError, LeakageError, SpatialsigWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spatialsig.models import SignatureViT


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    """Two blocks; the model has held out fold 0."""
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> SignatureViT:
    return sp.datasets.toy_model(study)


JUDGES: dict[str, Callable[[sd.SpatialData, Any, int], object]] = {
    "scales": lambda s, m, fold: (sp.tl.predict(s, m), sp.tl.scales(s, scales_um=[56.0], test_fold=fold)),
    "evaluate_cells": lambda s, m, fold: (
        sp.tl.predict_cells(s, m, method="patch"),
        sp.tl.evaluate_cells(s, test_fold=fold, n_repeats=1),
    ),
    "evaluate_cells, head": lambda s, m, fold: (
        sp.tl.predict_cells(s, m, head=sp.tl.train_cell_head(s, m)),
        sp.tl.evaluate_cells(s, test_fold=fold, n_repeats=1),
    ),
    "calibrate": lambda s, m, fold: sp.tl.calibrate(s, m, fold=fold, coverage=0.5),
    "evaluate": lambda s, m, _: sp.tl.evaluate(s, m),  # of the fold that the model held out
    "train_cell_head": lambda s, m, fold: sp.tl.train_cell_head(s, m, test_fold=fold),
}


def call(judge: str, slide: sd.SpatialData, model: Any, fold: int) -> None:
    with warnings.catch_warnings(action="ignore", category=SpatialsigWarning):
        JUDGES[judge](slide, model, fold)


@pytest.mark.parametrize("judge", [name for name in JUDGES if name != "evaluate"])
def test_what_was_held_out_is_judged_and_what_was_learned_from_is_not(
    study: sd.SpatialData, model: SignatureViT, judge: str
) -> None:
    call(judge, sd.deepcopy(study), model, 0)
    with pytest.raises((LeakageError, InputError), match=r"trained the model|held out fold 0|learned from|not learn"):
        call(judge, sd.deepcopy(study), model, 1)


def other_method(slide: sd.SpatialData) -> None:
    sp.tl.score_cells(slide, "seed", method="ucell")


def wrong_sets(study: sd.SpatialData) -> dict[str, list[str]]:
    genes = list(study["table"].var_names)
    return {name: genes[k * 8 : k * 8 + 8] for k, name in enumerate(study["signatures"].var_names)}


def other_genes(slide: sd.SpatialData) -> None:
    sp.tl.score_cells(slide, wrong_sets(slide))


OTHER_LABELS = {"method": other_method, "gene_sets": other_genes}
PAIRS = [f"{judge} {what}" for judge in JUDGES for what in OTHER_LABELS]


@pytest.mark.parametrize(
    "pair", all_of(PAIRS, quick={"scales gene_sets", "evaluate_cells method", "calibrate gene_sets"})
)
def test_labels_that_the_model_did_not_learn_are_refused(study: sd.SpatialData, model: SignatureViT, pair: str) -> None:
    judge, what = pair.rsplit(" ", 1)
    slide = sd.deepcopy(study)
    OTHER_LABELS[what](slide)
    sp.tl.aggregate_patches(slide, min_cells=3, use_rep=None)
    with pytest.raises(InputError, match=rf"does not fit the labels that the model learned:(.|\n)*targets `{what}`"):
        call(judge, slide, model, 0)


def test_the_same_genes_in_another_order_are_the_same(study: sd.SpatialData, model: SignatureViT) -> None:
    slide = sd.deepcopy(study)
    sets = {name: list(genes)[::-1] for name, genes in sp.io.read_signatures("seed").items()}
    sp.tl.score_cells(slide, sets)
    sp.tl.aggregate_patches(slide, min_cells=3, use_rep=None)
    call("scales", slide, model, 0)


def test_what_a_store_keeps_of_the_labels_is_compared_as_what_memory_does(
    study: sd.SpatialData, model: SignatureViT, tmp_path: Path
) -> None:
    slide, store = sd.deepcopy(study), tmp_path / "s.zarr"
    sp.tl.predict(slide, model)
    sp.io.write(slide, store)
    with warnings.catch_warnings(action="ignore", category=SpatialsigWarning):
        sp.tl.scales(store, scales_um=[56.0])
        sp.tl.score_cells(store, wrong_sets(study))
        sp.tl.aggregate_patches(store, min_cells=3, use_rep=None)
        with pytest.raises(InputError, match=r"targets `gene_sets`: 6 wanted, 6 here"):
            sp.tl.scales(store, scales_um=[56.0])


def test_labels_are_no_predictions(study: sd.SpatialData) -> None:
    with pytest.raises(sp.errors.KeyMissingError, match="has no result of `predict`"):
        sp.tl.scales(study, scales_um=[56.0], predictions_key="signatures")
