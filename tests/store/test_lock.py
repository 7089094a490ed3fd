from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from spatialsig._settings import settings
from spatialsig.errors import StoreError
from spatialsig.store import lock
from spatialsig.store.commit import commit_elements, write_attrs
from spatialsig.store.lock import lock_file, writer_lock
from spatialsig.store.swap import clear_leftovers

from .conftest import dead_pid, squares


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "lock_wait_s", 0.2)
    return tmp_path / "s.zarr"


def entry(**changes) -> dict:
    return lock._entry("abc", "writing ['table']") | changes


def test_the_lock_is_there_while_writing_and_gone_afterwards(path) -> None:
    with writer_lock(path, "testing"):
        held = json.loads(lock_file(path).read_text())
        assert (held["pid"], held["host"], held["what"]) == (os.getpid(), socket.gethostname(), "testing")
        with writer_lock(path, "again"):
            pass
        assert lock_file(path).exists()
    assert list(path.parent.iterdir()) == []


def test_it_goes_with_an_exception_too(path) -> None:
    with pytest.raises(ZeroDivisionError), writer_lock(path, "testing"):
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "changes", [{"pid": os.getppid(), "started": lock.started_at(os.getppid())}, {"host": "node7"}]
)
def test_a_second_writer_is_told_who_is_first(path, changes) -> None:
    lock_file(path).write_text(json.dumps(entry(since="2026-01-02T03:04:05+00:00", **changes)))
    pid, host = changes.get("pid", os.getpid()), changes.get("host", socket.gethostname())
    message = rf"is being written by another process: writing \['table'\], pid {pid} on '{host}' since 2026-01-02T03:04:05.*remove '.*\.s\.zarr\.lock'"
    with pytest.raises(StoreError, match=message), writer_lock(path, "testing"):
        pass
    assert json.loads(lock_file(path).read_text())["token"] == "abc"


def test_commits_take_the_lock_and_readers_do_not(store, monkeypatch) -> None:
    import spatialsig as sp

    monkeypatch.setattr(settings, "lock_wait_s", 0.0)
    lock_file(store).write_text(json.dumps(entry(host="node7")))
    for commit in (lambda: commit_elements(store, {"squares": squares(5)}), lambda: write_attrs(store, {"a": 1})):
        with pytest.raises(StoreError, match="is being written by another process"):
            commit()
    assert len(sp.io.read(store)["squares"]) == 3


@pytest.mark.parametrize(
    "changes",
    [lambda: {"pid": dead_pid()}, lambda: {"boot": "before"}, lambda: {"started": "1"}, lambda: {}],
    ids=["ended", "rebooted", "its number was given away", "own, not removed"],
)
def test_a_stale_lock_is_taken_over(path, changes) -> None:
    lock_file(path).write_text(json.dumps(entry(**changes())))
    with writer_lock(path, "testing"):
        assert json.loads(lock_file(path).read_text())["what"] == "testing"
    assert list(path.parent.iterdir()) == []


def test_threads_queue_up(path) -> None:
    inside, most = [], []

    def work() -> None:
        with writer_lock(path, "testing"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_without_hard_links_the_lock_is_made_exclusively(path, monkeypatch) -> None:
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.os, "link", refuse)
    with writer_lock(path, "testing"):
        assert not lock._create(lock_file(path), entry())
    assert list(path.parent.iterdir()) == []


def test_no_process_is_signalled_on_windows_where_that_would_end_it(path, monkeypatch) -> None:
    pid = dead_pid()
    staging = path.with_name(f".{path.name}.staging-{socket.gethostname()}-{pid}-abcd")
    staging.mkdir()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(os, "kill", lambda pid, _: pytest.fail(f"process {pid} was signalled"))
    assert not lock.is_stale(entry(pid=pid))
    clear_leftovers(path)
    assert staging.exists()
