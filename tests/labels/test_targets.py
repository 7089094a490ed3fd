"""Any column of the cells can be a target; what names none is refused before anything is computed."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse

from spatialsig.errors import InputError, KeyMissingError
from spatialsig.labels import targets as module
from spatialsig.labels.targets import Targets
from spatialsig.slide.slides import Slide

COUNTS = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def cells() -> ad.AnnData:
    obs = pd.DataFrame(
        {"type": pd.Categorical(["T", "B", None, "T"]), "area": [1.0, np.nan, 3.0, 4.0], "seen": [True, False, True, True]},
        index=list("abcd"),
    )  # fmt: skip
    table = ad.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=["G1", "G2", "G3"]))
    table.obsm["pair"] = np.arange(8.0).reshape(4, 2)
    table.obsm["frame"] = pd.DataFrame({"x": [0, 1, 2, 3], "y": 5}, index=obs.index)
    table.layers["twice"] = sparse.csr_matrix(2 * COUNTS)
    return table


def blocks(targets: Targets, cells: ad.AnnData) -> dict[str, np.ndarray]:
    columns = {}
    for names, values in targets.blocks(cells, targets.categories(cells)):
        assert values.shape == (cells.n_obs, len(names))
        columns |= dict(zip(names, values.T, strict=True))
    return columns


def test_one_name_or_many() -> None:
    assert Targets.of({"obs": "type"}) == Targets(obs=("type",))
    assert Targets.of({"layers": "X", "genes": ["G1", "G2"]}) == Targets(layers=("X",), genes=("G1", "G2"))
    assert Targets.of({"obs": ["type", "area"], "obsm": ()}).record() == {"obs": ["type", "area"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"var": "x"}, r"`targets='var'` is not known; choose one of \['obs', 'obsm', 'layers', 'genes'\]"),
        ({}, r"`targets=\{\}` names no column; wanted for example \{'obs': 'cell_type'\}"),
        ({"genes": "G1"}, r"`targets=\{'genes': 'G1'\}` names no column"),
        ({"obs": "type", "genes": "G1"}, r"`targets\['genes'\]` chooses columns of a layer; add `'layers': 'X'`"),
    ],
)
def test_nothing_to_predict_is_refused(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Targets.of(columns)


def test_categories_become_shares_and_unknown_ones_stay_unknown(cells: ad.AnnData) -> None:
    columns = blocks(Targets(obs=("type",)), cells)
    dummies = pd.get_dummies(cells.obs["type"]).astype(float)
    dummies[cells.obs["type"].isna().to_numpy()] = np.nan
    assert list(columns) == ["B", "T"]
    for name in dummies:
        np.testing.assert_array_equal(columns[name], dummies[name])


def test_categories_of_other_slides_have_columns_too(cells: ad.AnnData) -> None:
    ((names, values),) = Targets(obs=("type",)).blocks(cells, {"type": ["Tumour", "T", "B"]})
    assert names == ["Tumour", "T", "B"]
    np.testing.assert_array_equal(values[:2], [[0, 1, 0], [0, 0, 1]])


def test_names_carry_their_source_only_beside_another(cells: ad.AnnData) -> None:
    assert list(blocks(Targets(layers=("X",)), cells)) == ["G1", "G2", "G3"]
    several = Targets(obs=("area", "type"), obsm=("pair", "frame"), layers=("X", "twice"), genes=("G3",))
    names = ["area", "type_B", "type_T", "pair_0", "pair_1", "frame_x", "frame_y", "X_G3", "twice_G3"]
    assert list(blocks(several, cells)) == names


def test_values_are_those_of_the_cells(cells: ad.AnnData) -> None:
    several = Targets(obs=("area", "seen"), obsm=("pair", "frame"), layers=("X", "twice"), genes=("G3", "G1"))
    columns = blocks(several, cells)
    np.testing.assert_array_equal(columns["area"], [1, np.nan, 3, 4])
    np.testing.assert_array_equal(columns["seen"], [1, 0, 1, 1])
    np.testing.assert_array_equal(columns["pair_1"], [1, 3, 5, 7])
    np.testing.assert_array_equal(columns["frame_x"], [0, 1, 2, 3])
    np.testing.assert_array_equal(columns["X_G3"], COUNTS[:, 2])
    np.testing.assert_array_equal(columns["twice_G1"], 2 * COUNTS[:, 0])


@pytest.mark.parametrize("block_bytes", [1, 4 * 4 * 2, 2**20])
def test_layers_come_in_pieces_that_join_up(
    cells: ad.AnnData, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    parts = list(Targets(layers=("X",)).blocks(cells, {}))
    assert len(parts) == {1: 3, 32: 2}.get(block_bytes, 1)
    assert [name for names, _ in parts for name in names] == ["G1", "G2", "G3"]
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts], axis=1), COUNTS)


def test_what_a_slide_lacks_is_named(toy: sd.SpatialData) -> None:
    slide, cells = Slide(toy), toy["table"]
    first = cells.var_names[0]
    Targets(obs=("cell_type",), layers=("X",), genes=(first,)).check(slide, cells)
    with pytest.raises(InputError, match=r"slide 'toy' does not measure 1 of 2 genes: \['NONE'\]"):
        Targets(layers=("X",), genes=(first, "NONE")).check(slide, cells)
    with pytest.raises(KeyMissingError, match="`obs='none'` is not in the obs of slide 'toy'"):
        Targets(obs=("none",)).check(slide, cells)
