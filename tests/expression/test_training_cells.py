"""Cells of several slides are scaled together, each gene over the slides that measure it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.data.cells import MemoryCells, StoredCells
from spatialsig.expression.training_cells import TrainingCells
from spatialsig.slide.counts import counts_of
from spatialsig.slide.slides import Slide, open_slides


@pytest.fixture(scope="module")
def _pair() -> tuple[sd.SpatialData, sd.SpatialData]:
    return tuple(sp.datasets.toy(seed=seed, size_um=200, sample=f"S{seed}") for seed in (0, 1))


@pytest.fixture
def pair(_pair: tuple[sd.SpatialData, sd.SpatialData]) -> tuple[sd.SpatialData, sd.SpatialData]:
    """Two slides; the second measures every other gene, in another order."""
    first, second = (sd.deepcopy(sdata) for sdata in _pair)
    second["table"] = second["table"][:, ::-2].copy()
    return first, second


def add(cells: TrainingCells, slide: Slide, rows: np.ndarray) -> None:
    cells.add(slide, "table", counts_of(slide, "table"), rows)


def chosen(sdata: sd.SpatialData, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(sdata["table"].n_obs) < 0.5


def normalised(sdata: sd.SpatialData, genes: list[str], rows: np.ndarray) -> pd.DataFrame:
    """log1p of counts per 10,000 of the genes that the slide measures; NaN for the others."""
    counts = sdata["table"].to_df().reindex(columns=genes)[rows].astype(float)
    return np.log1p(counts.mul(1e4 / counts.sum(axis=1).clip(lower=1), axis=0))


def test_the_scaler_is_over_the_cells_that_measure_a_gene(pair: tuple[sd.SpatialData, sd.SpatialData]) -> None:
    genes = list(pair[0]["table"].var_names[:41])
    cells, rows = TrainingCells(genes), [chosen(sdata, k) for k, sdata in enumerate(pair)]
    for sdata, of_slide in zip(pair, rows, strict=True):
        add(cells, Slide(sdata), of_slide)
    x = pd.concat([normalised(sdata, genes, of_slide) for sdata, of_slide in zip(pair, rows, strict=True)])
    mean, std = cells.scaler()
    np.testing.assert_allclose(mean, x.mean(), rtol=1e-5)
    np.testing.assert_allclose(std, x.std(ddof=0).replace(0, 1), rtol=1e-4)
    expected = [[gene in sdata["table"].var_names for gene in genes] for sdata in pair]
    np.testing.assert_array_equal(cells.mask, expected)
    assert not cells.mask[1].all()
    assert cells.samples == ["S0", "S1"]


def test_sources_hold_the_chosen_cells_in_the_order_of_the_genes(pair: tuple[sd.SpatialData, sd.SpatialData]) -> None:
    genes, rows = list(pair[1]["table"].var_names[::-3]), chosen(pair[0], 3)
    cells = TrainingCells(genes)
    add(cells, Slide(pair[0]), rows)
    (source,) = cells.sources
    assert isinstance(source, MemoryCells)
    np.testing.assert_array_equal(source.read(0, source.n_cells).toarray(), pair[0]["table"].to_df()[genes][rows])


def test_a_store_gives_the_same_cells(pair: tuple[sd.SpatialData, sd.SpatialData], tmp_path: Path) -> None:
    genes, rows = list(pair[0]["table"].var_names[5:30]), chosen(pair[0], 3)
    sp.io.write(pair[0], tmp_path / "S0.zarr")
    memory, stored = TrainingCells(genes), TrainingCells(genes)
    add(memory, Slide(pair[0]), rows)
    (slide,) = open_slides(tmp_path / "S0.zarr")
    add(stored, slide, rows)
    assert isinstance(stored.sources[0], StoredCells)
    a, b = (cells.sources[0].read(0, int(rows.sum())).toarray() for cells in (memory, stored))
    np.testing.assert_array_equal(a, b)
    for ours, theirs in zip(memory.scaler(), stored.scaler(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_slide_without_chosen_cells_is_left_out(pair: tuple[sd.SpatialData, sd.SpatialData]) -> None:
    cells = TrainingCells(list(pair[0]["table"].var_names))
    add(cells, Slide(pair[0]), np.zeros(pair[0]["table"].n_obs, bool))
    assert (cells.samples, cells.sources, cells.measured) == ([], [], [])
