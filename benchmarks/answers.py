"""What the package answers to what other people's files and habits broke elsewhere: every case by its call, with the message.

python benchmarks/answers.py
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from spatialdata import deepcopy
from spatialdata.transformations import Scale, Sequence, get_transformation, set_transformation

import spatialsig as sp
from spatialsig.cli import main as command_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData


def answer(call: Callable[[], object]) -> str:
    """The error or the warnings of a call; what it returned where there are none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            returned = call()
        except sp.errors.SpatialsigError as error:
            return f"{type(error).__name__}: {error}"
    ours = [str(each.message) for each in caught if issubclass(each.category, sp.errors.SpatialsigWarning)]
    return f"warns: {ours[0]}" if ours else f"returns {str(returned)[:400]}"


def typed(*words: object) -> Callable[[], object]:
    """A call of the command line, which answers on standard error."""

    def call() -> object:
        said = io.StringIO()
        before, sys.argv = sys.argv, ["spatialsig", *map(str, words)]
        try:
            with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
                command_line()
        finally:
            sys.argv = before
        return said.getvalue().replace("\n", " ")

    return call


def moved(slide: SpatialData) -> SpatialData:
    """The slide with its H&E twice as large."""
    before = get_transformation(slide["he_image"], "global")
    set_transformation(slide["he_image"], Sequence([Scale([2, 2], ("x", "y")), before]), "global")
    return slide


def cases(root: Path) -> dict[str, Callable[[], object]]:
    """Case -> call."""
    study = sp.datasets.toy_study(predicted=True)
    model = sp.datasets.toy_model(study)
    sp.io.write(deepcopy(study), root / "slide.zarr")
    model.save(root / "model")
    files = {
        "bom.gmt": "\ufeffT cells\tna\tCD3D\tCD3E\n", "twice.json": '{"T": ["CD3D"], "T": ["CD3E"]}', "excel.csv": "signature;gene\nT;1-Mar\n",
        "alike.csv": "sample,patient,bundle\nS1,P1,a\nS2,p1,b\n", "blank.csv": "sample,patient,bundle\nS1,P1,a\nS2,P1\u00a0,b\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")

    def cut_again() -> object:
        slide = deepcopy(study)
        sp.pp.make_patches(slide, patch_px=56, um_per_px=2.0)
        return sp.tl.aggregate_patches(slide, use_rep=None)

    def export_again() -> object:
        slide = deepcopy(study)
        sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0, stride_um=40)
        return sp.io.export_geojson(slide, root / "a.geojson")

    def counts(values: Callable[[object], object]) -> object:
        slide = deepcopy(study)
        slide["table"].X = values(slide["table"].X)
        return sp.tl.score_cells(slide, "seed", test_fold=None)

    def old_store() -> object:
        (root / "old.zarr").mkdir()
        (root / "old.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
        return sp.io.repair(root / "old.zarr")

    def other_weights() -> object:
        file = root / "model" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_px": 29}))
        return sp.models.SignatureViT.load(root / "model")

    adata = study["table"].copy()
    adata.obs["sample"] = np.where(np.arange(adata.n_obs) % 2, "S1", "S2")
    return {
        "A1 patches cut again after assign_cells": cut_again,
        "A2 export after new patches": export_again,
        "A3 H&E moved, then predict": lambda: sp.tl.predict(moved(deepcopy(study)), model),
        "A3 the same, listed by status": lambda: sp.io.status(moved(deepcopy(study))).query("state == 'stale'")["detail"].iloc[0],
        "A  a result in place of another element": lambda: sp.tl.predict(deepcopy(study), model, key_added="table"),
        "B4 patients P1 and p1": lambda: sp.Cohort.from_bundles(root / "alike.csv", root / "out"),
        "B4 patients P1 and P1 with a blank": lambda: sp.Cohort.from_bundles(root / "blank.csv", root / "out"),
        "B5 byte order mark": lambda: sp.io.read_signatures(root / "bom.gmt"),
        "B5 a set named twice": lambda: sp.io.read_signatures(root / "twice.json"),
        "B5 semicolons, a gene as a date": lambda: sp.io.read_signatures(root / "excel.csv"),
        "B6 two slides in one AnnData": lambda: sp.io.from_anndata(adata, image=np.zeros((9, 9, 3), np.uint8), um_per_px=1.0),
        "B8 a column that no store keeps": lambda: sp.io.write(_with_column(study), root / "column.zarr"),
        "C  image twice as large, by qc_alignment": lambda: sp.pp.qc_alignment(moved(deepcopy(study)))["verdict"].tolist(),
        "D13 repair of a Zarr 2 store": old_store,
        "D15 experiment.xenium instead of its directory": lambda: sp.io.read_he(root / "experiment.xenium"),
        "F  a number for a model": lambda: sp.tl.predict(study, 0),
        "F  max_epochs=10**30": lambda: sp.tl.train_vit(study, max_epochs=10**30),
        "F  infinite counts": lambda: counts(lambda x: x * np.inf),
        "F  a gene name twice": lambda: sp.tl.train_autoencoder(_named_twice(study), signatures="seed", max_epochs=1),
        "F  three-dimensional positions": lambda: sp.pp.assign_cells(_deep(study)),
        "H  an altered model": other_weights,
        "   the same, on the command line": typed("predict", root / "slide.zarr", "--model", root / "model"),
        "   a step missing, on the command line": typed("train", root / "slide.zarr", "--out", root / "m", "--set", "use_rep=X_ae"),
        "   a file that is no store, on the command line": typed("status", root / "bom.gmt"),
        "   an evaluation of other slides": lambda: sp.tl.findings(study, model, pd.DataFrame({
            "method": ["he_only"], "signature": ["T"], "sample": ["elsewhere"], "pearson": [0.5]
        })),
    }  # fmt: skip


def _with_column(slide: SpatialData) -> SpatialData:
    slide = deepcopy(slide)
    slide["table"].obs["when"] = pd.Timestamp("2026-01-01")
    return slide


def _named_twice(slide: SpatialData) -> SpatialData:
    slide = deepcopy(slide)
    slide["table"].var_names = [slide["table"].var_names[1], *slide["table"].var_names[1:]]
    return slide


def _deep(slide: SpatialData) -> SpatialData:
    slide = deepcopy(slide)
    slide["table"].obsm["spatial"] = np.pad(slide["table"].obsm["spatial"][:, None], ((0, 0), (0, 1), (0, 0)))
    return slide


def main() -> None:
    """Print every case and its answer."""
    sp.settings.progress = False
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "experiment.xenium").write_text("{}")
        for case, call in cases(Path(scratch)).items():
            print(f"{case}\n{textwrap.indent(textwrap.fill(answer(call).replace(scratch, '...'), 116), '    ')}")


if __name__ == "__main__":
    main()
