"""The prototype's files, read by code that shares none of the package's."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from skimage.io import imread

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "seed_parity.py"


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    """The prototype written anew, as the benchmark has it."""
    spec = importlib.util.spec_from_file_location("seed_parity", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_prototype_computes_what_the_files_hold(toy: sd.SpatialData, tmp_path: Path, parity: ModuleType) -> None:
    panels = parity.prepare(toy, tmp_path, patch_px=56, images=True)
    apart = parity.compare(toy, tmp_path, panels)
    assert apart["patches"] > 3
    assert max(apart["embedding of the cells"], apart["patch mean"], apart["median"]) < 1e-5
    labels = pd.read_csv(tmp_path / "labels.csv")
    assert list(labels.columns[:7]) == ["slide", "y0", "x0", "size_l0", "n_cells", "png_path", "ae_path"]
    assert list(labels.columns[7:]) == list(panels)
    row = labels.iloc[0]
    assert row["ae_path"] == f"embeddings/toy_y{row['y0']}_x{row['x0']}.npy"
    picture = imread(tmp_path / row["png_path"])
    assert picture.shape == (56, 56, 3)
    assert picture.std() > 5
    # the test can fail: another cell in a patch, another gene order
    vector = np.load(tmp_path / row["ae_path"])
    np.save(tmp_path / row["ae_path"], vector + np.float32(1e-4))
    assert parity.compare(toy, tmp_path, panels)["patch mean"] > 5e-5


def test_what_cannot_be_written_is_said_before(patched: sd.SpatialData, tmp_path: Path) -> None:
    with pytest.raises(KeyMissingError, match="or pass `use_rep=None`"):
        sp.io.export_seed_layout(patched, tmp_path / "a")
    patched.attrs["spatialsig"]["sample"] = "a/b"
    with pytest.raises(InputError, match="'a/b' holds a path separator; files are named by slide"):
        sp.io.export_seed_layout(patched, tmp_path / "a", use_rep=None)
    assert not (tmp_path / "a").exists()
    patched.attrs["spatialsig"]["sample"] = "toy"
    labels = sp.io.export_seed_layout(patched, tmp_path / "a", use_rep=None)
    assert (labels["ae_path"] == "").all()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["labels.csv"]
