"""Arrays that are no plain numbers, text that YAML 1.1 takes for other numbers, and files that change under a reader."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import tifffile

import spatialsig as sp
from spatialsig._yaml import read_yaml
from spatialsig.errors import InputError
from spatialsig.geometry.landmarks import fit_affine
from spatialsig.geometry.placement import check_place, real_numbers
from spatialsig.slide.slides import open_slides

IMAGE = np.full((12, 12, 3), 200, np.uint8)
SQUARE = np.array([[2.0, 2], [2, 9], [9, 2], [9, 9]])


def spots(counts: Any = None, xy: Any = SQUARE) -> ad.AnnData:
    table = ad.AnnData(np.ones((4, 1), np.float32) if counts is None else counts)
    table.obsm["spatial"] = xy
    return table


def masked(values: np.ndarray) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.masked_array(values, mask=np.arange(values.size).reshape(values.shape) == 0)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {"masked": masked, "complex": lambda values: values.astype(complex)}


@cache
def study() -> sd.SpatialData:
    return sp.datasets.toy_study(predicted=True)


def with_part(make: Callable[[np.ndarray], Any], section: str) -> sd.SpatialData:
    """A slide of which one array of the cells, or of the predictions, is masked or complex."""
    slide = sd.deepcopy(study())
    cells = slide["table"]
    if section == "X":
        cells.X = make(cells.X.toarray())
    elif section == "predictions":
        slide["signatures_pred"].X = make(np.asarray(slide["signatures_pred"].X))
    elif section == "labels":
        slide["signatures"].X = make(np.asarray(slide["signatures"].X))
    elif section == "layer":
        cells.layers["other"] = make(cells.X.toarray())
    else:
        key = "spatial" if section == "positions" else "other"
        cells.obsm[key] = make(np.asarray(cells.obsm["spatial"]))
    del slide.attrs["spatialsig"]["lineage"]
    return slide


READS: dict[str, tuple[str, Callable[[sd.SpatialData], object]]] = {
    "score_cells": ("X", lambda s: sp.tl.score_cells(s, "seed", test_fold=None)),
    "normalize": ("X", sp.pp.normalize),
    "highly_variable_genes": ("X", lambda s: sp.pp.highly_variable_genes(s, n_top_genes=20)),
    "filter_cells": ("X", lambda s: sp.pp.filter_cells(s, min_counts=1)),
    "noise_ceiling": ("X", lambda s: sp.tl.noise_ceiling(s)),
    "assign_cells": ("positions", sp.pp.assign_cells),
    "split": ("positions", lambda s: sp.pp.split(s, by="block", block_um=100, buffer_um=0, n_folds=2)),
    "qc_alignment": ("positions", sp.pp.qc_alignment),
    "scatter": ("predictions", lambda s: sp.pl.scatter(s, ["Immune_T"])),
    "export_heatmap": ("predictions", lambda s: sp.io.export_heatmap(s, "never.ome.tif", "Immune_T")),
    "train_vit": ("labels", lambda s: sp.tl.train_vit(s, use_rep=None, max_epochs=1)),
    "baselines": ("labels", sp.tl.baselines),
    "mean of an array": ("array", lambda s: sp.tl.aggregate_patches(s, targets={"obsm": "other"}, use_rep=None)),
    "mean of a layer": ("layer", lambda s: sp.tl.aggregate_patches(s, targets={"layers": "other"}, use_rep=None)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", READS)
def test_every_reader_of_arrays_refuses_them(name: str, form: str) -> None:
    section, read = READS[name]
    slide = with_part(FORMS[form], section)
    with pytest.raises(InputError, match=form):
        read(slide)


@pytest.mark.parametrize("section", ["X", "positions", "predictions", "labels", "layer", "array"])
def test_masks_are_not_written(section: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was written: .* is masked"):
        sp.io.write(with_part(masked, section), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("form", FORMS)
def test_from_anndata(form: str) -> None:
    make = FORMS[form]
    for table in (spots(counts=make(np.ones((4, 1)))), spots(xy=make(SQUARE))):
        with pytest.raises(InputError, match=form):
            sp.io.from_anndata(table, IMAGE, um_per_px=1.0)
    with pytest.raises(InputError, match=form):
        sp.io.from_anndata(spots(), make(IMAGE), um_per_px=1.0)


@pytest.mark.parametrize("held", [True, np.True_, 1j, "1", None])
def test_a_matrix_and_points_hold_numbers_alone(held: object) -> None:
    matrix: Any = [[1.0, 0, 0], [0, held, 0], [0, 0, 1]]
    for refuse in (
        lambda: check_place(matrix, name="m", fix="look"),
        lambda: sp.io.from_anndata(spots(), IMAGE, to_image=matrix, um_per_px=1.0),
        lambda: fit_affine([[0, 0], [0, 1], [held, 0]], SQUARE[:3], name="m"),
    ):
        with pytest.raises(InputError):
            refuse()
    assert real_numbers([[1, np.float32(2)], [np.int64(3), np.nan]], name="m").dtype == np.float64


YAML = {
    "010": "010", "1:30": "1:30", "1_000": 1000, "10": 10, "-3": -3, "0": 0, "0x1F": 31, "0.5": 0.5, "-1.5e+3": -1500.0,
    ".inf": np.inf, "yes": True, "007": "007", "1.": 1.0, "+.5": "+.5", "190:20:30.15": "190:20:30.15",
}  # fmt: skip


@pytest.mark.parametrize("text", YAML)
@pytest.mark.parametrize("settings", [False, True])
def test_numbers_of_yaml_are_those_that_people_write(text: str, settings: bool) -> None:
    found = read_yaml(f"a: {text}", settings=settings)["a"]
    assert (type(found), found) == (type(YAML[text]), YAML[text])


def test_names_in_yaml_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("010: [CD3D]\n")
    assert sp.io.read_signatures(tmp_path / "s.yaml") == {"010": ["CD3D"]}
    (tmp_path / "w.yaml").write_text("A: {CD3D: 010}\n")
    with pytest.raises(InputError, match="has the weight '010'"):
        sp.io.read_signatures(tmp_path / "w.yaml")


def image(path: Path, shade: int) -> None:
    tifffile.imwrite(path, np.full((600, 600, 3), shade, np.uint8), photometric="rgb", tile=(256, 256))


USES: dict[str, Callable[[sd.SpatialData, Path], object]] = {
    "write": lambda slide, folder: sp.io.write(slide, folder / "a.zarr"),
    "find_tissue": lambda slide, _: sp.pp.find_tissue(slide),
    "make_patches": lambda slide, _: sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0, min_tissue=0),
    "pixels": lambda slide, _: slide["he_image"]["scale0"]["image"].to_numpy(),
    "another process": lambda slide, _: pickle.loads(pickle.dumps(slide["he_image"]["scale0"]["image"].data)).compute(),
}


@pytest.mark.parametrize("how", ["in place", "by another file"])
@pytest.mark.parametrize("use", USES)
def test_an_image_file_that_was_replaced_is_not_read(use: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "he.tif"
    image(path, 200)
    os.utime(path, (1, 1))
    slide = sp.io.read_he(path, um_per_px=1.0)
    USES["pixels"](slide, tmp_path)
    if how == "in place":
        image(path, 90)
    else:
        image(tmp_path / "other.tif", 90)
        (tmp_path / "other.tif").replace(path)
    with pytest.raises(
        InputError, match=r"he\.tif' is another file than the one that was opened.*read the slide again"
    ):
        USES[use](slide, tmp_path)
    assert not (tmp_path / "a.zarr").exists()


def test_an_image_that_stays_or_goes_is_read(tmp_path: Path) -> None:
    image(tmp_path / "he.tif", 200)
    slide = sp.io.read_he(tmp_path / "he.tif", um_per_px=1.0)
    (tmp_path / "he.tif").rename(tmp_path / "gone.tif")  # it is still open
    assert USES["pixels"](slide, tmp_path).max() == 200  # type: ignore[attr-defined]
    assert next(iter(open_slides(slide))).name == "he"
