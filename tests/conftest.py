"""Hypothesis profile and the slides that many tests share."""

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import spatialdata as sd

import spatialsig as sp

MEMORY, ROOM = "/dev/shm", 6 * 2**30  # most of the time of small commits is waiting for a disk
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

hypothesis.settings.register_profile("default", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """One thread for torch: these networks are so small that handing work to a second one costs more than it saves."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _toy() -> sd.SpatialData:
    return sp.datasets.toy()


@pytest.fixture
def toy(_toy: sd.SpatialData) -> sd.SpatialData:
    """One small slide in memory, a fresh copy for every test."""
    return sd.deepcopy(_toy)


def _label_slide(
    sdata: sd.SpatialData, *, block_um: float = 150, buffer_um: float = 40, min_cells: int = 5, **patches: float
) -> sd.SpatialData:
    sp.pp.split(sdata, by="block", block_um=block_um, buffer_um=buffer_um, n_folds=2)
    sp.pp.make_patches(sdata, **patches)
    sp.pp.assign_cells(sdata)
    sp.tl.score_cells(sdata, "seed")
    sp.tl.aggregate_patches(sdata, min_cells=min_cells, use_rep=None)
    return sdata


@pytest.fixture(scope="session")
def label_slide() -> Callable[..., sd.SpatialData]:
    """Function that splits a slide into two folds of blocks, cuts ``patches``, and labels them; returns the slide."""
    return _label_slide


@pytest.fixture(scope="session")
def _patched(_toy: sd.SpatialData) -> sd.SpatialData:
    return _label_slide(sd.deepcopy(_toy), patch_px=56, um_per_px=1.0, stride_um=28.0)


@pytest.fixture
def patched(_patched: sd.SpatialData) -> sd.SpatialData:
    """The toy slide with overlapping patches, cells assigned, scored and averaged; a fresh copy for every test."""
    return sd.deepcopy(_patched)


def _flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture(scope="session")
def flip_bit() -> Callable[[Path], None]:
    """Function that turns over one bit in the middle of a file, as a disk does that nobody watches."""
    return _flip_bit


# demo and commands apart: whichever is first compiles what both use
LONGEST = ("test_soak.py", "test_faults.py", "test_demo.py", "test_child.py", "test_napari.py", "test_commands.py",
           "test_model_verbs.py", "test_lineage.py", "test_document.py")  # fmt: skip
N_LAYOUTS = 7  # of bundles, see faults/conftest.py


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one of them at the end."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_terminal_summary(terminalreporter) -> None:
    """Print which fault of a bundle gets which answer; here, since only this file is read by a parallel run."""
    answers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("passed", []):
        found = dict(getattr(report, "user_properties", []))
        if "fault" in found:
            answers[found["fault"], found["answer"]].append(found["layout"])
    if not answers:
        return
    terminalreporter.section("faults and their answers")
    width = max(len(fault) for fault, _ in answers)
    for (fault, answer), layouts in answers.items():
        which = "all" if len(set(layouts)) == N_LAYOUTS else " ".join(sorted(set(layouts)))
        terminalreporter.write_line(f"{fault:<{width}}  {which:<15}  {answer}")
    terminalreporter.write_line(f"{len(answers)} faults, {sum(map(len, answers.values()))} with their layouts")
