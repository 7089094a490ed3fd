"""The same work on many items, alone, in processes and on a cluster: same results, same warnings, nothing lost."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Worker

from spatialsig import _workers
from spatialsig._checks import warn
from spatialsig._settings import settings
from spatialsig._workers import attempt_each, device_of_process, limited_threads
from spatialsig.errors import InputError, SpatialsigWarning, StoreError

pytestmark = pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")
WAYS = ("alone", "processes", "cluster")
ITEMS = {f"S{k}": k for k in range(6)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as found:
        yield found


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(settings, "n_jobs", 2 if request.param == "processes" else 1)
    if request.param == "cluster":
        with Client(request.getfixturevalue("cluster"), set_as_default=True):
            yield request.param
    else:
        yield request.param


def square(k: int) -> np.ndarray:
    return np.arange(k) ** 2


def fails_at_2(k: int) -> int:
    if k == 2:
        msg = "no good"
        raise InputError(msg)
    return k


def faulty(k: int) -> int:
    return {}[k]


def warns_at_3(k: int) -> int:
    if k == 3:
        warn("three is odd")
    return k


def settings_there(_: int) -> tuple[bool, int, float]:
    return settings.progress, settings.n_jobs, settings.cells_mb


def nested(k: int) -> list[int]:
    return [outcome.value for outcome in attempt_each(fails_at_2, {"a": k, "b": 7}, "inner") if not outcome.error]


def dies_once(item: tuple[int, str]) -> int:
    """Kill the process at the first attempt on item 3, as a scheduler does for want of memory."""
    k, mark = item
    if k == 3 and not Path(mark).exists():
        Path(mark).touch()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return k


@pytest.mark.usefixtures("way")
class TestEveryWay:
    def test_results_come_in_the_order_of_the_items(self) -> None:
        outcomes = attempt_each(square, ITEMS, "square")
        assert [outcome.name for outcome in outcomes] == list(ITEMS)
        for outcome, k in zip(outcomes, ITEMS.values(), strict=True):
            np.testing.assert_array_equal(outcome.value, np.arange(k) ** 2)

    def test_one_that_fails_leaves_the_others_alone(self) -> None:
        outcomes = attempt_each(fails_at_2, ITEMS, "some")
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4, 5]
        assert isinstance(outcomes[2].error, InputError)
        assert str(outcomes[2].error) == "no good"

    def test_a_fault_of_ours_is_seen(self) -> None:
        with pytest.raises(KeyError):
            attempt_each(faulty, ITEMS, "faulty")

    def test_warnings_arrive_once(self) -> None:
        with pytest.warns(SpatialsigWarning, match="three is odd") as caught:
            attempt_each(warns_at_3, ITEMS, "warned")
        assert len(caught) == 1

    def test_work_inside_work_is_done_there(self) -> None:
        outcomes = attempt_each(nested, {"x": 1, "y": 2}, "outer")
        assert [outcome.value for outcome in outcomes] == [[1, 7], [7]]

    def test_settings_travel(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "cells_mb", 77)
        found = [outcome.value for outcome in attempt_each(settings_there, ITEMS, "settings")]
        assert found == [(settings.progress and way == "alone", 1, 77)] * len(ITEMS)


@pytest.mark.parametrize("way", ["processes", "cluster"], indirect=True)
def test_an_item_whose_process_dies_is_tried_again(way: str, tmp_path: Path) -> None:
    items = {name: (k, str(tmp_path / "died")) for name, k in ITEMS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = attempt_each(dies_once, items, way)
    assert (tmp_path / "died").exists()
    assert [outcome.value for outcome in outcomes] == list(ITEMS.values())


def always_dies_on_3(k: int) -> int:
    if k == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return k


@pytest.mark.parametrize("way", ["processes", "cluster"], indirect=True)
def test_an_item_whose_process_always_dies_is_an_error_of_its_own(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "ATTEMPTS", 2)
    with warnings.catch_warnings(), dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        warnings.simplefilter("ignore")
        outcomes = attempt_each(always_dies_on_3, ITEMS, way)
    assert isinstance(outcomes[3].error, StoreError)
    assert "mostly for want of memory" in str(outcomes[3].error)
    assert all(outcome.value == k or outcome.error for outcome, k in zip(outcomes, ITEMS.values(), strict=True))


def test_workers_that_do_not_see_the_stores_are_named(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    there, missing = Path("/"), Path("/nowhere")
    monkeypatch.setattr(Path, "exists", lambda path: path != missing)  # of this process; workers look for themselves
    with Client(cluster, set_as_default=True):
        assert len(attempt_each(square, ITEMS, "square", shared=there)) == len(ITEMS)
        with pytest.raises(StoreError, match=r"worker tcp://.* does not see '/nowhere'. .*all machines mount"):
            attempt_each(square, ITEMS, "square", shared=missing)


def test_another_version_on_a_worker_is_refused(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "version", lambda _: "0.0.1")
    with (
        Client(cluster, set_as_default=True),
        pytest.raises(StoreError, match=r"has spatialsig .*, this process 0.0.1"),
    ):
        attempt_each(square, ITEMS, "square")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later versions collect garbage elsewhere")
def test_workers_are_not_profiled_where_that_can_lock_them_up(cluster: LocalCluster) -> None:
    def profiled(dask_worker: Worker) -> bool:
        return dask_worker.periodic_callbacks["profile"].is_running()

    with Client(cluster, set_as_default=True) as client:
        client.run(lambda dask_worker: dask_worker.periodic_callbacks["profile"].start())
        assert all(client.run(profiled).values())
        attempt_each(square, ITEMS, "square")
        assert not any(client.run(profiled).values())


def test_threads_are_limited_and_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    with limited_threads(1):
        assert torch.get_num_threads() == 1
        assert dask.config.get("scheduler") == "synchronous"
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("process", "n_gpus", "wanted"), [
    ("LokyProcess-1", 2, "cuda:1"), ("LokyProcess-4", 2, "cuda:0"), ("LokyProcess-3", 1, "auto"), ("MainProcess", 4, "auto"),
])  # fmt: skip
def test_each_process_has_a_gpu(process: str, n_gpus: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(multiprocessing.current_process(), "name", process)
    assert device_of_process("auto") == wanted
    assert device_of_process("cpu") == "cpu"
