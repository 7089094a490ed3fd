from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spatialsig as sp
from spatialsig import Cohort
from spatialsig.errors import FileMissingError, InputError, KeyMissingError, SpatialsigWarning, StoreError

from .io import conftest as bundle_files


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Two bundles, their manifest and the cohort read from them; copied by the tests that change them."""
    root = tmp_path_factory.mktemp("cohort")
    bundle_files.write_bundle(root / "bundles" / "a", seed=1)
    bundle_files.write_bundle(root / "bundles" / "b", seed=2, he=False)
    rows = pd.DataFrame({"sample": ["S1", "S2"], "patient": ["P1", "P2"], "bundle": ["bundles/a", "bundles/b"]})
    rows.to_csv(root / "bundles.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        Cohort.from_bundles(root / "bundles.csv", root / "stores")
    return root


@pytest.fixture
def root(kept, tmp_path):
    """The same without the stores."""
    shutil.copytree(kept / "bundles", tmp_path / "bundles")
    shutil.copy(kept / "bundles.csv", tmp_path)
    return tmp_path


def test_bundles_become_stores_and_a_manifest(kept) -> None:
    cohort = Cohort.open(kept / "stores")
    assert list(cohort) == ["S1", "S2"]
    assert len(cohort) == 2
    assert "S1" in cohort
    assert "S3" not in cohort
    assert cohort.stores == {"S1": kept / "stores/S1.zarr", "S2": kept / "stores/S2.zarr"}
    assert cohort.obs[["sample", "patient"]].to_numpy().tolist() == [["S1", "P1"], ["S2", "P2"]]
    assert cohort.obs["path"].tolist() == list(cohort.stores.values())
    assert cohort.failures == {}
    slide = cohort["S1"]
    assert set(slide["table"].obs["sample"]) == {"S1"}
    assert set(slide["table"].obs["patient"]) == {"P1"}
    assert slide["he_image"]["scale0"]["image"].shape == (3, 700, 900)
    assert not cohort["S2"].images


def test_slides_that_are_done_are_not_read_again(kept, tmp_path, monkeypatch) -> None:
    shutil.copytree(kept / "stores", tmp_path / "stores")

    def never(*args, **kwargs):
        pytest.fail("read again")

    monkeypatch.setattr("spatialsig.io.read_xenium", never, raising=False)
    cohort = Cohort.from_bundles(kept / "bundles.csv", tmp_path / "stores")
    assert list(cohort) == ["S1", "S2"]
    assert cohort.failures == {}


def test_an_interrupted_import_goes_on(kept, tmp_path, monkeypatch) -> None:
    shutil.copytree(kept / "stores", tmp_path / "stores")
    shutil.rmtree(tmp_path / "stores" / "S2.zarr")
    read, seen = sp.io.read_xenium, []
    monkeypatch.setattr(
        "spatialsig.io.read_xenium", lambda path, **kw: (seen.append(kw["sample"]), read(path, **kw)), raising=False
    )
    assert list(Cohort.from_bundles(kept / "bundles.csv", tmp_path / "stores")) == ["S1", "S2"]
    assert seen == ["S2"]


def test_outlines_are_read_where_they_are_asked_for(kept, tmp_path, monkeypatch) -> None:
    read, seen = sp.io.read_xenium, []

    def without_outlines(path, *, boundaries, **kw):
        seen.append(boundaries)
        return read(path, **kw)

    monkeypatch.setattr("spatialsig.io.read_xenium", without_outlines, raising=False)
    cohort = Cohort.from_bundles(kept / "bundles.csv", tmp_path / "stores", boundaries=True)
    assert seen == [True, True]
    with pytest.raises(InputError, match=r"was read without `boundaries`. Pass `overwrite=True`"):
        Cohort.from_bundles(kept / "bundles.csv", tmp_path / "stores", boundaries=True)
    with pytest.raises(
        KeyMissingError, match=r"from_bundles\(..., boundaries=True\)` or `spatialsig import --boundaries"
    ):
        sp.tl.predict_cells(cohort["S1"], sp.datasets.toy_model(sp.datasets.toy_study()), cells="nucleus_boundaries")


def test_one_bad_slide_does_not_stop_the_others(root) -> None:
    (root / "bundles/a/cells.parquet").unlink()
    with pytest.warns(
        SpatialsigWarning, match=r"1 of 2 slides could not be read .*\n  S1: FileMissingError.*cells.parquet"
    ):
        cohort = Cohort.from_bundles(root / "bundles.csv", root / "stores")
    assert list(cohort) == ["S2"]
    assert list(cohort.failures) == ["S1"]
    assert "cells.parquet" in cohort.failures["S1"]
    assert "failed: S1" in repr(cohort)
    assert sorted(p.name for p in (root / "stores").iterdir()) == ["S2.zarr", "cohort.csv"]


def test_when_all_fail_it_raises(root) -> None:
    for name in "ab":
        (root / f"bundles/{name}/experiment.xenium").unlink()
    with pytest.raises(InputError, match=r"none of 2 slides could be read:\n  S1: .*\n  S2: "):
        Cohort.from_bundles(root / "bundles.csv", root / "stores")


def test_a_store_of_another_bundle_is_kept(kept, root) -> None:
    shutil.copytree(kept / "stores", root / "stores")
    with pytest.raises(
        InputError, match=r"store .*S1.zarr' was read from bundle '.*', now '.*a'. Pass `overwrite=True`"
    ):
        Cohort.from_bundles(root / "bundles.csv", root / "stores")
    bundle = str((root / "bundles/b").resolve())
    cohort = Cohort.from_bundles(
        pd.DataFrame({"sample": ["S2"], "patient": ["PX"], "bundle": [bundle]}), root / "stores", overwrite=True
    )
    assert cohort["S2"].attrs["spatialsig"]["source"]["bundle"] == bundle


def test_another_patient_is_noticed(kept, tmp_path) -> None:
    shutil.copytree(kept / "stores", tmp_path / "stores")
    rows = pd.DataFrame({"sample": ["S2"], "patient": ["P9"], "bundle": [kept / "bundles/b"]})
    with pytest.raises(InputError, match=r"patient 'P2', now 'P9'"):
        Cohort.from_bundles(rows, tmp_path / "stores")


def test_patients_that_are_not_given_are_samples_and_warned_about_once(kept, root) -> None:
    rows = pd.DataFrame({"sample": ["S2"], "bundle": [str(root / "bundles/b")]})
    with pytest.warns(SpatialsigWarning, match=r"no patient is given for .'S2'.*add a column `patient`") as caught:
        cohort = Cohort.from_bundles(rows, root / "stores")
    assert len([w for w in caught if issubclass(w.category, SpatialsigWarning)]) == 1
    assert cohort.obs["patient"].tolist() == ["S2"]
    assert set(cohort["S2"]["table"].obs["patient"]) == {"S2"}


def test_he_columns_are_resolved_against_the_csv(root) -> None:
    (root / "he").mkdir()
    for suffix in ("image.ome.tif", "imagealignment.csv"):
        shutil.move(root / f"bundles/a/slide_he_{suffix}", root / f"he/x_{suffix}")
    frame = {"sample": "S1", "patient": "P", "bundle": "bundles/a"}
    frame |= {"he_image": "he/x_image.ome.tif", "he_alignment": "he/x_imagealignment.csv"}
    pd.DataFrame([frame]).to_csv(root / "m.csv", index=False)
    cohort = Cohort.from_bundles(root / "m.csv", root / "stores")
    assert cohort["S1"].attrs["spatialsig"]["source"]["he_image"] == str((root / "he/x_image.ome.tif").resolve())
    assert Cohort.from_bundles(root / "m.csv", root / "stores").failures == {}


def test_cohorts_open_from_mappings_csvs_and_bare_directories(kept, tmp_path) -> None:
    stores = kept / "stores"
    by_name = Cohort({"x": stores / "S1.zarr", "y": str(stores / "S2.zarr")})
    assert by_name.stores == {"x": stores / "S1.zarr", "y": stores / "S2.zarr"}
    assert by_name.obs["patient"].tolist() == ["P1", "P2"]
    assert Cohort(stores / "cohort.csv").stores == Cohort(stores).stores
    shutil.copytree(stores / "S2.zarr", tmp_path / "S2.zarr")
    bare = Cohort(tmp_path)
    assert bare.stores == {"S2": tmp_path / "S2.zarr"}
    assert bare.obs["patient"].tolist() == ["P2"]


def test_subset_keeps_order_and_names(kept) -> None:
    cohort = Cohort.open(kept / "stores")
    part = cohort.subset(["S2", "S1"])
    assert list(part) == ["S2", "S1"]
    assert part.obs["patient"].tolist() == ["P2", "P1"]
    assert list(cohort.subset(["S2"]).stores) == ["S2"]
    np.testing.assert_array_equal(cohort.obs.index, ["S1", "S2"])
    with pytest.raises(KeyMissingError, match=r"`samples='S9'` is not in the cohort; available: \['S1', 'S2'\]"):
        cohort.subset(["S9"])
    with pytest.raises(KeyMissingError, match=r"'S9'"):
        cohort["S9"]


def test_the_repr_lists_slides(kept) -> None:
    lines = repr(Cohort.open(kept / "stores")).splitlines()
    assert lines[0] == "Cohort of 2 slides, 2 patients"
    assert lines[1] == f"  S1  patient P1  {kept / 'stores/S1.zarr'}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sample": ["a"]}, r"'manifest' has no column\(s\) \['bundle'\]; it has \['sample'\]"),
        (
            {"sample": ["a", "a"], "bundle": ["x", "y"]},
            r"\['a'\] of the manifest \(row 0, row 1\) occur more than once",
        ),
        ({"sample": ["a/b"], "bundle": ["x"]}, r"\['a/b'\] of the manifest \(row 0\) cannot name a file"),
        ({"sample": ["..", "ok"], "bundle": ["x", "y"]}, "cannot name a file"),
        ({"sample": ["a", None], "bundle": ["x", "y"]}, r"column 'sample' of 'manifest' is empty in row 1;"),
        ({"sample": [], "bundle": []}, "the manifest has no rows"),
    ],
)
def test_bad_manifests_are_named(tmp_path, columns, message) -> None:
    with pytest.raises(InputError, match=message):
        Cohort.from_bundles(pd.DataFrame(columns), tmp_path / "stores")
    assert not (tmp_path / "stores").exists()


def test_missing_things_are_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match=r"manifest: missing .*m.csv"):
        Cohort.from_bundles(tmp_path / "m.csv", tmp_path / "stores")
    with pytest.raises(FileMissingError, match=r"stores of the cohort: missing \['a.zarr', 'b.zarr'\]"):
        Cohort({"A": "a.zarr", "B": "b.zarr"})
    with pytest.raises(FileMissingError, match=r"holds neither cohort.csv nor stores"):
        Cohort(tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"cannot be read as csv"):
        Cohort(tmp_path / "empty.csv")
    (tmp_path / "no.zarr").mkdir()
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        Cohort({"A": tmp_path / "no.zarr"})


def with_genes(bundle, names: list[str]) -> None:
    """Name the genes of a bundle; controls keep their names."""
    bundle.edit_matrix(
        **{
            "features/name": np.array([*names, *(f"NegControl_{i}" for i in range(4))], dtype="S20"),
            "features/id": np.array([f"ENSG_{n}" for n in [*names, "c0", "c1", "c2", "c3"]], dtype="S20"),
        }
    )


@pytest.fixture
def three(tmp_path):
    """Bundles with two panels of 12 genes that share 9; the third has the first panel in another order."""
    panels = {
        "S1": [f"G{i}" for i in range(12)],
        "S2": [f"G{i}" for i in range(3, 15)],
        "S3": [f"G{i}" for i in reversed(range(12))],
    }
    for i, (name, genes) in enumerate(panels.items()):
        with_genes(bundle_files.write_bundle(tmp_path / "b" / name, seed=i, he=False), genes)
    return pd.DataFrame({"sample": list(panels), "patient": "P", "bundle": [tmp_path / "b" / n for n in panels]})


def test_panels_are_compared_and_named(three, tmp_path) -> None:
    message = r"measure different genes \(S1, S3: 12; S2: 12; 9 in all of them\): see `cohort.panels\(\)`"
    with pytest.warns(SpatialsigWarning, match=message):
        cohort = Cohort.from_bundles(three, tmp_path / "stores")
    panels = cohort.panels()
    assert panels.index.tolist() == ["S1", "S2", "S3"]
    assert panels[["n_genes", "n_shared", "n_missing"]].to_numpy().tolist() == [[12, 9, 3]] * 3
    assert panels["panel"].iloc[0] == panels["panel"].iloc[2] != panels["panel"].iloc[1]
    assert panels["n_other_ids"].tolist() == [0, 0, 0]
    assert cohort.genes() == [f"G{i}" for i in range(3, 12)]
    assert cohort.genes("union") == [f"G{i}" for i in range(15)]
    assert cohort.subset(["S3", "S1"]).genes() == [f"G{i}" for i in reversed(range(12))]
    with pytest.raises(InputError, match=r"`how='both'` of `Cohort.genes` must be 'intersection' or 'union'"):
        cohort.genes("both")
    with pytest.raises(
        KeyMissingError, match=r"`table_key='cells'` is not in the tables of slide 'S1'; available: \['table'\]"
    ):
        cohort.panels(table_key="cells")


def test_one_symbol_with_two_identifiers_is_noticed(tmp_path) -> None:
    names = [f"G{i}" for i in range(12)]
    for i, sample in enumerate(["S1", "S2"]):
        bundle = bundle_files.write_bundle(tmp_path / sample, seed=i, he=False)
        with_genes(bundle, names)
    bundle.edit_matrix(**{"features/id": np.array([f"ENSG_{n}" for n in ["X", *names[1:], *"abcd"]], dtype="S20")})
    rows = pd.DataFrame({"sample": ["S1", "S2"], "patient": "P", "bundle": [tmp_path / "S1", tmp_path / "S2"]})
    with pytest.warns(SpatialsigWarning, match=r"symbols stand for other gene ids on \['S2'\] than on 'S1'"):
        cohort = Cohort.from_bundles(rows, tmp_path / "stores")
    assert cohort.panels()["n_other_ids"].tolist() == [0, 1]


def test_equal_panels_warn_of_nothing(kept) -> None:
    panels = Cohort.open(kept / "stores").panels()
    assert panels["panel"].nunique() == 1
    assert panels["n_missing"].tolist() == [0, 0]
    assert Cohort({}).panels().empty
    assert Cohort({}).genes() == []


def test_slides_may_share_cell_ids(tmp_path) -> None:
    """Ids number the cells of a slide; results of two slides never mix."""
    counts = {}
    for seed, name in enumerate("ab"):
        counts[name] = bundle_files.write_bundle(tmp_path / name, seed=seed, id_kind="int").counts
    rows = pd.DataFrame({"sample": ["a", "b"], "patient": ["P", "Q"], "bundle": [tmp_path / "a", tmp_path / "b"]})
    cohort = Cohort.from_bundles(rows, tmp_path / "stores")
    tables = {name: cohort[name]["table"] for name in cohort}
    assert tables["a"].obs["cell_id"].tolist() == tables["b"].obs["cell_id"].tolist()
    for name, table in tables.items():
        np.testing.assert_array_equal(table.X.toarray(), counts[name][:, : bundle_files.N_GENES])
        assert set(table.obs["sample"]) == {name}


def test_the_manifest_survives_the_round_trip(kept, tmp_path) -> None:
    rows = pd.DataFrame({"sample": ["S1"], "patient": ['NA, "x"; ä'], "bundle": [kept / "bundles/b"]})
    cohort = Cohort.from_bundles(rows, tmp_path / "stores")
    again = Cohort(tmp_path / "stores")
    pd.testing.assert_frame_equal(again.obs, cohort.obs)
    assert again.obs["patient"].tolist() == ['NA, "x"; ä']
    plain = Cohort.from_bundles(rows.assign(sample="S2", patient="NA"), tmp_path / "other")
    assert Cohort(tmp_path / "other").obs["patient"].tolist() == plain.obs["patient"].tolist() == ["NA"]
    shutil.move(tmp_path / "stores", tmp_path / "moved")
    assert Cohort(tmp_path / "moved").stores == {"S1": tmp_path / "moved/S1.zarr"}


def test_identity_in_a_manifest_is_the_word(kept, tmp_path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "a")
    bundle.edit_cells(lambda c: c.assign(x_centroid=c["x_centroid"] % 150, y_centroid=c["y_centroid"] % 140))
    rows = pd.DataFrame({"sample": ["a"], "patient": ["P"], "bundle": [bundle.path], "he_alignment": ["identity"]})
    for _ in range(2):  # the second time it is known to be done
        cohort = Cohort.from_bundles(rows, tmp_path / "stores")
    assert cohort["a"].attrs["spatialsig"]["source"]["he_alignment"] == "identity"


def test_one_bundle_under_two_names_is_refused(kept, tmp_path) -> None:
    bundles = [kept / "bundles/a", kept / "bundles/../bundles/a"]
    rows = pd.DataFrame({"sample": ["S1", "S2"], "patient": ["P", "Q"], "bundle": bundles})
    with pytest.raises(InputError, match=r"slides \['S1', 'S2'\] are of one bundle, .*a': list it once"):
        Cohort.from_bundles(rows, tmp_path / "stores")
    with pytest.raises(
        InputError, match=r"\['a', 'A'\] of the manifest \(row 0, row 1\) differ in upper and lower case only"
    ):
        Cohort.from_bundles(rows.assign(sample=["a", "A"]), tmp_path / "stores")


@pytest.mark.parametrize("error", [TypeError, KeyError, RuntimeError])
def test_a_fault_of_ours_is_no_bad_slide(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised, with the name of the slide, and never listed among those that could not be read."""

    def fails(*_: object, **__: object) -> None:
        raise error("of ours")

    monkeypatch.setattr("spatialsig.cohort.read_bundle", fails)
    rows = pd.DataFrame({"sample": ["S1"], "patient": ["P1"], "bundle": [tmp_path]})
    with pytest.raises(error, match="of ours") as caught:
        sp.Cohort.from_bundles(rows, tmp_path / "stores")
    assert caught.value.__notes__ == ["This happened on slide 'S1'."]


@pytest.mark.parametrize("recorded", ["P1", pytest.param(None, marks=pytest.mark.slow)])
def test_a_list_that_says_another_patient_than_the_store_is_refused(tmp_path: Path, recorded: str | None) -> None:
    """Folds are made by what stores say: one patient would lie in training and test without a word."""
    for seed, name in enumerate(("S1", "S2")):
        sdata = sp.datasets.toy(size_um=100, seed=seed, sample=name)
        sdata.attrs["spatialsig"]["patient"] = recorded
        sp.io.write(sdata, tmp_path / f"{name}.zarr")
    listed = tmp_path / "cohort.csv"
    listed.write_text("sample,patient,path\nS1,X,S1.zarr\nS2,X,S2.zarr\n")
    with pytest.raises(InputError, match=r"slide 'S1': the list .* says patient 'X', its store .* folds are made by"):
        sp.Cohort(listed)
    for name in ("S1", "S2"):  # as the message says
        sdata = sp.io.read(tmp_path / f"{name}.zarr")
        sdata.attrs["spatialsig"]["patient"] = "X"
        sdata.write_attrs()
    cohort = sp.Cohort(listed)
    assert cohort.obs["patient"].tolist() == ["X", "X"]
    with pytest.raises(InputError, match="needs as many groups by 'patient'; there are 1"):
        sp.pp.split(cohort, n_folds=2)


def test_one_store_under_two_names_is_refused(tmp_path: Path) -> None:
    sp.io.write(sp.datasets.toy(size_um=100), tmp_path / "S1.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "S1.zarr")
    for other in ("S1.zarr/", "./S1.zarr", "link.zarr"):
        with pytest.raises(InputError, match=r"slides 'A' and 'B' are one store, .*: leave one of them out"):
            sp.Cohort({"A": tmp_path / "S1.zarr", "B": f"{tmp_path}/{other}"})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    place = tmp_path / "biopsy.png"
    Image.fromarray(np.random.default_rng(0).integers(150, 255, (60, 80, 3), dtype=np.uint8)).save(place)
    return place


def test_a_row_without_a_bundle_is_an_image_alone(root, image, tmp_path) -> None:
    rows = pd.read_csv(root / "bundles.csv").iloc[:1]
    given = {"he_image": str(image), "um_per_px": "0,5", "role": "predict"}
    more = pd.DataFrame([{"sample": "H", "patient": "P9", **given}])
    manifest = pd.concat([rows.assign(bundle=[str(root / rows["bundle"][0])]), more], ignore_index=True)
    for column in ("he_image", "he_alignment"):
        if column in rows and isinstance(rows[column][0], str):
            manifest.loc[0, column] = str(root / rows[column][0])
    cohort = sp.Cohort.from_bundles(manifest, tmp_path / "out")
    assert cohort.obs["role"].tolist() == ["measured", "predict"]
    assert sp.io.mpp(cohort["H"]) == 0.5
    assert not cohort["H"].tables
    again = sp.Cohort.from_bundles(manifest, tmp_path / "out")  # nothing is read a second time
    assert again.obs["role"].tolist() == ["measured", "predict"]
    assert "(H&E alone)" in repr(again)
    manifest.loc[1, "he_image"] = str(tmp_path / "other.png")
    Image.open(image).save(tmp_path / "other.png")
    with pytest.warns(SpatialsigWarning, match="H: StoreError: store .* was read from he_image .*biopsy.png', now"):
        sp.Cohort.from_bundles(manifest, tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "neither `bundle` nor `he_image` is given"),
        ({"he_image": "a.png", "role": "measured"}, "`role` is 'measured'; wanted 'predict': without a bundle"),
        ({"bundle": "b", "role": "predict"}, "`role` is 'predict'; wanted 'measured': of an H&E alone leave `bundle` empty"),
        ({"bundle": "b", "role": "test"}, "`role` is 'test'; wanted 'measured'"),
        ({"he_image": "a.png", "he_alignment": "m.csv"}, "`he_alignment` places the image on a bundle"),
        ({"bundle": "b", "um_per_px": "0.5"}, "`um_per_px` is for an H&E alone"),
        ({"he_image": "a.png", "um_per_px": "half"}, "`um_per_px` is 'half'; wanted the µm per px"),
        ({"he_image": "a.png", "um_per_px": "inf"}, "`um_per_px` is 'inf'; wanted the µm per px"),
        ({"he_image": "a.png", "um_per_px": "-1"}, "`um_per_px` is '-1'; wanted the µm per px"),
    ],
)  # fmt: skip
def test_a_row_that_is_neither_is_named(tmp_path, row, message) -> None:
    manifest = pd.DataFrame([{"sample": "S", "patient": "P", "bundle": None, "he_image": None} | row])
    manifest.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError, match=f"line 2, slide 'S': {message}|slide 'S': {message}"):
        sp.Cohort.from_bundles(tmp_path / "m.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stores_that_the_list_of_a_cohort_leaves_out_are_said(tmp_path, caplog) -> None:
    for name in ("A", "B"):
        sp.io.write(sp.datasets.toy(size_um=100, sample=name), tmp_path / f"{name}.zarr")
    (tmp_path / "cohort.csv").write_text("sample,path\nA,A.zarr\n")
    with caplog.at_level("INFO", "spatialsig"):
        logging.getLogger("spatialsig").addHandler(caplog.handler)
        try:
            for _ in range(2):  # said once
                assert list(Cohort(tmp_path).stores) == ["A"]
        finally:
            logging.getLogger("spatialsig").removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    assert (
        [text for text in said if "are no part of the cohort: cohort.csv there does not list them" in text]
        == said
        != []
    )
    assert "B.zarr" in said[0]
