"""Cells of several slides are scaled together, each gene over the slides that measure it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig import expression as module
from spatialsig.data.cells import MemoryCells, StoredCells
from spatialsig.errors import InputError, OptionError, StoreError
from spatialsig.expression import (
    FIT_OPTIONS,
    AutoencoderOptions,
    TrainingCells,
    embed_slide,
    train_expression_autoencoder,
)
from spatialsig.models import Autoencoder
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.slide.folds import folds_of
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
    cells.add(slide, "table", rows)


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


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("max_epoch", "max_epochs"), ("n_latents", "n_latent"), ("panels", "panel"), ("hiden", "hidden")],
)
def test_a_typo_is_answered_with_the_nearest_name(typo: str, nearest: str) -> None:
    with pytest.raises(OptionError, match=rf"`train_autoencoder` has no option `{typo}`; did you mean `{nearest}`\?"):
        AutoencoderOptions.of(**{typo: 1})


def test_mistakes_are_refused_before_a_slide_is_opened() -> None:
    with pytest.raises(OptionError, match="did you mean `max_epochs`"):
        sp.tl.train_autoencoder("no/such/store.zarr", max_epoch=3)
    with pytest.raises(InputError, match=r"`panel='all'` is not known; choose one of \['intersection', 'union'\]"):
        sp.tl.train_autoencoder("no/such/store.zarr", panel="all")
    with pytest.raises(StoreError, match="does not exist"):
        sp.tl.train_autoencoder("no/such/store.zarr", max_epochs=3)


def test_options_are_sorted_into_run_and_fit() -> None:
    options = AutoencoderOptions.of(n_latent=4, max_epochs=2, patience=None)
    assert (options.n_latent, options.test_fold, options.panel) == (4, 0, "intersection")
    assert options.fit == {"max_epochs": 2, "patience": None}
    assert not {f.name for f in fields(AutoencoderOptions)} & set(FIT_OPTIONS)
    assert not {"genes", "mean", "std", "measured", "validation"} & set(FIT_OPTIONS)  # what a run decides itself


def learnt_from(toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch, **options: object) -> dict:
    """What would be given to the fit, which is not run."""
    given: dict = {}

    class Stopped(Exception):
        pass

    def fit(sources: list, **arguments: object) -> None:
        given.update(arguments, sources=sources)
        raise Stopped

    monkeypatch.setattr(module, "fit_autoencoder", fit)
    with pytest.raises(Stopped):
        train_expression_autoencoder(toy, AutoencoderOptions.of(**options))
    return given


def test_genes_of_the_signatures_are_left_out_unless_asked_for(
    toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = list(toy["table"].var_names)
    signatures = {"T": panel[3:6], "B": [panel[8], "NONE"]}
    arguments = learnt_from(toy, monkeypatch, signatures=signatures, test_fold=None)
    assert arguments["genes"] == [g for k, g in enumerate(panel) if k not in (3, 4, 5, 8)]
    everything = learnt_from(toy, monkeypatch, signatures=signatures, exclude_signature_genes=False, test_fold=None)
    assert everything["genes"] == panel
    toy["table"].var["highly_variable"] = np.arange(len(panel)) < 7
    variable = learnt_from(toy, monkeypatch, signatures=signatures, test_fold=None)
    assert variable["genes"] == [panel[k] for k in (0, 1, 2, 6)]


def test_cells_of_the_test_fold_are_not_learnt_from(toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    sp.pp.split(toy, by="block", block_um=100, buffer_um=0, n_folds=3)
    folds = folds_of(Slide(toy), toy["table"].obsm["spatial"])
    arguments = learnt_from(toy, monkeypatch, test_fold=0, validation_fold=2)
    counts = toy["table"].to_df()[arguments["genes"]].to_numpy()
    for source, fold in ((arguments["sources"][0], 1), (arguments["validation"][0], 2)):
        np.testing.assert_array_equal(source.read(0, source.n_cells).toarray(), counts[folds == fold])
    x = counts[folds == 1]
    x = np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1))
    np.testing.assert_allclose(arguments["mean"], x.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_too_few_genes_or_cells_are_refused(toy: sd.SpatialData) -> None:
    everything = {"all": list(toy["table"].var_names)}
    with pytest.raises(InputError, match="only 0 genes are left for the autoencoder: .*use fewer signatures"):
        train_expression_autoencoder(toy, AutoencoderOptions.of(signatures=everything))
    Slide(toy).attrs["split"] = {"by": "slide", "fold": 0, "n_folds": 2, "seed": 0}
    with pytest.raises(InputError, match="`test_fold=0`, `validation_fold=None` leave no training cells"):
        train_expression_autoencoder(toy, AutoencoderOptions.of())


def test_embedding_looks_genes_up_by_name(toy: sd.SpatialData) -> None:
    genes = [toy["table"].var_names[k] for k in (30, 2, 11, 7)]
    model = Autoencoder(AutoencoderConfig(hidden=(4,), n_latent=2), genes, mean=np.zeros(4), std=np.ones(4))
    embedding = embed_slide(Slide(toy), model, table_key="table")
    assert embedding.shape == (toy["table"].n_obs, 2)
    shuffled = toy["table"][:, np.random.default_rng(0).permutation(toy["table"].n_vars)].copy()
    toy["table"] = shuffled
    np.testing.assert_allclose(embed_slide(Slide(toy), model, table_key="table"), embedding, rtol=1e-5, atol=1e-6)
    toy["table"] = shuffled[:, shuffled.var_names != genes[1]].copy()
    with pytest.raises(InputError, match="slide 'toy'"):
        embed_slide(Slide(toy), model, table_key="table")
