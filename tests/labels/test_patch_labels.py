"""Labels of patches: few cells give none, what would fail half way is refused first, and ties are counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

from spatialsig.errors import InputError, KeyMissingError
from spatialsig.labels.patch_labels import LabelRequest, categories_of, check_slide, patch_labels
from spatialsig.labels.targets import Targets
from spatialsig.slide.slides import Slide

REQUEST = LabelRequest(
    stat="mean", trim=0.1, min_cells=5, targets=None, rep=(), obs=(), obsm=(), layers=(), patches_key="patches",
    table_key="table",
)  # fmt: skip


def of_cells(sdata: sd.SpatialData, values: np.ndarray, min_cells: int) -> np.ndarray:
    """Mean of the cells of every patch by a loop; NaN for a patch of too few."""
    inside = sdata["table"].obsm["patch_membership"].toarray() > 0
    return np.array(
        [
            values[rows].mean(axis=0) if rows.sum() >= min_cells else np.full(values.shape[1], np.nan)
            for rows in inside.T
        ]
    )


@pytest.mark.parametrize("min_cells", [1, 12])
def test_scores_are_averaged_where_there_are_enough_cells(patched: sd.SpatialData, min_cells: int) -> None:
    table = patch_labels(Slide(patched), replace(REQUEST, min_cells=min_cells), {})
    scores = patched["table"].obsm["signatures"]
    np.testing.assert_allclose(table.X, of_cells(patched, scores, min_cells), rtol=1e-4, atol=1e-5)
    n_cells = patched["table"].obsm["patch_membership"].toarray().sum(axis=0)
    np.testing.assert_array_equal(table.obs["n_cells"], n_cells)
    assert (np.isnan(table.X).all(axis=1) == (n_cells < min_cells)).all()
    assert np.isnan(table.layers["sem"][n_cells < min_cells]).all()
    assert table.uns["spatialsig"]["aggregate_patches"]["n_labelled"] == (n_cells >= min_cells).sum()


def test_counts_per_cell_are_averaged_beside_the_labels(patched: sd.SpatialData) -> None:
    table = patch_labels(Slide(patched), REQUEST, {})
    library = patched["table"].to_df().sum(axis=1).to_numpy()[:, None]
    np.testing.assert_allclose(table.obs["n_counts"], of_cells(patched, library, 1)[:, 0])


def test_targets_take_the_place_of_scores(patched: sd.SpatialData) -> None:
    request = replace(REQUEST, targets=Targets(obs=("cell_type",)))
    categories = categories_of(patched, request, key_added="signatures")
    table = patch_labels(Slide(patched), request, categories)
    dummies = pd.get_dummies(patched["table"].obs["cell_type"]).astype(float)
    assert categories == {"cell_type": list(dummies.columns)}
    np.testing.assert_allclose(table.to_df(), of_cells(patched, dummies.to_numpy(), 5), rtol=1e-5)
    assert list(table.var_names) == list(dummies.columns)
    assert table.uns["spatialsig"]["aggregate_patches"]["targets"] == {"obs": ["cell_type"]}
    assert table.uns["spatialsig"]["score_cells"] == {}


def test_ties_are_the_share_of_the_most_frequent_label(patched: sd.SpatialData) -> None:
    request = replace(REQUEST, stat="median", targets=Targets(obs=("tied", "own")))
    n = patched["table"].n_obs
    patched["table"].obs["tied"], patched["table"].obs["own"] = 0.0, np.arange(float(n))
    table = patch_labels(Slide(patched), request, {})
    share = table.uns["spatialsig"]["aggregate_patches"]["tie_fraction"]
    n_labelled = table.uns["spatialsig"]["aggregate_patches"]["n_labelled"]
    assert share[0] == 1
    own = pd.Series(table.X[:, 1]).dropna()
    assert share[1] == pytest.approx(own.value_counts().iloc[0] / n_labelled)


def test_no_patch_with_enough_cells_is_an_error_that_says_the_most(patched: sd.SpatialData) -> None:
    most = int(patched["table"].obsm["patch_membership"].sum(axis=0).max())
    with pytest.raises(InputError, match=rf"slide 'toy': no patch has 9999 cells \(the most is {most}\)"):
        patch_labels(Slide(patched), replace(REQUEST, min_cells=9999), {})


def test_cells_without_scores_or_embedding_are_refused_by_the_call_to_make(patched: sd.SpatialData) -> None:
    with pytest.raises(
        KeyMissingError, match=r"`use_rep='X_ae'` is not in .*Call `sp.tl.embed_cells` first.* or .*`use_rep=None`"
    ):
        check_slide(Slide(patched), request=replace(REQUEST, rep=("X_ae",)), key_added="signatures")
    del patched["table"].uns["spatialsig"]["score_cells"]
    with pytest.raises(KeyMissingError, match="no result of `score_cells`. Call `sp.tl.score_cells` first"):
        patch_labels(Slide(patched), REQUEST, {})


def test_the_record_says_what_the_labels_depend_on(patched: sd.SpatialData) -> None:
    def record(**changes: object) -> dict:
        table = patch_labels(Slide(patched), replace(REQUEST, **changes), {})
        return table.uns["spatialsig"]["aggregate_patches"]

    assert "trim" not in record()
    assert record(stat="trimmed_mean", trim=0.2)["trim"] == 0.2
    assert "genes" not in record()
    assert record(layers=("X",))["genes"] == list(patched["table"].var_names)
