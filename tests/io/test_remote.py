"""A slide of another machine in every function that reads: the numbers of the same store on this machine; nothing is written there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.served import Served, served
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.slide.slides import Slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spatialsig.models import SignatureViT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        sp.io.write(sp.datasets.toy_study(predicted=True), folder / "s.zarr")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> SignatureViT:
    return sp.datasets.toy_model(sp.io.read(folder / "s.zarr"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served(folder) as server:
        yield server


@pytest.fixture
def address(server: Served) -> str:
    server.asked.clear()
    return f"{server.address}/s.zarr"


def test_predictions_are_those_of_the_store_here_and_are_saved_here(
    folder: Path, address: str, model: SignatureViT, tmp_path: Path
) -> None:
    here, there = sp.io.read(folder / "s.zarr"), sp.io.read(address)
    for sdata in (here, there):
        sdata.path = None
        sp.tl.predict(sdata, model, key_added="again")
    assert np.isfinite(there.tables["again"].X).all()
    np.testing.assert_array_equal(there.tables["again"].X, here.tables["again"].X)
    sp.io.write(there, tmp_path / "saved.zarr")
    assert there.path == tmp_path / "saved.zarr"
    saved = sp.io.read(tmp_path / "saved.zarr")
    np.testing.assert_array_equal(saved.tables["again"].X, here.tables["again"].X)
    for scale, level in here.images["he_image"].items():
        np.testing.assert_array_equal(level.ds["image"], saved.images["he_image"][scale].ds["image"])
    assert (sp.io.verify(tmp_path / "saved.zarr")["status"] == "ok").all()
    assert (sp.io.status(saved)["state"] == "fresh").all()


def test_the_pixels_of_a_batch_are_fetched_once(folder: Path, server: Served, address: str) -> None:
    sources = [Slide(sp.io.read(place)).patches("patches").source() for place in (address, folder / "s.zarr")]
    assert sources[0].corner.shape == (2,)  # where the level begins is found once, from its pixels
    server.asked.clear()
    pixels = read_patches(sources[0], range(len(sources[0])))
    np.testing.assert_array_equal(pixels, read_patches(sources[1], range(len(sources[1]))))
    chunks = [file for file in server.asked if "/c/" in file]
    height, width = sources[0].level.shape
    across, along = sources[0].level.chunk_px or (1, 1)
    assert len(server.asked) == len(chunks) == len(set(chunks)) <= -(-height // across) * -(-width // along)


def test_the_loader_gives_what_it_gives_of_the_store_here(folder: Path, address: str) -> None:
    batches = []
    for place in (address, folder / "s.zarr"):
        source = Slide(sp.io.read(place)).patches("patches").source()
        batches.append(list(PatchBatches([source], targets=[np.zeros((len(source), 1), np.float32)], batch_size=32)))
    for there, here in zip(*batches, strict=True):
        np.testing.assert_array_equal(there["image"], here["image"])


SIGNATURE = "Immune_T"
READERS: dict[str, Callable[[Any, Path], Any]] = {
    "io.mpp": lambda sdata, _: sp.io.mpp(sdata),
    "io.status": lambda sdata, _: sp.io.status(sdata).to_csv(),
    "io.export_geojson": lambda sdata, out: sp.io.export_geojson(sdata, out / "x.geojson"),
    "io.export_seed_layout": lambda sdata, out: sp.io.export_seed_layout(
        sdata, out / "layout", use_rep=None, images=True
    ),
    "pl.patches": lambda sdata, out: sp.pl.patches(sdata, save=out / "x.png"),
    "pl.atlas": lambda sdata, out: sp.pl.atlas(sdata, out / "atlas.html"),
    "pl.gallery": lambda sdata, out: sp.pl.gallery(sdata, SIGNATURE, save=out / "x.png"),
    "pl.compare": lambda sdata, out: sp.pl.compare(sdata, SIGNATURE, save=out / "x.png"),
    "pl.scatter": lambda sdata, out: sp.pl.scatter(sdata, save=out / "x.png"),
    "pl.alignment": lambda sdata, out: sp.pl.alignment(sdata, save=out / "x.png"),
}


@pytest.mark.parametrize("name", READERS)
def test_what_reads_gives_what_it_gives_of_the_store_here(
    name: str, folder: Path, address: str, tmp_path: Path
) -> None:
    found = []
    for number, place in enumerate((address, folder / "s.zarr")):
        out = tmp_path / str(number)
        out.mkdir()
        result = READERS[name](sp.io.read(place), out)
        files = {file.relative_to(out): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}
        found.append((result if isinstance(result, str | float | tuple) else None, files))
    assert found[0] == found[1]
    assert found[0] != (None, {})


def test_what_writes_into_a_store_says_what_to_do_with_an_address(address: str, model: SignatureViT) -> None:
    advice = "is an address: .*is read from there by `sp.io.read`, .* stays in memory, and `sp.io.write` saves it"
    calls: dict[str, Callable[[], Any]] = {
        "data": functools.partial(sp.tl.predict, address, model),
        "path": functools.partial(sp.io.write, sp.datasets.toy(size_um=100), address),
        "stores": functools.partial(sp.Cohort, {"A": address}),
        "source": functools.partial(sp.Cohort, address),
    }
    for call in calls.values():
        with pytest.raises(InputError, match=advice):
            call()


def test_commands_that_only_read_take_an_address(folder: Path, address: str) -> None:
    def said(*words: object) -> str:
        result = CliRunner().invoke(app, [*map(str, words), "--quiet"])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert said("status", address, "--parts") == said("status", folder / "s.zarr", "--parts")
    for command in ("verify", "split"):
        refused = CliRunner().invoke(app, [command, address, "--quiet"])
        assert refused.exit_code
        assert f"{address} is an address, and this command works in stores of this machine" in str(refused.exception)
    chosen = CliRunner().invoke(app, ["status", address, "--index", "0"])
    assert "choose from the cohort" in str(chosen.exception)
