from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import spatialdata as sd
from spatialdata.datasets import blobs
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import FileMissingError, StoreError
from spatialsig.store.commit import commit_elements

TABLE_X = "tables/table/X/data/c/0"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        sp.io.write(blobs(length=48), directory / "ours.zarr")
    blobs(length=48).write(directory / "theirs.zarr")
    return directory


@pytest.fixture
def ours(stores, tmp_path):
    return shutil.copytree(stores / "ours.zarr", tmp_path / "s.zarr")


@pytest.fixture
def theirs(stores, tmp_path):
    return shutil.copytree(stores / "theirs.zarr", tmp_path / "s.zarr")


def faults(path) -> list[tuple[str, str]]:
    found = sp.io.verify(path)
    return [(r.element, r.status) for r in found.itertuples() if r.status not in {"ok", "not checksummed"}]


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_store_of_ours_is_ok_and_one_of_others_not_checksummed(ours, stores) -> None:
    found = sp.io.verify(ours)
    assert list(found.columns) == ["element", "kind", "status", "detail"]
    assert set(found["status"]) == {"ok"}
    assert set(found["element"]) == {"", *(name for _, name, _ in sd.read_zarr(ours).gen_elements())}
    assert set(sp.io.verify(stores / "theirs.zarr")["status"]) == {"not checksummed"}


@pytest.mark.parametrize("file", ["images/blobs_image/zarr.json", TABLE_X, "tables/table/obs/.spatialsig-manifest"])
def test_a_flipped_bit_is_altered(ours, file) -> None:
    flip(ours / file)
    assert (file.split("/")[1], "altered") in faults(ours)


@pytest.mark.parametrize("file", ["zarr.json", "images/zarr.json", ".spatialsig-manifest"])
def test_a_flipped_bit_in_the_root_is_altered(ours, file) -> None:
    flip(ours / file)
    assert ("", "altered") in faults(ours)


def test_missing_chunks_and_elements_are_named(ours) -> None:
    (ours / TABLE_X).unlink()
    assert faults(ours) == [("table", "missing chunk")]
    assert "X/data/c/0" in sp.io.verify(ours).set_index("element").loc["table", "detail"]
    shutil.rmtree(ours / "shapes/blobs_circles")
    assert set(faults(ours)) == {("table", "missing chunk"), ("", "missing chunk")}


def test_damage_that_no_reader_can_read_is_found_without_checksums(theirs) -> None:
    (theirs / TABLE_X).write_bytes(b"nothing")
    parquet = theirs / "shapes/blobs_circles/shapes.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-30])
    assert set(faults(theirs)) == {("table", "altered"), ("blobs_circles", "altered")}


def test_repair_does_nothing_where_all_is_well(ours) -> None:
    assert sp.io.repair(ours).empty


def test_metadata_are_restored_from_their_copy(ours) -> None:
    flip(ours / "images/blobs_image/zarr.json")
    flip(ours / "tables/table/obs/zarr.json")
    assert sp.io.repair(ours)["action"].tolist() == ["restored", "restored"]
    assert faults(ours) == []


def test_what_is_not_a_store_is_left_alone(tmp_path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store: it holds \['precious.txt'\]"):
        sp.io.repair(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    for verb in (sp.io.verify, sp.io.repair):
        with pytest.raises(FileMissingError, match=r"missing .*nothing\.zarr"):
            verb(tmp_path / "nothing.zarr")


# ends with SIGKILL while the element named by the first argument is written by spatialdata itself
KILLED = """
    import os, signal, sys, warnings
    warnings.simplefilter("ignore")
    import spatialdata._io.io_zarr, spatialdata._core.spatialdata as core
    import spatialdata as sd
    from spatialdata.datasets import blobs
    what, path = sys.argv[1:]
    sdata = blobs(length=48)
    original = core.SpatialData._write_element
    def killing(self, **kwargs):
        if kwargs["element_name"] == "blobs_circles":
            import pathlib, zarr
            zarr.create_group(pathlib.Path(kwargs["zarr_container_path"]) / "shapes" / "later")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, **kwargs)
    if what == "write":
        core.SpatialData._write_element = killing
        sdata.write(path)
    else:
        stored = sd.read_zarr(path)
        stored["later"] = sdata["blobs_circles"]
        import geopandas
        def parquet(self, *args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)
        geopandas.GeoDataFrame.to_parquet = parquet
        stored.write_element("later")
"""


def killed(what: str, path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-1500:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_a_store_whose_write_was_killed_opens_after_repair(tmp_path) -> None:
    path = tmp_path / "s.zarr"
    killed("write", path)
    assert any(status == "unfinished" for _, status in faults(path))
    done = sp.io.repair(path)
    assert "moved" in set(done["action"])
    back = sp.io.read(path)
    assert "blobs_image" in back.images
    assert faults(path) == []
    commit_elements(path, {"blobs_circles": blobs(length=48)["blobs_circles"]})
    assert "blobs_circles" in sd.read_zarr(path)
    assert len(list(tmp_path.glob(".s.zarr.quarantine-*/shapes/later"))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_a_store_whose_write_element_was_killed_takes_it_again_after_repair(theirs) -> None:
    killed("write_element", theirs)
    assert ("later", "unfinished") in faults(theirs)
    done = sp.io.repair(theirs)
    assert ("later", "moved") in zip(done["element"], done["action"], strict=True)
    back = sd.read_zarr(theirs)
    back["later"] = blobs(length=48)["blobs_circles"]
    back.write_element("later")
    assert "later" in sd.read_zarr(theirs)


def test_the_command_line_says_the_same(ours) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(ours), "--quiet"]).exit_code == 0
    flip(ours / TABLE_X)
    found = runner.invoke(app, ["verify", str(ours), "--quiet"])
    assert found.exit_code == 1
    assert "altered" in found.stdout
    assert "nothing to repair" in runner.invoke(app, ["repair", str(ours), "--quiet"]).stdout
