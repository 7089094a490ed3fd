from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.datasets import blobs
from spatialdata.models import Image2DModel, Image3DModel
from spatialdata.transformations import Affine, get_transformation
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.store import relayout, swap
from spatialsig.store.commit import commit_elements


def test_what_is_written_is_read(bundle, tmp_path) -> None:
    sdata = sp.io.read_xenium(bundle.path)
    sp.io.write(sdata, tmp_path / "s.zarr")
    assert sdata.path == tmp_path / "s.zarr"
    for back in (sp.io.read(tmp_path / "s.zarr"), sd.read_zarr(tmp_path / "s.zarr")):
        assert back.attrs == sdata.attrs
        for scale in sdata["he_image"].children:
            a, b = sdata["he_image"][scale]["image"], back["he_image"][scale]["image"]
            np.testing.assert_array_equal(a.values, b.values)
            for axis in "cyx":
                np.testing.assert_array_equal(a[axis].values, b[axis].values)
        axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
        one, two = (
            sd.transformations.get_transformation(s["he_image"]).to_affine_matrix(**axes) for s in (sdata, back)
        )
        np.testing.assert_allclose(one, two, rtol=1e-12)
        assert (back["table"].X != sdata["table"].X).nnz == 0
        assert back["table"].obs["cell_id"].tolist() == sdata["table"].obs["cell_id"].tolist()
        np.testing.assert_array_equal(back["table"].obsm["spatial"], sdata["table"].obsm["spatial"])


def test_a_store_may_be_written_over_itself(bundle, tmp_path) -> None:
    path = tmp_path / "s.zarr"
    sdata = sp.io.read_xenium(bundle.path, out=path)
    with pytest.raises(StoreError, match=r"already exists"):
        sp.io.write(sdata, path)
    sdata["table"].obs["new"] = 1
    sp.io.write(sdata, path, overwrite=True)  # its image is lazy and lies in the store that is replaced
    back = sp.io.read(path)
    assert (back["table"].obs["new"] == 1).all()
    np.testing.assert_array_equal(back["he_image"]["scale0"]["image"].transpose("y", "x", "c").values, bundle.pixels)


def test_objects_of_others_are_written(tmp_path) -> None:
    sdata = blobs(length=40)
    sp.io.write(sdata, tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert {name for _, name, _ in back.gen_elements()} == {name for _, name, _ in sdata.gen_elements()}


def test_a_failed_write_leaves_nothing(tmp_path) -> None:
    sdata = blobs(length=40)
    sdata.attrs["x"] = object()
    with pytest.raises(InputError, match=r"attribute 'x' cannot be stored as JSON"):
        sp.io.write(sdata, tmp_path / "s.zarr")
    assert sdata.path is None
    assert not list(tmp_path.iterdir())


def test_what_is_no_store_is_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match=r"SpatialData store: missing .*a.zarr"):
        sp.io.read(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        sp.io.read(tmp_path)


def test_a_damaged_store_says_what_is_wrong(tmp_path) -> None:
    path = tmp_path / "s.zarr"
    blobs(length=40).write(path)
    (path / "shapes/blobs_circles/shapes.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"cannot be read: .*Restore it from a copy"):
        sp.io.read(path)


def test_the_front_door_is_light() -> None:
    probe = (
        "import spatialsig.io, sys;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'spatialdata_io', 'tifffile', 'spatialdata', 'zarr')))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", probe], check=False).returncode == 0


def test_names_are_exported_and_keyword_only() -> None:
    assert dir(sp.io) == sorted(sp.io.__all__)
    for name in {"read_xenium", "read_he", "write"} & set(sp.io.__all__):
        kinds = [p.kind for p in inspect.signature(getattr(sp.io, name)).parameters.values()]
        assert all(kind == inspect.Parameter.KEYWORD_ONLY for kind in kinds[2:])
    with pytest.raises(AttributeError, match="attribute nothing"):
        sp.io.nothing  # noqa: B018


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


def test_a_store_of_ours_is_ok_and_one_of_others_not_checksummed(ours, stores) -> None:
    found = sp.io.verify(ours)
    assert list(found.columns) == ["element", "kind", "status", "detail"]
    assert set(found["status"]) == {"ok"}
    assert set(found["element"]) == {"", *(name for _, name, _ in sd.read_zarr(ours).gen_elements())}
    assert set(sp.io.verify(stores / "theirs.zarr")["status"]) == {"not checksummed"}


@pytest.mark.parametrize("file", ["images/blobs_image/zarr.json", TABLE_X, "tables/table/obs/.spatialsig-manifest"])
def test_a_flipped_bit_is_altered(ours, file, flip_bit) -> None:
    flip_bit(ours / file)
    assert (file.split("/")[1], "altered") in faults(ours)


@pytest.mark.parametrize("file", ["zarr.json", "images/zarr.json", ".spatialsig-manifest"])
def test_a_flipped_bit_in_the_root_is_altered(ours, file, flip_bit) -> None:
    flip_bit(ours / file)
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


def test_metadata_are_restored_from_their_copy(ours, flip_bit) -> None:
    flip_bit(ours / "images/blobs_image/zarr.json")
    flip_bit(ours / "tables/table/obs/zarr.json")
    assert sp.io.repair(ours)["action"].tolist() == ["restored", "restored"]
    assert faults(ours) == []


def test_repair_says_what_was_lost_with_the_root(toy_store) -> None:
    sp.tl.score_cells(toy_store, "seed", test_fold=None)
    (toy_store / "zarr.json").unlink()
    done = sp.io.repair(toy_store)
    assert "name and patient of the slide, folds, how patches were cut" in " ".join(done["detail"])
    assert set(sd.read_zarr(toy_store).tables) == {"table"}
    root = sp.io.verify(toy_store).query("element == ''")
    assert root["status"].tolist() == ["ok", "altered"]
    assert (
        "tables table hold results of this package, but the root has none of its attributes. What stood"
        in root["detail"].iloc[1]
    )


def test_what_is_not_a_store_is_left_alone(tmp_path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store: it holds \['precious.txt'\]"):
        sp.io.repair(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(StoreError, match=r"precious.txt' is a file; give the directory of a store"):
        sp.io.repair(tmp_path / "precious.txt")
    for function in (sp.io.verify, sp.io.repair):
        with pytest.raises(FileMissingError, match=r"missing .*nothing\.zarr"):
            function(tmp_path / "nothing.zarr")


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
@pytest.mark.slow
def test_a_store_whose_write_element_was_killed_takes_it_again_after_repair(theirs) -> None:
    killed("write_element", theirs)
    assert ("later", "unfinished") in faults(theirs)
    done = sp.io.repair(theirs)
    assert ("later", "moved") in zip(done["element"], done["action"], strict=True)
    back = sd.read_zarr(theirs)
    back["later"] = blobs(length=48)["blobs_circles"]
    back.write_element("later")
    assert "later" in sd.read_zarr(theirs)


def test_the_command_line_says_the_same(ours, flip_bit) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(ours), "--quiet"]).exit_code == 0
    flip_bit(ours / TABLE_X)
    found = runner.invoke(app, ["verify", str(ours), "--quiet"])
    assert found.exit_code == 1
    assert "altered" in found.stdout
    assert "nothing to repair" in runner.invoke(app, ["repair", str(ours), "--quiet"]).stdout


TURN = Affine(np.array([[0.2, 0.9, 3.0], [-0.9, 0.2, 400.0], [0, 0, 1]]), ("x", "y"), ("x", "y"))


@pytest.fixture(scope="module")
def _plain(tmp_path_factory):
    """A store of spatialdata: RGB, seven stains in 16 bit with one level, and a volume."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (3, 700, 900), dtype=np.uint8)
    stains = rng.integers(0, 60_000, (7, 300, 200), dtype=np.uint16)
    volume = rng.random((2, 3, 40, 50)).astype(np.float32)
    path = tmp_path_factory.mktemp("plain") / "s.zarr"
    sd.SpatialData(
        images={
            "he": Image2DModel.parse(
                rgb, c_coords=["r", "g", "b"], scale_factors=[3], transformations={"global": TURN}
            ),
            "stains": Image2DModel.parse(stains, c_coords=[f"CD{i}" for i in range(7)], dims=("c", "y", "x")),
            "volume": Image3DModel.parse(volume, dims=("c", "z", "y", "x")),
        },
        attrs={"of": "somebody"},
    ).write(path)
    return path


@pytest.fixture
def plain(_plain, tmp_path):
    return shutil.copytree(_plain, tmp_path / "s.zarr")


def pixels(sdata):
    found = {}
    for name, element in sdata.images.items():
        levels = [element] if not hasattr(element, "children") else [element[s]["image"] for s in element.children]
        found[name] = [level.values for level in levels]
    return found


def chunk(path, name, level="s0"):
    return json.loads((path / "images" / name / level / "zarr.json").read_text())["chunk_grid"]["configuration"][
        "chunk_shape"
    ]


@pytest.mark.parametrize(("layout", "chunk_px"), [("default", None), ("speed", 512), ("speed", 64)])
def test_every_level_of_every_image_stays_pixel_for_pixel(plain, layout, chunk_px) -> None:
    before = sd.read_zarr(plain)
    expected = pixels(before)
    metadata = {n: (plain / "images" / n / "zarr.json").read_bytes() for n in expected}
    done = sp.io.optimize(plain, layout=layout, chunk_px=chunk_px)
    assert done["image"].tolist() == ["he", "stains", "volume"]
    assert (done[["bytes_before", "bytes_after"]] > 0).all(axis=None)
    edge = chunk_px or 256
    assert chunk(plain, "he") == chunk(plain, "he", "s1") == [3, edge, edge]
    assert chunk(plain, "stains") == [7, edge, edge]
    assert chunk(plain, "volume") == [2, 1, edge, edge]
    after = sd.read_zarr(plain)
    for name, levels in pixels(after).items():
        assert len(levels) == len(expected[name])
        for a, b in zip(levels, expected[name], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        assert (plain / "images" / name / "zarr.json").read_bytes() == metadata[name]
    assert sd.models.get_channel_names(after["stains"]) == [f"CD{i}" for i in range(7)]
    assert get_transformation(after["he"]) == get_transformation(before["he"])
    assert after.attrs == {"of": "somebody"}
    assert [p.name for p in plain.parent.iterdir()] == ["s.zarr"]
    consolidated = json.loads((plain / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert consolidated["images/he/s0"]["chunk_grid"]["configuration"]["chunk_shape"] == [3, edge, edge]


def test_a_second_call_finds_nothing_to_do(plain, monkeypatch) -> None:
    sp.io.optimize(plain)
    monkeypatch.setattr(relayout, "swap_in", None)  # would fail if it were called
    assert sp.io.optimize(plain).empty


def test_small_blocks_give_the_same_pixels(plain, monkeypatch) -> None:
    expected = pixels(sd.read_zarr(plain))
    monkeypatch.setattr(relayout, "MAX_BLOCK_BYTES", 3 * 64 * 128)
    sp.io.optimize(plain, layout="speed", chunk_px=64)
    for name, levels in pixels(sd.read_zarr(plain)).items():
        for a, b in zip(levels, expected[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_interruption_leaves_the_old_image(plain, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    before = (plain / "images/he/s0/zarr.json").read_bytes()
    monkeypatch.setattr(swap, "exchange", full)
    with pytest.raises(OSError, match="No space left"):
        sp.io.optimize(plain)
    assert (plain / "images/he/s0/zarr.json").read_bytes() == before
    assert [p.name for p in plain.parent.iterdir()] == ["s.zarr"]


def test_what_cannot_be_used_is_named(plain, tmp_path) -> None:
    with pytest.raises(InputError, match="`layout='fast'` of `sp.io.optimize` must be 'default' or 'speed'"):
        sp.io.optimize(plain, layout="fast")
    with pytest.raises(InputError, match=r"`chunk_px=100` cannot be used"):
        sp.io.optimize(plain, chunk_px=100)
    with pytest.raises(FileMissingError, match=r"nothing\.zarr"):
        sp.io.optimize(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        sp.io.optimize(tmp_path)
