"""Both layouts of Atera hold the slide that Xenium's hold, and every way into a store reads them."""

from __future__ import annotations

import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from shapely import contains, points
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.datasets.synthetic.bundle.matrix_zarr import pack
from spatialsig.errors import FileMissingError, InputError
from spatialsig.io.xenium import counts as blocks
from spatialsig.io.xenium.counts import Axes, read_counts

LAYOUTS = ("atera-preview", "atera-1.0")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Folders of one slide in three layouts."""
    root = tmp_path_factory.mktemp("atera")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        for version in ("3.0", *LAYOUTS):
            sp.datasets.synthetic_xenium(
                root / version,
                version=version,
                n_slides=1,
                size_um=160.0,
                density_per_mm2=6000.0,
                transcripts=False,
                seed=2,
            )
    return {version: root / version for version in ("3.0", *LAYOUTS)}


@pytest.fixture(scope="module")
def read(made):
    return {version: sp.io.read_atera(folder / "S1", boundaries=True) for version, folder in made.items()}


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy of the official bundle that may be changed."""
    return Path(shutil.copytree(made["atera-1.0"] / "S1", tmp_path / "S1"))


def test_there_is_one_reader() -> None:
    assert sp.io.read_atera is sp.io.read_xenium


@pytest.mark.parametrize("version", LAYOUTS)
def test_the_slide_is_the_one_of_xenium(read, version) -> None:
    one, two = read[version], read["3.0"]
    assert (one["table"].X != two["table"].X).nnz == 0
    assert one["table"].X.dtype == np.float32
    for name in ("cell_id", "total_counts", "transcript_counts", "cell_area"):
        assert one["table"].obs[name].tolist() == two["table"].obs[name].tolist()
    pd.testing.assert_frame_equal(
        one["table"].var[["gene_ids", "feature_types"]], two["table"].var[["gene_ids", "feature_types"]]
    )
    np.testing.assert_array_equal(one["table"].obsm["spatial"], two["table"].obsm["spatial"])
    np.testing.assert_array_equal(one["cell_circles"]["radius"], two["cell_circles"]["radius"])
    assert one.attrs["spatialsig"]["source"]["he_alignment"].endswith("S1_he_alignment.csv")
    infos = [sdata["table"].uns["spatialsig"]["read_xenium"] for sdata in (one, two)]
    assert infos[0]["features_dropped"] == infos[1]["features_dropped"]
    assert infos[0]["counts_dropped"] == infos[1]["counts_dropped"]
    for name in ("cell_boundaries", "nucleus_boundaries"):
        ours, theirs = (s[name].set_index("cell_id") if name[0] == "n" else s[name] for s in (one, two))
        assert ours.geometry.geom_equals(theirs.geometry.loc[ours.index]).all()


def test_rows_of_the_outlines_are_in_another_order_and_joined_by_id(made, read) -> None:
    with zarr.storage.ZipStore(made["atera-1.0"] / "S1" / "cells.zarr.zip", mode="r") as store:
        x_um = np.asarray(zarr.open_group(store, mode="r", zarr_format=2)["cell_summary"][:, 0])
    sdata = read["atera-1.0"]
    xy = pd.DataFrame(sdata["table"].obsm["spatial"], index=sdata["table"].obs["cell_id"].to_numpy(str))
    assert (x_um != xy[0].to_numpy()).mean() > 0.9
    cells, nuclei = sdata["cell_boundaries"], sdata["nucleus_boundaries"].set_index("cell_id")
    for outlines in (cells, nuclei):
        assert contains(outlines.geometry.to_numpy(), points(xy.loc[outlines.index].to_numpy())).all()


def test_a_cell_may_have_no_nucleus_or_several(own, tmp_path) -> None:
    with zipfile.ZipFile(own / "cells.zarr.zip") as zipped:
        zipped.extractall(tmp_path / "z")
    owner = zarr.open_group(tmp_path / "z", mode="r+", zarr_format=2)["polygon_sets/0/cell_index"]
    owner[0] = owner[1]
    pack(tmp_path / "z", own / "cells.zarr.zip")
    sdata = sp.io.read_atera(own, boundaries=True)
    n_nuclei = (
        sdata["nucleus_boundaries"]["cell_id"].value_counts().reindex(sdata["table"].obs["cell_id"], fill_value=0)
    )
    assert sorted(n_nuclei)[:1] + sorted(n_nuclei)[-1:] == [0, 2]


@pytest.mark.parametrize("version", LAYOUTS)
def test_every_way_into_a_store(made, read, tmp_path, version) -> None:
    done = CliRunner().invoke(
        app,
        [
            "import",
            str(made[version] / "S1"),
            "--out",
            str(tmp_path / "c.zarr"),
            "--min-counts",
            "0",
            "--min-genes",
            "0",
        ],
    )
    assert done.exit_code == 0, done.output
    cohort = sp.Cohort.from_bundles(made[version] / "bundles.csv", tmp_path / "stores")
    for sdata in (sp.io.read(tmp_path / "c.zarr"), cohort["S1"]):
        assert (sdata["table"].X != read["3.0"]["table"].X).nnz == 0
        assert sdata["table"].obs["cell_id"].tolist() == read["3.0"]["table"].obs["cell_id"].tolist()
    if version == "atera-1.0":
        assert sdata["table"].obs["leiden_res_1.0"].nunique() > 2
    assert (sp.io.verify(tmp_path / "c.zarr")["status"] == "ok").all()


def test_the_command_says_what_is_missing(own, tmp_path) -> None:
    (own / "cell_feature_matrix.zarr.zip").unlink()
    done = CliRunner().invoke(app, ["import", str(own), "--out", str(tmp_path / "s.zarr")])
    assert done.exit_code != 0
    assert "cell_feature_matrix.zarr.zip" in str(done.exception) + done.output
    with pytest.raises(
        FileMissingError, match=r"missing \['.*cell_feature_matrix.zarr.zip'\]. Copy .*; experiment.spatial, "
    ):
        sp.io.read_atera(own)
    with pytest.raises(
        FileMissingError, match=r"It is the settings file of Atera: give its directory, '.*S1', to `sp.io.read_atera`"
    ):
        sp.io.read_atera(own / "experiment.spatial")


def test_a_folder_with_all_files_of_xenium_is_one_of_xenium(made, own) -> None:
    shutil.copytree(made["3.0"] / "S1", own, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*_he_*"))
    assert sp.io.read_atera(own).attrs["spatialsig"]["source"]["xoa"] == "2-3"
    (own / "cell_feature_matrix.h5").unlink()
    (own / "cells.zarr.zip").unlink()
    assert sp.io.read_atera(own).attrs["spatialsig"]["source"]["xoa"] == "Atera"


def test_transcripts_are_refused_before_anything_is_read(own) -> None:
    (own / "experiment.spatial").write_text("{")
    with pytest.raises(InputError, match="`transcripts=True` is not for the bundles of Atera"):
        sp.io.read_atera(own, transcripts=True)


class Stored:
    """A list on a disk, which takes no memory here."""

    chunks = (2**12,)

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.values[part].copy()


def test_the_matrix_is_in_memory_once(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 2**12)
    n_cells, per_cell, n_features = 20_000, 50, 200
    indices = np.tile(np.arange(0, n_features, n_features // per_cell), n_cells)
    data, indptr = np.ones(len(indices), np.int32), np.arange(n_cells + 1) * per_cell
    kinds = np.where(np.arange(n_features) % 10 == 0, "Negative Control Probe", "Gene Expression")
    axes = Axes(np.arange(n_cells).astype(str), kinds, pd.DataFrame())
    tracemalloc.start()
    read = read_counts(
        Path("m"), axes, np.ones(n_cells, bool), data=Stored(data), indices=Stored(indices), indptr=Stored(indptr)
    )
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read.counts.nnz == (kinds[indices[:per_cell]] == "Gene Expression").sum() * n_cells
    assert peak < 1.15 * 8 * len(data)  # float32 and int32 for every value of the file
    assert size < 1.15 * 8 * read.counts.nnz  # what controls would have taken is given back
