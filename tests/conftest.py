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

from . import fast_zarr

MEMORY, ROOM = "/dev/shm", 6 * 2**30  # most of the time of small commits is waiting for a disk
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

if not os.environ.get("ZARR_WITH_THREADS"):
    fast_zarr.use()

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


@pytest.fixture(scope="session")
def _toy_store(_toy: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "s.zarr"
    sp.io.write(_toy, path)
    return path


@pytest.fixture
def toy_store(_toy_store: Path, tmp_path: Path) -> Path:
    """The store of :func:`toy`, a fresh copy for every test: copying takes a hundredth of writing."""
    return Path(shutil.copytree(_toy_store, tmp_path / "s.zarr"))


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
           "test_model_functions.py", "test_lineage.py", "test_document.py")  # fmt: skip
N_LAYOUTS = 7  # of bundles, see faults/conftest.py


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one of them at the end."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


# habits of other people's files and scripts that once gave a wrong result without a word -> tests that try their kind
HABITS = {
    "A 1-3 a result whose sources changed: every change x every reader": ("slide/test_lineage.py", "slide/test_fingerprints.py"),
    "B 4-5 names, manifests and gene sets as spreadsheets write them": ("test_text.py",),
    "B 6   patient, sample and ids that a table has": ("io/test_anndata.py::test_the_patient", "io/test_anndata.py::test_several",
        "io/test_anndata.py::test_what_the_table", "io/test_anndata.py::test_no_column"),
    "B 7   missing values": ("io/test_anndata.py::test_what_is_missing", "labels/test_targets.py"),
    "B 8   columns and counts of other kinds": ("io/test_anndata.py::test_columns", "io/test_anndata.py::test_names_of",
        "io/test_anndata.py::test_counts_may", "io/test_anndata.py::test_text_of_pandas"),
    "C 9   the file's pixel size against the one its place implies": ("io/test_pixel_size.py", "geometry/test_mistakes.py",
        "pp/test_qc_alignment.py::test_a_copy_of_any_size"),
    "C 10  pixel sizes that are none": ("io/images/test_metadata.py",),
    "C 11  tiles that lost their transformation": ("pp/test_import_patches.py",),
    "C 12  turned images, channels in another order": ("io/images/test_orientation_and_channels.py",),
    "C     files that say two things": ("io/images/test_contradictions.py",),
    "C     images and places that no H&E has, levels, tiles": ("slide/test_images.py", "data/test_level_pixels.py",
        "pp/test_tiles.py", "geometry/test_placement.py"),
    "D     chunks that were lost": ("store/test_chunk_files.py",),
    "D 13-15 stores of another format, links, read-only places, names": ("io/test_paths.py", "geometry/test_affine.py",
        "io/xenium/test_he.py"),
    "E     Atera": ("io/test_atera.py",),
    "F     arguments of a wrong type or range": ("test_arguments.py", "tl/test_options.py"),
    "F     values that are no counts, positions or genes": ("slide/test_values.py", "signatures/test_names.py"),
    "G     full disk": ("test_full_disk.py", "faults_store/"),
    "H     damaged models": ("models/",),
}  # fmt: skip


def _print_habits(terminalreporter) -> None:
    passed = [report.nodeid.partition("tests/")[2] for report in terminalreporter.stats.get("passed", [])]
    counts = {habit: sum(name.startswith(tests) for name in passed) for habit, tests in HABITS.items()}
    if len(passed) > 1000:  # the whole suite was run
        terminalreporter.section("habits of others, and tests of their kind")
        for habit, count in counts.items():
            terminalreporter.write_line(f"{habit:<70}{count:>6}")


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what is tried of other people's habits, and which fault of a bundle gets which answer.

    It stands here since only this file is read by a parallel run.
    """
    _print_habits(terminalreporter)
    answers: dict[tuple[str, str], list[str]] = defaultdict(list)
    by_command = 0
    for report in terminalreporter.stats.get("passed", []):
        found = dict(getattr(report, "user_properties", []))
        if "fault" in found:
            answers[found["fault"], found["answer"]].append(found["layout"])
            by_command += found.get("door") == "command"
    if not answers:
        return
    terminalreporter.section("faults and their answers")
    width = max(len(fault) for fault, _ in answers)
    for (fault, answer), layouts in answers.items():
        which = "all" if len(set(layouts)) == N_LAYOUTS else " ".join(sorted(set(layouts)))
        terminalreporter.write_line(f"{fault:<{width}}  {which:<15}  {answer}")
    names, tries = len({fault for fault, _ in answers}), sum(map(len, answers.values()))
    terminalreporter.write_line(
        f"{names} faults, {tries} with their layouts, {by_command} of them through the command line"
    )
    terminalreporter.write_line(
        "(those that are alike in all layouts: in two by default, in the others by `make test-slow`)"
    )
