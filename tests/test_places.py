"""Every path of every public function, in and out: ``~`` is the home, and what is no path of this machine is refused by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import spatialsig as sp
from spatialsig._arguments import fitting, taking_addresses
from spatialsig._files import replaced, write_text
from spatialsig._paths import as_address, local_path
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.pl.drawing.canvas import canvas, save_figure

from .test_arguments import FUNCTIONS, METHODS
from .test_full_disk import autoencoder

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {
    "path",
    "out",
    "directory",
    "save",
    "file",
    "run_dir",
    "manifest",
    "he_image",
    "he_alignment",
    "data",
    "source",
}
NO_PATHS = {"Autoencoder.__init__", "tl.findings", "pl.ladder"}  # whose `data` or `source` is something else
CALLS: dict[str, Callable[..., Any]] = FUNCTIONS | {
    name: getattr(cls if isinstance(vars(cls)[method], classmethod) else cls.__new__(cls), method)
    for name, (cls, method) in METHODS.items()
}


def _kinds(hint: Any) -> tuple[Any, ...]:
    return (hint, *get_args(hint))


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(inspect.unwrap(call)).items() if name != "return"}


PATHS = [
    (name, argument) for name, call in CALLS.items() for argument, hint in _hints(call).items() if Path in _kinds(hint)
]
OF_MAPPINGS = [
    (name, argument)
    for name, call in CALLS.items()
    for argument, hint in _hints(call).items()
    if any(get_origin(kind) is Mapping and Path in _kinds(get_args(kind)[1]) for kind in _kinds(hint))
]
ANYWHERE = {(name, argument) for name, argument in PATHS if argument in taking_addresses(inspect.unwrap(CALLS[name]))}
ADDRESSES = {"s3", "a path that was an address", "https"}  # which those take
REFUSED: dict[str, tuple[str | Path, str]] = {
    "s3": ("s3://bucket/x.zarr", "s3:// is an address: copy the data here, or mount the place as a folder"),
    "a path that was an address": (Path("gs://bucket/x.zarr"), "gs:// is an address"),
    "https": ("https://host/x.zarr", "https:// is an address"),
    "a file of another machine": ("file://host/x.zarr", "file:// is an address"),
    "bytes": (Path("\udcff.zarr"), "every part is UTF-8, as stores, tables and models keep no others"),
    "bytes above": (Path("\udcff/x.zarr"), "every part is UTF-8"),
    "a zero byte": (Path("a\0b"), "zero byte"),
    "nobody's home": ("~nobody-of-that-name/x.zarr", "no user of that name"),
    "a circle": ("circle.zarr", "a link that leads back to itself"),
    "a long name": ("x" * 300, "at most 255 bytes"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "circle.zarr").symlink_to("circle.zarr")
    return tmp_path


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_path_of_this_machine_is_refused_by_every_function(place: Path, kind: str) -> None:
    given, message = REFUSED[kind]
    for name, argument in PATHS:
        if kind in ADDRESSES and (name, argument) in ANYWHERE:
            continue
        with pytest.raises(InputError, match=message) as caught:
            CALLS[name](**{argument: given})
        assert str(caught.value).startswith(f"`{argument}="), (name, str(caught.value))
        assert name.removesuffix(".__init__").split(".")[-1].replace("read_atera", "read_xenium") in str(caught.value)
    for name, argument in OF_MAPPINGS:
        with pytest.raises(InputError, match=message) as caught:
            CALLS[name](**{argument: {"S1": given}})
        assert str(caught.value).startswith(f"`{argument}['S1']=")
    assert [entry.name for entry in place.iterdir()] == ["circle.zarr"]


def test_a_folder_that_is_a_link_to_nowhere_is_named_by_every_function_and_not_made(place: Path) -> None:
    (place / "disk").symlink_to(place / "not mounted")
    for name, argument in PATHS:
        for given in ("disk/x.zarr", Path("disk/a/b.png")):
            with pytest.raises(
                FileMissingError, match="disk' is a link to '.*not mounted', which is not there: mount its"
            ):
                CALLS[name](**{argument: given})
    assert not (place / "not mounted").exists()


def test_the_home_and_file_addresses_are_paths_for_every_function(place: Path) -> None:
    home = str(place / "home" / "x.zarr")
    meant = {"~/x.zarr": home, f"file://{home}": home, f"file://localhost{home}": home, "file:///a%20b": "/a b"}
    for name, argument in PATHS:
        for given, wanted in meant.items():
            for kind in (str, Path):
                if (kind, given[:16]) != (Path, "file://localhost"):  # which a `Path` reads as a folder of that name
                    assert fitting(CALLS[name], {argument: kind(given)}, of=name) == {argument: kind(wanted)}
    for name, argument in OF_MAPPINGS:
        assert fitting(CALLS[name], {argument: {"S1": "~/x.zarr"}}, of=name) == {argument: {"S1": home}}


def test_the_functions_that_take_paths_say_so_in_their_annotations() -> None:
    found = {(name, argument) for name, argument in PATHS}
    named = {(n, a) for n, call in CALLS.items() if n not in NO_PATHS for a in _hints(call) if a in NAMES}
    assert named <= found, sorted(named - found)
    assert len(found) > 90
    assert {name for name, _ in OF_MAPPINGS} >= {"Cohort.__init__", "pp.align_he"}


def test_only_the_function_that_reads_a_store_takes_addresses() -> None:
    assert ANYWHERE == {("io.read", "path")}
    for kind in ADDRESSES:
        assert fitting(CALLS["io.read"], {"path": REFUSED[kind][0]}, of="io.read") == {"path": REFUSED[kind][0]}


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("s3://bucket/x.zarr/", "s3://bucket/x.zarr"),
        (Path("https://host/a/x.zarr"), "https://host/a/x.zarr"),
        ("HTTP://host:80/x", "http://host:80/x"),
        ("memory://x", "memory://x"),
        ("file:///x", None),
        ("C:/slides", None),
        ("a/b:/c", None),
        ("x.zarr", None),
    ],
)
def test_an_address_has_both_its_slashes(given: str | Path, address: str | None) -> None:
    assert as_address(given) == address


def test_ordinary_paths_stay_as_they_are(place: Path) -> None:
    for given in (
        "x.zarr",
        "a/~/x",
        "~backup.tif",
        "C:/slides/x.zarr",
        "/a/b:c/d",
        "a b/ä.csv",
        Path("x"),
        "./x",
        "identity",
    ):
        assert local_path(given) == given
    (place / "~home").mkdir()
    assert local_path("~home/x.csv") == "~home/x.csv"


def test_a_store_is_written_and_read_at_home(place: Path) -> None:
    sdata = sp.datasets.toy(size_um=100)
    sp.io.write(sdata, "~/x.zarr")
    assert sdata.path == place / "home" / "x.zarr"
    sp.pp.make_patches("~/x.zarr", patch_px=28, um_per_px=2.0)
    assert "patches" in sp.io.read(f"file://{place}/home/x.zarr").shapes
    assert sorted(os.listdir(place)) == ["circle.zarr", "home"]


def test_a_place_below_one_that_is_not_utf_8_or_gone_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(os.fsdecode(b"\xff"))
    monkeypatch.chdir(os.fsdecode(b"\xff"))
    with pytest.raises(
        InputError, match=r"`path='x\.zarr'` of `sp\.io\.write` must be a path whose every part is UTF-8"
    ):
        sp.io.write(sp.datasets.toy(size_um=100), "x.zarr")
    os.rmdir(place / os.fsdecode(b"\xff"))
    with pytest.raises(FileMissingError, match="the folder that Python works in no longer exists"):
        sp.io.read("x.zarr")


LINKED: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: write_text(path, "new"),
    "a figure": lambda path: save_figure(canvas(None, width_in=1, height_in=1), path),
    "a model": lambda path: autoencoder().save(path, overwrite=True),
    "a store": lambda path: sp.io.write(sp.datasets.toy(size_um=100), path, overwrite=True),
}


@pytest.mark.parametrize("what", LINKED)
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path, what: str) -> None:
    real, link = tmp_path / "disk" / "real.png", tmp_path / "link.png"
    LINKED[what](real)
    first = real.stat().st_ino
    link.symlink_to(real)
    LINKED[what](link)
    assert link.is_symlink()
    assert real.stat().st_ino != first
    assert sorted(os.listdir(tmp_path)) == ["disk", "link.png"]
    assert os.listdir(tmp_path / "disk") == ["real.png"]
    gone = tmp_path / "gone.png"
    gone.symlink_to(tmp_path / "not mounted" / "x.png")
    with pytest.raises(StoreError, match=r"gone\.png' is a link to '.*x\.png', which is not there: mount its disk"):
        LINKED[what](gone)
    assert not (tmp_path / "not mounted").exists()


def test_a_file_takes_the_place_of_a_file_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder' is a folder, which a file would replace; choose another name"):
        write_text(tmp_path / "folder", "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="is a pipe, a socket or a device"), replaced(tmp_path / "pipe"):
        pass


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if "save" in inspect.signature(FUNCTIONS[name]).parameters]
)
def test_every_plot_hands_its_file_to_the_one_place_that_writes_figures(name: str) -> None:
    module = inspect.getsource(inspect.getmodule(inspect.unwrap(FUNCTIONS[name])))  # type: ignore[arg-type]
    assert "save_figure(" in module
    assert ".savefig(" not in module


def test_a_format_that_figures_have_not_is_named(tmp_path: Path) -> None:
    figure = canvas(None, width_in=1, height_in=1)
    with pytest.raises(InputError, match=r"figures are not written as '\.xyz'; use one of .*'pdf'.*, such as 'a\.png'"):
        save_figure(figure, tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"`save='\.'` is a folder; add the name of a file, such as 'figure\.png'"):
        save_figure(figure, ".")
    save_figure(figure, tmp_path / "b")
    save_figure(figure, tmp_path / "c.PDF")
    assert sorted(os.listdir(tmp_path)) == ["b.png", "c.PDF"]
    assert (tmp_path / "c.PDF").read_bytes().startswith(b"%PDF")


def test_a_truth_value_is_no_length() -> None:
    sdata = sp.datasets.toy(size_um=100)
    for yes in (True, np.bool_(True)):
        sdata.attrs["spatialsig"]["um_per_global_px"] = yes
        with pytest.raises(InputError, match="gives .*True.* um per pixel of `global`; wanted a number above 0"):
            sp.io.mpp(sdata)
