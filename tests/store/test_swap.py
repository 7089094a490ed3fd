"""Staging directories: whose they are, what is given back out of them, and what is moved and never deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spatialsig.store import swap
from spatialsig.store.swap import clear_leftovers, leftovers, quarantine, restore_interrupted_swaps, staging_directory

from .conftest import dead_pid

HOST = "node-7"  # the names of hosts may hold what separates the parts


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one image, on a host with a name of its own."""
    monkeypatch.setattr(swap.socket, "gethostname", lambda: HOST)
    (tmp_path / "s.zarr/images/he").mkdir(parents=True)
    return tmp_path / "s.zarr"


def staged(path: Path, owner: str) -> Path:
    """Staging directory as ``owner`` names it."""
    directory = path.with_name(f".s.zarr.staging-{owner}")
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("owner", "stays"),
    [
        (f"{HOST}-dead-abcd", False),
        (f"{HOST}-alive-abcd", True),
        ("node-8-dead-abcd", True),
        ("8-dead-abcd", True),  # its last part alone is not the host
        (f"{HOST}-copy-abcd", True),
        (f"{HOST}--abcd", True),
        (f"{HOST}-²-abcd", True),  # a digit, and no number
        (HOST, True),
        ("", True),
    ],
)
def test_only_directories_of_ended_processes_of_this_host_go(path: Path, owner: str, stays: bool) -> None:
    directory = staged(path, owner.replace("dead", str(dead_pid())).replace("alive", str(os.getpid())))
    assert leftovers(path) == [directory]
    clear_leftovers(path)
    assert directory.exists() == stays
    assert (path / "images/he").exists()


def test_what_a_swap_took_away_is_given_back_where_nothing_stands(path: Path) -> None:
    gone, replaced, waited_for = (
        staged(path, f"{HOST}-{pid}-{k}") / "images" for k, pid in enumerate((dead_pid(), dead_pid(), os.getpid()))
    )
    for images, name in ((gone, "ihc"), (replaced, "he"), (waited_for, "if")):
        (images / f"{name}.aside-12ab").mkdir(parents=True)
        (images / f"{name}.aside-12ab" / "chunk").write_text(name)
    assert restore_interrupted_swaps(path) == [gone / "ihc.aside-12ab"]
    assert (path / "images/ihc/chunk").read_text() == "ihc"
    assert not list((path / "images/he").iterdir())  # the new one stays as it is
    assert not (path / "images/if").exists()  # its writer is still at work


def test_a_whole_store_that_was_being_replaced_is_given_back(path: Path) -> None:
    path.rename(path.with_name("s.zarr.aside-12ab"))
    assert leftovers(path) == [path.with_name("s.zarr.aside-12ab")]
    assert restore_interrupted_swaps(path) == [path.with_name("s.zarr.aside-12ab")]
    assert (path / "images/he").is_dir()


def test_quarantine_keeps_content_and_place(path: Path) -> None:
    (path / "images/he/half").write_text("of the store")
    beside = path.with_name("s.zarr.aside-12ab")
    beside.write_text("beside it")
    away = quarantine([path / "images/he", beside], path)
    assert away.parent == path.parent
    assert away.name.startswith(".s.zarr.quarantine-")
    assert {str(f.relative_to(away)): f.read_text() for f in away.rglob("*") if f.is_file()} == {
        "images/he/half": "of the store",
        "s.zarr.aside-12ab": "beside it",
    }
    assert not (path / "images/he").exists()
    assert quarantine([path / "images"], path) != away  # never into what lies there already


def test_a_staging_directory_is_this_processes_and_goes_with_an_exception(path: Path) -> None:
    def fail() -> None:
        with staging_directory(path) as staging:
            staging.mkdir()
            clear_leftovers(path)
            assert staging.is_dir()  # this process lives
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(path.parent.iterdir()) == [path]
