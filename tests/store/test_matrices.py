"""Large matrices stay in their store and are read in blocks: every function gives the same as from memory."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sps
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import StoreError
from spatialsig.slide.fingerprints import Kept, Numbers
from spatialsig.slide.slides import Slide, open_slides
from spatialsig.store import matrices, snapshot

AUTOENCODER = {"signatures": "seed", "n_latent": 4, "hidden": (8,), "max_epochs": 1}


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "LARGE", 0)
    monkeypatch.setattr(matrices, "BLOCK", 4_000)
    snapshot._kept.clear()


@pytest.fixture
def slide() -> sd.SpatialData:
    return sp.datasets.toy(size_um=250)


@pytest.fixture
def store(slide: sd.SpatialData, tmp_path: Path) -> Path:
    slide.write(tmp_path / "slide.zarr")
    return tmp_path / "slide.zarr"


def stored_counts(store: Path) -> object:
    return next(open_slides(store)).table("table").X


def study(data: object) -> None:
    """Every function that reads counts."""
    sp.pp.filter_cells(data, min_counts=30)
    sp.pp.split(data, by="block", n_folds=2, block_um=80, buffer_um=0)
    sp.pp.make_patches(data, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(data)
    sp.pp.normalize(data)
    sp.pp.highly_variable_genes(data, n_top_genes=80)
    sp.tl.score_cells(data, "seed")
    sp.tl.score_cells(data, "seed", method="ucell", key_added="ucell")
    sp.tl.score_cells(data, "seed", method="score_genes", key_added="genes")
    sp.tl.embed_cells(data, sp.tl.train_autoencoder(data, **AUTOENCODER))
    sp.tl.aggregate_patches(data, min_cells=3, layers=["X", "lognorm"])
    sp.tl.aggregate_patches(data, min_cells=3, stat="pseudobulk", key_added="bulk")


def test_everything_is_as_from_memory(slide: sd.SpatialData, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert matrices.is_stored(stored_counts(store))
    assert len(list(matrices.row_blocks(stored_counts(store)))) > 3
    for data in (slide, store):
        study(data)
    read = sp.io.read(store)
    for key in ("signatures", "bulk"):
        np.testing.assert_array_equal(read[key].X, slide[key].X)
    for key in ("ucell", "genes", "signatures", "X_ae"):
        np.testing.assert_array_equal(read["table"].obsm[key], slide["table"].obsm[key], err_msg=key)
    for key in ("X_mean", "lognorm_sem"):
        assert (read["signatures"].obsm[key] != slide["signatures"].obsm[key]).nnz == 0
    assert (read["table"].X != slide["table"].X).nnz == 0
    assert read["table"].var["highly_variable"].tolist() == slide["table"].var["highly_variable"].tolist()
    for data in (slide, store):
        status = sp.io.status(data)
        assert set(status["state"]) == {"fresh"}
    ceilings = [sp.tl.noise_ceiling(data)["ceiling"] for data in (slide, store)]
    monkeypatch.setattr(
        matrices, "BLOCK", 10**9
    )  # the molecules are dealt alike, however the cells are cut into blocks
    ceilings.append(sp.tl.noise_ceiling(slide)["ceiling"])
    for found in ceilings[1:]:
        np.testing.assert_array_equal(found, ceilings[0])


def test_a_fingerprint_is_that_of_the_matrix_in_memory(slide: sd.SpatialData, store: Path) -> None:
    inside = Numbers.of(slide["table"], "X", Kept())
    outside = Numbers.of(next(open_slides(store)).table("table"), "X", Kept())
    assert outside.fingerprint == inside.fingerprint
    assert outside.spots == inside.spots
    assert outside.is_selection(inside.spots | {"kept": ["another form"]})


def test_counts_that_changed_in_the_store_are_noticed(store: Path) -> None:
    sp.tl.score_cells(store, "seed", test_fold=None)
    chunk = store / "tables" / "table" / "X"
    import zarr

    data = zarr.open_group(chunk, mode="r+")["data"]
    data[5] = data[5] + 1
    found = sp.io.status(store).set_index("part")
    assert found.loc["table/obsm/signatures", "state"] == "stale"


def test_a_matrix_replaced_while_it_is_read_is_an_error(store: Path) -> None:
    blocks = matrices.row_blocks(stored_counts(store))
    next(blocks)
    sp.pp.filter_cells(store, min_counts=40)
    with pytest.raises(StoreError, match="was replaced while it was read; call the function again"):
        list(blocks)


def test_blocks_hold_all_rows_once(slide: sd.SpatialData) -> None:
    counts = slide["table"].X.copy()
    counts.data[:50] = 0
    counts = sps.vstack([counts[:3], sps.csr_matrix((4, counts.shape[1])), counts[3:]], format="csr")
    rows, blocks = zip(*matrices.row_blocks(counts), strict=True)
    assert [r.start for r in rows[1:]] == [r.stop for r in rows[:-1]]
    assert rows[-1].stop == counts.shape[0]
    assert (sps.vstack(blocks) != counts).nnz == 0
    assert max(block.nnz for block in blocks[:-1]) <= 4_000


def test_a_slide_that_is_replaced_keeps_its_counts(store: Path) -> None:
    (slide,) = open_slides(store)
    kept = slide.table("table")[:20].copy()
    Slide(slide.sdata, store).replace("table", kept)
    assert sp.io.read(store)["table"].n_obs == 20
