"""Slides that hold the same are told, those that share an image by right are not: from records, not from pixels or counts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import Affine, get_transformation, set_transformation
from tests.quick import all_of

import spatialsig as sp
from spatialsig.errors import LeakageError, SpatialsigWarning
from spatialsig.models import SignatureViT
from spatialsig.nn.signature import SignatureConfig
from spatialsig.slide import copies
from spatialsig.slide.copies import check_copies
from spatialsig.store.commit import write_attrs
from spatialsig.store.manifest import NAME


def toy(seed: int) -> sd.SpatialData:
    return sp.datasets.toy(size_um=300, seed=seed)


def with_image_of(slide: sd.SpatialData, other: sd.SpatialData) -> sd.SpatialData:
    """The H&E of another slide, placed as it is there."""
    slide["he_image"] = other["he_image"]
    return slide


def beside(slide: sd.SpatialData) -> sd.SpatialData:
    """The image of seed 0, of which the cells of this slide lie in another part: a core of an array, or a section."""
    slide = with_image_of(slide, toy(0))
    place = get_transformation(slide["he_image"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    place[:2, 2] -= 280 / 0.2125
    set_transformation(slide["he_image"], Affine(place, ("x", "y"), ("x", "y")), "global")
    return slide


def without_cells(slide: sd.SpatialData) -> sd.SpatialData:
    del slide.tables["table"], slide.shapes["cell_circles"]
    return slide


def scored_again(slide: sd.SpatialData) -> sd.SpatialData:
    sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
    slide["table"].X = slide["table"].X * 2
    return slide


def without_counts(slide: sd.SpatialData) -> sd.SpatialData:
    slide["table"].X = slide["table"].X * 0
    slide["table"].X.eliminate_zeros()
    return slide


def plain(slide: sd.SpatialData) -> sd.SpatialData:
    """A placeholder in place of the H&E."""
    for level in slide["he_image"].children.values():
        level["image"] = level["image"].copy(data=level["image"].data * 0 + 240)
    return slide


# case -> how the first slide and the second are made, and whether two patients are refused and one is warned of
CASES: dict[str, tuple[Callable[[], sd.SpatialData], Callable[[], sd.SpatialData], bool, bool]] = {
    "a copy": (lambda: toy(0), lambda: toy(0), True, True),
    "another slide": (lambda: toy(0), lambda: toy(1), False, False),
    "the H&E of another": (lambda: toy(0), lambda: with_image_of(toy(1), toy(0)), True, False),
    "the counts of another": (lambda: toy(0), lambda: with_image_of(toy(0), toy(1)), True, True),
    "another part of one scan": (lambda: toy(0), lambda: beside(toy(1)), False, False),
    "scans without cells": (lambda: without_cells(toy(0)), lambda: without_cells(toy(0)), True, False),
    "placeholders": (lambda: plain(toy(0)), lambda: plain(toy(1)), False, False),
    "a copy with other counts": (lambda: toy(0), lambda: scored_again(toy(0)), True, False),
    "cells without counts": (lambda: without_counts(toy(0)), lambda: without_counts(toy(1)), False, False),
}


QUICK = {"a copy", "the counts of another", "another part of one scan", "placeholders"}


def written(slides: list[sd.SpatialData], patients: tuple[str, ...], folder: Path) -> sp.Cohort:
    for number, (slide, patient) in enumerate(zip(slides, patients, strict=True)):
        slide.attrs["spatialsig"] |= {"sample": f"S{number}", "patient": patient}
        sp.io.write(slide, folder / f"S{number}.zarr")
    return sp.Cohort(folder)


@pytest.mark.parametrize("name", all_of(CASES, quick=QUICK))
def test_two_patients_and_one(name: str, tmp_path: Path) -> None:
    first, second, refused, warned = CASES[name]
    two = written([first(), second()], ("P0", "P1"), tmp_path / "two")
    if refused:
        with pytest.raises(
            LeakageError, match=r"'S0' \(patient 'P0'\) and 'S1' \(patient 'P1'\) hold the same .*subset"
        ):
            check_copies(two)
    else:
        check_copies(two)
    one = written([first(), second()], ("P0", "P0"), tmp_path / "one")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SpatialsigWarning)
        check_copies(one)
    assert ["these count twice" in str(one.message) for one in told] == [True] * warned


@pytest.mark.parametrize("change", ["by spatialdata", "another layout"])
def test_images_are_known_by_what_results_record(change: str, tmp_path: Path) -> None:
    """Where the files differ, or no manifest lists them."""
    slides = [scored_again(toy(0)), toy(0)]
    sp.pp.make_patches(slides[1], patch_px=28, um_per_px=2.0)
    cohort = written(slides, ("P0", "P1"), tmp_path / "c")
    if change == "another layout":
        sp.io.optimize(cohort.stores["S1"], layout="speed")
    else:
        theirs = sp.io.read(cohort.stores["S1"])
        theirs.write(tmp_path / "S1.zarr")
        assert not list((tmp_path / "S1.zarr").rglob(NAME))
        cohort = sp.Cohort({"S0": cohort.stores["S0"], "S1": tmp_path / "S1.zarr"})
    with pytest.raises(LeakageError, match="the same part of the same H&E"):
        check_copies(cohort)


def permuted(slide: sd.SpatialData) -> sd.SpatialData:
    order = np.random.default_rng(0).permutation(slide["table"].n_obs)
    slide["table"] = slide["table"][order].copy()
    return slide


def half(slide: sd.SpatialData) -> sd.SpatialData:
    """The cells on the left."""
    x = slide["table"].obsm["spatial"][:, 0]
    slide["table"] = slide["table"][x < np.median(x)].copy()
    return slide


def dense(slide: sd.SpatialData) -> sd.SpatialData:
    slide["table"].X = np.asarray(slide["table"].X.todense())
    return slide


def genes_in_another_order(slide: sd.SpatialData) -> sd.SpatialData:
    slide["table"] = slide["table"][:, ::-1].copy()
    return slide


def another_grid_of_spots(slide: sd.SpatialData) -> sd.SpatialData:
    """Other counts at the same places, as where spots lie on a grid."""
    table = slide["table"]
    table.X = table.X[np.random.default_rng(1).permutation(table.n_obs)]
    return slide


REWRITTEN: dict[str, tuple[Callable[[sd.SpatialData], sd.SpatialData], bool]] = {
    "as it is": (lambda slide: slide, True),
    "rows in another order": (permuted, True),
    "half of the cells": (half, True),
    "dense counts": (dense, True),
    "genes in another order": (genes_in_another_order, True),
    "other counts at the same places": (another_grid_of_spots, False),
    "without counts": (without_counts, False),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_cells_are_known_however_another_program_wrote_them(name: str, tmp_path: Path) -> None:
    change, is_copy = REWRITTEN[name]
    theirs = with_image_of(change(toy(0)), toy(1))
    theirs.attrs["spatialsig"] |= {"sample": "S1", "patient": "P1"}
    theirs.write(tmp_path / "S1.zarr")
    ours = written([toy(0)], ("P0",), tmp_path / "ours")
    cohort = sp.Cohort({"S0": ours.stores["S0"], "S1": tmp_path / "S1.zarr"})
    if not is_copy:
        check_copies(cohort)
        return
    with pytest.raises(LeakageError, match="the same counts of the same cells"):
        check_copies(cohort)


@pytest.mark.parametrize("change", [lambda slide: slide, plain], ids=["an image", "a placeholder"])
def test_images_are_known_however_another_program_wrote_them(
    change: Callable[[sd.SpatialData], sd.SpatialData], tmp_path: Path
) -> None:
    theirs = without_cells(change(toy(0)))
    theirs.attrs["spatialsig"] |= {"sample": "S1", "patient": "P1"}
    theirs.write(tmp_path / "S1.zarr")
    ours = written([change(toy(0))], ("P0",), tmp_path / "ours")
    cohort = sp.Cohort({"S0": ours.stores["S0"], "S1": tmp_path / "S1.zarr"})
    if change is plain:
        check_copies(cohort)
        return
    with pytest.raises(LeakageError, match="the same part of the same H&E"):
        check_copies(cohort)


# what learns from slides, with what it needs beside them
SCALE = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
UNTRAINED = SignatureViT(SignatureConfig(), ["Immune_T"], **SCALE, patch_px=28, um_per_px=2.0)
LEARNS: dict[str, dict[str, Any]] = {
    "pp.split": {},
    "pp.highly_variable_genes": {},
    "tl.score_cells": {"signatures": "seed"},
    "tl.train_autoencoder": {},
    "tl.pretrain_vit": {},
    "tl.train_vit": {},
    "tl.train_cell_head": {"model": UNTRAINED},
    "tl.train_ensemble": {},
    "tl.train_probe": {"features_key": "features"},
    "tl.baselines": {},
    "tl.embedding_leak": {},
    "tl.power": {},
    "tl.scales": {},
    "tl.evaluate_cells": {},
    "tl.referee": {
        "predictions": pd.DataFrame({"sample": ["S0"], "patch_id": [0], "Immune_T": [0.0]}),
        "unit": "scores",
    },
}


def test_every_function_with_a_fold_held_out_is_listed() -> None:
    public = {
        f"{room.__name__.split('.')[-1]}.{name}": getattr(room, name)
        for room in (sp.pp, sp.tl)
        for name in room.__all__
    }
    with_fold = {name for name, one in public.items() if "test_fold" in inspect.signature(one).parameters}
    assert with_fold <= LEARNS.keys()


# those with expression pass over an H&E alone
ALONE = [("tl.pretrain_vit", without_cells)]


@pytest.mark.parametrize(("name", "change"), [*((name, lambda slide: slide) for name in LEARNS), *ALONE])
def test_whatever_learns_refuses_copies(
    name: str, change: Callable[[sd.SpatialData], sd.SpatialData], tmp_path: Path
) -> None:
    cohort = written([toy(0), toy(2), change(toy(0))], ("P0", "P2", "P1"), tmp_path)
    for store, fold in zip(cohort.stores.values(), (0, 1, 1), strict=True):
        split = {"by": "patient", "n_folds": 2, "seed": 0, "fold": fold}
        write_attrs(store, {"spatialsig": sp.io.read(store).attrs["spatialsig"] | {"split": split}})
    room, _, function = name.partition(".")
    with pytest.raises(LeakageError, match="'S0' .* and 'S2' .* hold the same"):
        getattr(getattr(sp, room), function)(cohort, **LEARNS[name])


def test_an_image_that_was_replaced_since_is_another(tmp_path: Path) -> None:
    slides = [toy(0), with_image_of(toy(1), toy(0))]
    for slide in slides:
        sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
    with_image_of(slides[1], toy(1))
    check_copies(written(slides, ("P0", "P1"), tmp_path))


def test_neither_pixels_nor_counts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = written([toy(0), toy(1)], ("P0", "P1"), tmp_path)
    monkeypatch.setattr(copies, "open_slides", lambda *_: pytest.fail("a store was opened"))
    check_copies(cohort)
    sp.pp.split(toy(0), by="block", block_um=100, buffer_um=0)  # one slide is no copy of itself
