"""The same work on many items, one after another or on several at once: on a dask cluster, or in processes of this machine.

Ground floor. Used by cohort, io/_bundles, pipeline/run_steps, slide/each, tl/_predict, whole_slides/from_files.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spatialsig._checks import warn
from spatialsig._progress import progress_bar
from spatialsig._settings import CACHES, settings
from spatialsig.errors import SpatialsigError, SpatialsigWarning, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from distributed import Client, Worker

A = TypeVar("A")
T = TypeVar("T")

ITEM_ERRORS = (SpatialsigError, OSError)  # of a bad item; anything else is a fault of ours and must be seen
ATTEMPTS = 4  # of an item whose process dies, as often as dask tries
_working: ContextVar[bool] = ContextVar("working", default=False)
_one_at_a_time = threading.Lock()  # settings, warnings and threads of libraries belong to the process


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one item: the value, or the error that its own data led to."""

    name: str
    value: T | None = None
    error: Exception | None = None
    seconds: float = 0.0
    warned: tuple[tuple[str, type[Warning], str, int], ...] = ()  # in another process: text, kind, file and line


def attempt_each(
    work: Callable[[A], T],
    items: Mapping[str, A],
    title: str,
    *,
    unit: str = "slide",
    shared: Path | None = None,
    on_done: Callable[[Outcome[T]], None] = lambda _: None,
) -> list[Outcome[T]]:
    """What ``work`` makes of every item, in their order; an item that fails leaves the others alone.

    Several items are worked on at once by the workers of an active ``distributed.Client``, or else by
    ``settings.n_jobs`` processes; inside a worker, one after another. An item whose process dies is tried again.

    Parameters
    ----------
    work
        Function that can be sent to another process, and so can what it returns.
    items
        Items by name.
    title, unit
        Of the progress bar.
    shared
        A path of the items that every worker has to see.
    on_done
        Told of every outcome as soon as it is there, in this process.

    Raises
    ------
    StoreError
        If a worker does not see ``shared``, or has another version of this package.
    """
    client = None if len(items) < 2 else _client()
    n_jobs = 1 if _working.get() else min(settings.n_jobs, len(items))
    with progress_bar(title, total=len(items), unit=unit) as bar:
        if client is not None:
            found = _on_cluster(client, work, items, shared)
        elif n_jobs > 1:
            found = _in_processes(n_jobs, work, items)
        else:
            found = (attempt(work, name, item) for name, item in items.items())
        done: dict[str, Outcome[T]] = {}
        try:
            with contextlib.closing(found):
                for outcome in found:
                    done[outcome.name] = outcome
                    bar.note(outcome.name)
                    bar.advance()
                    on_done(outcome)
        finally:
            for outcome in done.values():
                _warn_again(outcome)
    return [done[name] for name in items]


def attempt(work: Callable[[A], T], name: str, item: A) -> Outcome[T]:
    """What ``work`` makes of one item, or the error that it raised."""
    started = time.perf_counter()
    try:
        return Outcome(name, value=work(item), seconds=time.perf_counter() - started)
    except ITEM_ERRORS as error:
        return Outcome(name, error=error, seconds=time.perf_counter() - started)


def _attempt_apart(work: bytes | str, name: str, item: Any, own: Mapping[str, Any]) -> Outcome[Any]:
    """As :func:`attempt` in a worker, with the settings of the process that asked for it; warnings are sent back."""
    with _one_at_a_time:
        # before its threads are limited and its GPU is chosen: this loads the libraries that compute
        function = pickle.loads(work if isinstance(work, bytes) else Path(work).read_bytes())
        return _attempt_here(function, name, item, {**own, "device": device_of_process(str(own["device"]))})


def _attempt_here(function: Callable[[Any], Any], name: str, item: Any, own: Mapping[str, Any]) -> Outcome[Any]:
    with _settings_of(own), limited_threads(settings.threads):
        token = _working.set(True)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", SpatialsigWarning)
                outcome = attempt(function, name, item)
        finally:
            _working.reset(token)
    return replace(outcome, warned=tuple((str(w.message), w.category, w.filename, w.lineno) for w in caught))


def _warn_again(outcome: Outcome[Any]) -> None:
    for text, category, file, line in outcome.warned:
        if issubclass(category, SpatialsigWarning):
            warn(text)
        else:
            warnings.warn_explicit(text, category, file, line)


@contextlib.contextmanager
def _settings_of(own: Mapping[str, Any]) -> Iterator[None]:
    before = asdict(settings)
    for name, value in own.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


@contextlib.contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Let the libraries that compute use ``n`` threads of this process, and no more, for the length of a block."""
    import dask
    from threadpoolctl import threadpool_limits

    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    before = torch.get_num_threads() if torch else n
    numba_before = numba.get_num_threads() if numba else n
    if numba:  # first: its threads, when they are launched, set those of OpenMP
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(n), dask.config.set(scheduler="threads" if n > 1 else "synchronous", num_workers=n):
            if torch:
                torch.set_num_threads(n)
            yield
    finally:
        if numba:
            numba.set_num_threads(numba_before)
        if torch:
            torch.set_num_threads(before)


def _own_settings(threads: int, n_jobs: int = 1) -> dict[str, Any]:
    own = asdict(settings) | {"progress": False, "n_jobs": 1, "threads": threads}
    if settings.memory_gb is not None:  # first in the order, so that caches that were set by themselves stay so
        own |= {name: own[name] / n_jobs for name in ("memory_gb", *CACHES)}
    return own


def _in_processes(n_jobs: int, work: Callable[[A], T], items: Mapping[str, A]) -> Generator[Outcome[T]]:
    import cloudpickle
    from joblib import Parallel, delayed, parallel_config

    own = _own_settings(threads := max(1, settings.threads // n_jobs), n_jobs)
    left, attempts = dict(items), 0
    with tempfile.TemporaryDirectory(prefix="spatialsig-work-") as folder:
        file = Path(folder, "work")  # written once: a network would travel with every item
        file.write_bytes(cloudpickle.dumps(work))
        while left:
            jobs = [delayed(_attempt_apart)(str(file), name, item, own) for name, item in left.items()]
            try:
                with parallel_config("loky", n_jobs=n_jobs, inner_max_num_threads=threads):
                    for outcome in Parallel(return_as="generator_unordered", batch_size=1)(jobs):
                        del left[outcome.name]
                        yield outcome
            except BrokenProcessPool:
                attempts += 1
                if attempts == ATTEMPTS:
                    for name in left:
                        yield Outcome(name, error=StoreError(f"{_died(attempts)} Lower `sp.settings.n_jobs`."))
                    return


def _died(attempts: int) -> str:
    return f"the process that worked on it, or beside it, died {attempts} times, mostly for want of memory."


def device_of_process(device: str) -> str:
    """``"auto"`` as one of several GPUs, by the number of this process; every other name as it is."""
    from multiprocessing import current_process

    torch, number = sys.modules.get("torch"), current_process().name.rpartition("-")[2]
    n_gpus = torch.cuda.device_count() if torch and device == "auto" else 0
    return f"cuda:{int(number) % n_gpus}" if n_gpus > 1 and number.isdigit() else device


def _client() -> Client | None:
    """The active client of dask; None without one, and inside a task."""
    distributed = sys.modules.get("distributed")
    if distributed is None or _working.get():
        return None
    with contextlib.suppress(ValueError):
        distributed.get_worker()
        return None
    with contextlib.suppress(ValueError):
        client: Client = distributed.default_client()
        return client
    return None


def _on_cluster(
    client: Client, work: Callable[[A], T], items: Mapping[str, A], shared: Path | None
) -> Generator[Outcome[T]]:
    import cloudpickle
    from distributed import KilledWorker, as_completed

    own, ours = _own_settings(settings.threads), version("spatialsig")
    _check_workers(client, shared, ours)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # a network, which travels once
        # a task of its own, which is made again where its worker dies; what is scattered would be lost
        sent = client.submit(bytes, cloudpickle.dumps(work), pure=False)
    futures = {
        client.submit(_on_worker, sent, name, item, own, shared, ours, pure=False): name for name, item in items.items()
    }
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            try:
                yield future.result()
            except KilledWorker as error:
                yield Outcome(futures[future], error=StoreError(f"{_died(ATTEMPTS)} ({error})"))
    finally:
        client.cancel([*futures, sent])  # type: ignore[no-untyped-call]


def _on_worker(work: bytes, name: str, item: Any, own: dict[str, Any], shared: Path | None, ours: str) -> Outcome[Any]:
    from distributed import get_worker

    worker = get_worker()
    if fault := _prepare(shared, ours, worker):
        return Outcome(name, error=StoreError(f"worker {worker.address} {fault}"))
    return _attempt_apart(work, name, item, own | {"threads": worker.state.nthreads})


def _check_workers(client: Client, shared: Path | None, ours: str) -> None:
    """Look at every worker that is there; those that come later look themselves."""
    for address, fault in client.run(_prepare, shared, ours).items():
        if fault:
            msg = f"worker {address} {fault}"
            raise StoreError(msg)


def _prepare(shared: Path | None, ours: str, dask_worker: Worker) -> str:
    """Stop what could hang a worker, and say why it cannot work; dask puts the worker in by that name."""
    profile = dask_worker.periodic_callbacks.get("profile")
    if sys.version_info < (3, 12) and profile is not None:
        # looking at the frames of running threads can lock up the interpreter: github.com/python/cpython/issues/106883
        dask_worker.loop.add_callback(profile.stop)
    return _unfit(shared, ours)


def _unfit(shared: Path | None, ours: str) -> str:
    """Why the worker that is asked cannot work on the items; empty where it can."""
    if (has := version("spatialsig")) != ours:
        return f"has spatialsig {has}, this process {ours}; install one version on both."
    if shared is not None and not shared.exists():
        return (
            f"does not see {str(shared)!r}. Workers read and write the stores themselves: put them on a file system that all "
            "machines mount at the same path."
        )
    return ""
