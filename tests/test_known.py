"""Files and folders of others given in place of what is wanted: each is named, with what takes it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import spatialsig as sp
from spatialsig import _known
from spatialsig._known import MODELS, model_words, what_is
from spatialsig.errors import SpatialsigError

TABLE = "give it with the H&E to `sp.io.from_anndata`"
FILES = {  # name -> platform that writes it, by its own name or by its neighbour in the folder
    "Xenium": ("experiment.xenium", "sp.io.read_xenium", (
        "experiment.xenium", "cells.parquet", "cells.csv.gz", "cells.zarr.zip", "cell_boundaries.parquet", "nucleus_boundaries.csv",
        "transcripts.parquet", "cell_feature_matrix.h5", "analysis.tar.gz", "aux_outputs.tar.gz", "gene_panel.json", "metrics_summary.csv")),
    "Atera": ("experiment.spatial", "sp.io.read_atera", ("experiment.spatial", "panel_config.json", "cell_feature_matrix.zarr.zip")),
    "Visium": ("filtered_feature_bc_matrix.h5", TABLE, (
        "filtered_feature_bc_matrix.h5", "S1_raw_feature_bc_matrix.tar.gz", "tissue_positions.parquet", "tissue_positions_list.csv",
        "scalefactors_json.json", "metrics_summary.csv", "feature_slice.h5", "spatial.tar.gz", "binned_outputs.tar.gz", "cloupe_008um.cloupe")),
    "CosMx": ("S1_exprMat_file.csv", TABLE, (
        "S1_exprMat_file.csv.gz", "S1_metadata_file.csv", "S1_fov_positions_file.csv", "S1_tx_file.csv", "S1-polygons.csv.gz")),
    "MERSCOPE": ("cell_by_gene.csv", TABLE, (
        "cell_by_gene.csv", "cell_metadata.csv", "cell_boundaries.parquet", "detected_transcripts.csv", "micron_to_mosaic_pixel_transform.csv",
        "region_0.vzg")),
    "Stereo-seq": ("S1.gef", TABLE, ("S1.gef", "S1.gem.gz")),
}  # fmt: skip
OTHERS = {
    "a.h5ad": "`sp.io.from_anndata`",
    "a.h5mu": "`sp.io.from_anndata`",
    "a.rds": "`sp.io.from_anndata`",
    "a.gmt": "`sp.io.read_signatures`",
    "a.geojson": "QuPath",
    "S1_he_imagealignment.csv": "`he_alignment=`",
}
DOORS: dict[str, Callable[[Path], object]] = {
    "an image": sp.io.read_he,
    "a bundle": sp.io.read_xenium,
    "Atera": sp.io.read_atera,
    "a slide": lambda path: sp.pp.split(path, by="block"),
    "a store": sp.io.read,
    "a store to check": sp.io.verify,
    "a store to repair": sp.io.repair,
    "a model": sp.models.load_signature_model,
    "an autoencoder": sp.models.Autoencoder.load,
}


def answer(call: Callable[[], object]) -> str:
    with pytest.raises(SpatialsigError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("platform", FILES)
def test_files_of_a_platform_are_named_wherever_they_are_given(platform: str, door: str, tmp_path: Path) -> None:
    mark, taker, names = FILES[platform]
    (tmp_path / mark).write_bytes(b"")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        said = answer(lambda given=tmp_path / name: DOORS[door](given))  # type: ignore[misc]
        assert re.search(f" It is .* of {platform}: ", said), said
        assert taker in said
        assert platform not in ("Xenium", "Atera") or repr(str(tmp_path)) in said


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("a bundle", "Atera", "a store to check")])
@pytest.mark.parametrize("platform", FILES)
def test_folders_of_a_platform_are_named_too(platform: str, door: str, tmp_path: Path) -> None:
    mark, taker, _ = FILES[platform]
    (tmp_path / mark).write_bytes(b"x")
    said = answer(lambda: DOORS[door](tmp_path))
    assert f" It is the output of {platform}: " in said, said
    assert taker in said


def test_every_name_in_the_list_has_an_example() -> None:
    given = [name.lower() for _, _, names in FILES.values() for name in names]
    files = [pattern for platform in _known._PLATFORMS for pattern in platform.files]
    assert {platform.name for platform in _known._PLATFORMS} == FILES.keys()
    for pattern in files:
        assert any(re.fullmatch(pattern, name) for name in given), pattern
    for pattern in _known._OTHERS:
        assert any(re.fullmatch(pattern, name.lower()) for name in OTHERS), pattern


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_programs_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert OTHERS[name] in answer(lambda: sp.io.read_he(tmp_path / name))


def test_a_file_that_two_platforms_write_is_of_both_where_nothing_else_tells(tmp_path: Path) -> None:
    (tmp_path / "cells.parquet").write_bytes(b"x")
    assert what_is(tmp_path / "cells.parquet") == (
        f" It is the table of cells of Xenium or Atera: give its directory, {str(tmp_path)!r}, to `sp.io.read_xenium`."
    )


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert [what_is(tmp_path), what_is(tmp_path / "notes.txt"), what_is(tmp_path / "nothing")] == ["", "", ""]


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("a model", "a store to check")])
def test_a_saved_model_is_named(door: str, tmp_path: Path) -> None:
    sp.datasets.toy_model(sp.datasets.toy_study()).save(tmp_path / "model")
    said = answer(lambda: DOORS[door](tmp_path / "model"))
    assert "SignatureViT" in said
    assert "`sp.models.load_signature_model` reads" in said


def test_the_words_for_models_are_true() -> None:
    """Every kind of model has them, and what they name is there."""
    kinds = {name for name in sp.models.__all__ if hasattr(getattr(sp.models, name), "save")}
    assert kinds == MODELS.keys()
    for words in MODELS.values():
        for path in words:
            thing: object = sp
            for step in path.split(".")[1:]:
                thing = getattr(thing, step)
            assert callable(thing)
    assert model_words("Cohort") == "an instance of Cohort"


@pytest.mark.parametrize(
    "platform", [name for name, (_, _, files) in FILES.items() if any(f.endswith(".csv") for f in files)]
)
def test_a_table_of_a_platform_in_place_of_a_manifest_is_named(platform: str, tmp_path: Path) -> None:
    mark, taker, names = FILES[platform]
    (tmp_path / mark).write_bytes(b"")
    for name in (name for name in names if name.endswith(".csv")):
        (tmp_path / name).write_text("cell_id,x\na,1\n")
        for call in (sp.Cohort, lambda path: sp.Cohort.from_bundles(path, tmp_path / "out")):
            said = answer(lambda given=tmp_path / name, call=call: call(given))  # type: ignore[misc]
            assert f" of {platform}: " in said, said
            assert taker in said
