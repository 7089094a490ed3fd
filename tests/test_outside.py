"""What other people gave: each case found by trying, with the answer it should get."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sps
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning, StoreError
from spatialsig.evaluation.schema import slide_rows
from spatialsig.io._cohort import read_manifest
from spatialsig.pipeline import read_config
from spatialsig.store import lock


@pytest.fixture(scope="module")
def study() -> tuple[sd.SpatialData, object]:
    slide = sp.datasets.toy_study(predicted=True)
    return slide, sp.datasets.toy_model(slide)


def table(**columns: object) -> pd.DataFrame:
    rows = [(m, "A", f"S{k}", f"P{k}", 0.5, 0.6) for m in ("he_only", "density") for k in range(3)]
    frame = pd.DataFrame(rows, columns=["method", "signature", "sample", "patient", "pearson", "share_of_ceiling"])
    return frame.assign(**columns)


def with_first(column: str, value: object) -> pd.DataFrame:
    frame = table()
    frame[column] = frame[column].astype(object)
    frame.loc[0, column] = value
    return frame


EVALUATIONS = {
    "patient missing": (
        with_first("patient", None),
        "column 'patient' of the evaluation table is missing in 1 of 6 rows",
    ),
    "method missing": (with_first("method", None), "column 'method' .* is missing in 1 of 6 rows"),
    "signature missing": (with_first("signature", np.nan), "column 'signature' .* is missing in 1 of 6 rows"),
    "r above 1": (with_first("pearson", 60), "column 'pearson' .* holds 60.0; wanted numbers from -1 to 1"),
    "r infinite": (with_first("pearson", np.inf), "column 'pearson' .* holds inf; wanted numbers from -1 to 1"),
    "p above 1": (table(p=2.0), "column 'p' .* holds 2.0; wanted numbers from 0 to 1"),
    "truth values": (table(pearson=True), "column 'pearson' .* holds .*True"),
    "column twice": (pd.concat([table(), table()[["pearson"]]], axis=1), "has columns twice: pearson"),
}


@pytest.mark.parametrize("case", EVALUATIONS)
@pytest.mark.parametrize("reader", [sp.tl.summarise, sp.tl.compare_methods, slide_rows])
def test_an_evaluation_that_cannot_be_is_named(case: str, reader: object) -> None:
    frame, message = EVALUATIONS[case]
    with pytest.raises(InputError, match=message):
        reader(frame)  # type: ignore[operator]


@pytest.mark.parametrize("how", [lambda f: f.convert_dtypes(), lambda f: f.astype({"pearson": object})])
def test_an_evaluation_of_other_types_gives_the_same(how: object) -> None:
    pd.testing.assert_frame_equal(sp.tl.summarise(how(table())), sp.tl.summarise(table()))  # type: ignore[operator]


def test_an_evaluation_of_other_slides_is_refused(study: tuple[sd.SpatialData, object]) -> None:
    slide, model = study
    found = sp.tl.evaluate(slide, model)
    assert len(sp.tl.findings(slide, model, found.convert_dtypes())) == len(sp.tl.findings(slide, model, found))
    with pytest.raises(InputError, match="`evaluation` judges slides that are not in `data`: other"):
        sp.tl.findings(slide, model, found.assign(sample="other"))
    assert len(sp.tl.findings(slide, model, found[found["method"] != "he_only"]))


def test_predictions_are_no_labels(study: tuple[sd.SpatialData, object]) -> None:
    slide, model = study
    message = "`signatures_key='signatures_pred'` of slide 'toy' holds scores that a model predicted; wanted labels"
    for call in (
        lambda: sp.tl.calibrate(slide, model, fold=0, coverage=0.8, signatures_key="signatures_pred"),
        lambda: sp.tl.train_vit(slide, use_rep=None, max_epochs=1, signatures_key="signatures_pred"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(InputError, match="`embedding_key='signatures'` names the labels themselves"):
        sp.tl.baselines(slide, embedding_key="signatures")


def test_an_autoencoder_takes_counts_only() -> None:
    slide = sp.datasets.toy(size_um=150)
    model = sp.tl.train_autoencoder(slide, signatures="seed", n_latent=2, hidden=(4,), max_epochs=1, test_fold=None)
    counts = sps.csr_matrix(slide["table"].X)[:, model.align_genes(slide["table"].var_names)]
    for wrong in (counts.astype(np.complex64), counts.log1p(), -counts, counts * np.nan):
        for function in (model.get_latent_representation, model.get_reconstruction_error):
            with pytest.raises(InputError, match="wanted raw counts, whole numbers from 0"):
                function(sps.csr_matrix(wrong))
    with pytest.raises(InputError, match="holds no cells"):
        model.get_reconstruction_error(counts[:0])
    with pytest.raises(InputError, match=r"0 in all; wanted \(\d+,\) of bool, some True"):
        model.get_latent_representation(counts, measured=np.zeros(counts.shape[1], bool))


def test_a_model_takes_embeddings_that_are_numbers() -> None:
    config = sp.nn.signature.SignatureConfig(n_targets=1, n_latent=2, fusion="gated")
    scale = {"target_mean": [0.0], "target_std": [1.0]}
    model = sp.models.SignatureViT(config, ["T"], **scale, patch_px=64, um_per_px=0.5)
    images, ae = np.full((2, 3, 64, 64), 200, np.uint8), np.zeros((2, 2), np.float32)
    for wrong, said in (
        (np.ma.array(ae, mask=ae == 0), "masked"),
        (np.full_like(ae, np.inf), "infinite in 4 places"),
        (np.zeros((2, 2), int), "of type int64"),
    ):
        with pytest.raises(InputError, match=f"`ae` is {said}; wanted floats"):
            model.predict(images, wrong)


def test_a_place_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only share, as root, whom permissions do not hold: the kernel's answers, played."""
    slide = sp.datasets.toy(size_um=100)
    sp.io.write(slide, tmp_path / "slide.zarr")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lock, "_write_new", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    for call in (
        lambda: sp.pp.filter_cells(tmp_path / "slide.zarr", min_counts=1),
        lambda: sp.io.repair(tmp_path / "slide.zarr"),
        lambda: sp.io.write(slide, tmp_path / "other.zarr"),
    ):
        with pytest.raises(StoreError, match="cannot be written: Read-only file system"):
            call()
    with pytest.raises(StoreError, match="has too long a name; choose a shorter one"):
        sp.io.write(slide, tmp_path / f"{'y' * 250}.zarr")


def test_slides_that_were_exchanged_are_refused(tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        sp.io.write(sp.datasets.toy(size_um=100, sample=name, patient=name), tmp_path / f"{name}.zarr")
    with pytest.raises(
        InputError, match="slide 'S1': its store .*S2.zarr' names itself 'S2', the name of another slide"
    ):
        sp.Cohort({"S1": tmp_path / "S2.zarr", "S2": tmp_path / "S1.zarr"})
    assert list(sp.Cohort({"renamed": tmp_path / "S1.zarr", "S2": tmp_path / "S2.zarr"})) == ["renamed", "S2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patient": [b"a", b"b"]}, "column 'patient' of the manifest holds b'a', a bytes; wanted names as text"),
        ({"patient": [["a"], ["b"]]}, r"column 'patient' of the manifest holds \['a'\], a list"),
        ({"patient": ["P1", "P\u200b1"]}, "differ in upper and lower case or in blanks only"),
    ],
)
def test_names_in_a_manifest_are_text(changes: dict[str, object], message: str) -> None:
    rows = pd.DataFrame({"sample": ["S1", "S2"], "patient": ["A", "B"], "bundle": ["a", "b"]})
    with pytest.raises(InputError, match=message):
        read_manifest(rows.assign(**changes))


def test_one_alignment_for_two_slides_is_warned_of() -> None:
    rows = pd.DataFrame({"sample": ["S1", "S2"], "patient": ["A", "B"], "bundle": ["a", "b"]})
    with pytest.warns(SpatialsigWarning, match=r"slides \['S1', 'S2'\] share one `he_alignment`"):
        read_manifest(rows.assign(he_image=["x.tif", "y.tif"], he_alignment="m.csv"))
    with pytest.warns(SpatialsigWarning, match=r"slides \['S1', 'S2'\] share one `he_image`"):
        read_manifest(rows.assign(he_image="x.tif"))
    read_manifest(rows.assign(he_image="x.tif", he_alignment=["m.csv", "n.csv"]))  # two sections on one scan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split: {n_folds: 3, test_fold: 7}", "`split.test_fold` is 7, but must be below `split.n_folds`, 3"),
        ("seed: -1", "`seed` is -1, but must be greater than or equal to 0"),
        ("vit: {max_epoch: 1}", "vit` has no option `max_epoch`; did you mean `max_epochs`"),
        ("vit: {seed: 3}", "`vit.seed` is decided by the run: give it as `seed`"),
        (
            "autoencoder: {signatures: seed}",
            "`autoencoder.signatures` is decided by the run: give it as `labels.signatures`",
        ),
    ],
)
def test_a_configuration_is_refused_before_the_first_step(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(f"bundles: b\nout: r\n{text}\n")
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.yaml")


def test_a_fold_that_there_is_not_is_refused(study: tuple[sd.SpatialData, object]) -> None:
    slide, _ = study
    for call, message in (
        (
            lambda: sp.tl.train_vit(slide, use_rep=None, max_epochs=1, test_fold=7),
            "`test_fold=7`: slide 'toy' was split into folds 0 to",
        ),
        (lambda: sp.tl.score_cells(sd.deepcopy(slide), "seed", test_fold=7), "choose one of them"),
        (
            lambda: sp.tl.train_vit(slide, use_rep=None, max_epochs=1, test_fold=0, validation_fold=0),
            "`validation_fold=0` holds no labelled patch beside `test_fold=0`, so nothing would be chosen by it",
        ),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_labels_that_are_stale_are_a_finding(study: tuple[sd.SpatialData, object]) -> None:
    slide = sd.deepcopy(study[0])
    assert "labels_are_stale" not in sp.tl.findings(slide)["name"].tolist()
    slide["table"].X = slide["table"].X * 2
    found = sp.tl.findings(slide).set_index("name").loc["labels_are_stale"]
    assert found["severity"] == "error"
    assert "call `sp.tl." in found["text"]


def test_an_object_that_lost_its_attributes_is_warned_of(study: tuple[sd.SpatialData, object], tmp_path: Path) -> None:
    joined = sd.concatenate({"a": study[0], "b": sd.deepcopy(study[0])})
    for call in (lambda: sp.io.status(joined), lambda: sp.io.write(joined, tmp_path / "joined.zarr")):
        with pytest.warns(
            SpatialsigWarning, match="hold results of this package, but the object has none of its attributes"
        ):
            call()


GENES_TWICE = {
    "read": sp.io.read,
    "write": lambda path: sp.io.write(sp.io.read(path), path.with_name("other.zarr")),
    "filter_cells": sp.pp.filter_cells,
    "highly_variable_genes": lambda path: sp.pp.highly_variable_genes(path, test_fold=None),
    "train_autoencoder": lambda path: sp.tl.train_autoencoder(path, signatures="seed", max_epochs=1, test_fold=None),
    "score_cells": lambda path: sp.tl.score_cells(path, "seed", test_fold=None),
    "make_patches": lambda path: sp.pp.make_patches(path, patch_px=28, um_per_px=2.0),
}


@pytest.mark.parametrize("name", GENES_TWICE)
def test_a_gene_name_twice_is_answered_once_and_by_us(name: str, tmp_path: Path) -> None:
    slide = sp.datasets.toy(size_um=100)
    slide["table"].var["x"] = pd.Series([None, *["a"] * (slide["table"].n_vars - 1)], slide["table"].var_names, object)
    names = [*slide["table"].var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide["table"].var_names = [names[1], *names[1:]]
        slide.write(tmp_path / "s.zarr")
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            GENES_TWICE[name](tmp_path / "s.zarr")
        except InputError as error:
            said = [str(error)]
    said += [str(each.message) for each in caught if "ames" in str(each.message)]
    assert len(said) == (name not in ("filter_cells", "make_patches")), said
    assert all(f"hold 1 name(s) of several genes: {names[1]}. Call `var_names_make_unique()`" in text for text in said)
