"""The ceiling of a slide comes from halves of its molecules, on labelled patches alone."""

import numpy as np
import pytest
import spatialdata as sd

from spatialsig.errors import KeyMissingError
from spatialsig.evaluation.ceiling import slide_ceiling
from spatialsig.slide.slides import Slide

KEYS = {"table_key": "table", "signatures_key": "signatures"}


def ceiling(sdata: sd.SpatialData, **options: int) -> np.ndarray:
    return slide_ceiling(Slide(sdata), **{"n_repeats": 1, "seed": 0} | options, **KEYS)["ceiling"].to_numpy()


def test_a_row_for_every_signature(patched: sd.SpatialData) -> None:
    table = slide_ceiling(Slide(patched), n_repeats=1, seed=0, **KEYS)
    assert list(table.columns) == ["sample", "signature", "ceiling"]
    assert table["signature"].tolist() == list(patched["signatures"].var_names)
    assert set(table["sample"]) == {"toy"}
    assert table["ceiling"].between(0.5, 1).all()


def test_repeats_average_the_correlation_of_the_halves(patched: sd.SpatialData) -> None:
    """With c the ceiling, c² = 2 r / (1 + r), so that r = c² / (2 - c²)."""
    squares = np.stack([ceiling(patched, seed=seed) for seed in (4, 5)]) ** 2
    r = (squares / (2 - squares)).mean(axis=0)
    np.testing.assert_allclose(ceiling(patched, seed=4, n_repeats=2), np.sqrt(2 * r / (1 + r)), rtol=1e-9)
    np.testing.assert_array_equal(ceiling(patched, seed=4), ceiling(patched, seed=4))
    assert not np.array_equal(ceiling(patched, seed=4), ceiling(patched, seed=5))


def test_fewer_molecules_lower_it(patched: sd.SpatialData) -> None:
    before = ceiling(patched)
    counts = patched["table"].X
    counts.data[:] = np.random.default_rng(0).binomial(counts.data.astype(int), 0.1)
    counts.eliminate_zeros()
    del patched.attrs["spatialsig"]["lineage"]  # the labels would be called stale, which they are
    assert (ceiling(patched) < before).all()


def test_only_labelled_patches_count(patched: sd.SpatialData) -> None:
    before = ceiling(patched)
    labels = patched["signatures"]
    labels.X[np.argsort(-labels.obs["n_cells"].to_numpy())[: labels.n_obs // 2]] = np.nan  # the best measured ones
    assert (ceiling(patched) != before).all()


def test_labels_that_are_no_scores_have_none(patched: sd.SpatialData) -> None:
    patched["signatures"].uns["spatialsig"]["score_cells"] = {}
    assert np.isnan(ceiling(patched)).all()


def test_labels_of_unknown_origin_are_refused(patched: sd.SpatialData) -> None:
    del patched["signatures"].uns["spatialsig"]["aggregate_patches"]
    with pytest.raises(KeyMissingError, match="no result of `aggregate_patches`. Call `sp.tl.aggregate_patches` again"):
        ceiling(patched)
    del patched.tables["signatures"]
    with pytest.raises(KeyMissingError, match=r"`signatures_key='signatures'` .*Call `sp.tl.aggregate_patches` first"):
        ceiling(patched)
