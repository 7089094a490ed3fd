"""What the embedding alone knows of the labels."""

from collections.abc import Callable

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning


@pytest.fixture
def labelled(toy: sd.SpatialData, label_slide: Callable[..., sd.SpatialData]) -> sd.SpatialData:
    return label_slide(toy, block_um=100, buffer_um=10, min_cells=3, patch_px=28, um_per_px=1.0, stride_um=14.0)


def test_an_embedding_that_is_the_answer_reaches_the_ceiling_and_noise_nothing(labelled: sd.SpatialData) -> None:
    table, rng = labelled["signatures"], np.random.default_rng(0)
    turned = np.nan_to_num(table.X) @ rng.normal(size=(table.n_vars, table.n_vars + 3))
    table.obsm["X_answer"] = turned.astype(np.float32)
    table.obsm["X_noise"] = rng.normal(size=(table.n_obs, 4)).astype(np.float32)
    found = sp.tl.embedding_leak(labelled, use_rep="X_answer", n_repeats=1)
    assert list(found["signature"]) == list(table.var_names)
    assert (found["pearson"] > 0.98).all()
    ceiling = sp.tl.noise_ceiling(labelled, n_repeats=1)["ceiling"]
    np.testing.assert_allclose(found["share_of_ceiling"], found["pearson"] / ceiling, rtol=1e-6)
    assert (found["n_shared"] == -1).all()  # nobody knows what these were made from
    assert (sp.tl.embedding_leak(labelled, use_rep="X_noise", n_repeats=1)["pearson"].abs() < 0.6).all()


def test_shared_genes_are_counted_and_the_leak_is_said_in_numbers(labelled: sd.SpatialData) -> None:
    table = labelled["signatures"]
    table.obsm["X_ae"] = np.nan_to_num(table.X)
    sets = sp.io.read_signatures("seed")
    inside = [*sets["Immune_T"][:2], "EPCAM"]
    table.uns["spatialsig"]["embed_cells"] = {"key": "X_ae", "genes": inside}
    with pytest.warns(
        SpatialsigWarning, match=r"made from genes of 1 of 6 signatures \(2 of \d+ of their genes\). Alone"
    ):
        found = sp.tl.embedding_leak(labelled, n_repeats=1).set_index("signature")
    assert found.loc["Immune_T", "shared"] == ", ".join(inside[:2])
    assert found["n_shared"].tolist() == [2, 0, 0, 0, 0, 0]
    measured = table.uns["spatialsig"]["score_cells"]["n_genes_measured"]
    np.testing.assert_array_equal(found["n_genes"], measured)
    table.uns["spatialsig"]["embed_cells"]["genes"] = ["EPCAM"]
    assert (sp.tl.embedding_leak(labelled, n_repeats=1)["n_shared"] == 0).all()  # and no warning


def test_errors(labelled: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`use_rep='X_ae'` is not in .* Call `sp.tl.embed_cells`"):
        sp.tl.embedding_leak(labelled)
    labelled["signatures"].obsm["X_ae"] = np.ones((labelled["signatures"].n_obs, 2), np.float32)
    with pytest.raises(InputError, match="`test_fold=9`: slide .* was split into folds 0 to 1; choose one of them"):
        sp.tl.embedding_leak(labelled, test_fold=9)
