"""Calibration and galleries: bins and slopes against numpy, patches of the right kind with their own pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl import _gallery
from spatialsig.pl._calibration import bins_of, draw_calibration
from spatialsig.pl._gallery import GROUPS, clearest, strengths
from spatialsig.pl.drawing.values import ScoreTables, collect_pairs


def scores(sdata, signature):
    """Measured and predicted of the patches with both, and their rows."""
    measured, predicted = (
        np.asarray(sdata.tables[key][:, signature].X)[:, 0].astype(float)
        for key in (_keys.SIGNATURES, _keys.SIGNATURES_PRED)
    )
    rows = np.flatnonzero(np.isfinite(measured))
    return measured[rows], predicted[rows], rows


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_calibration_draws_bins_of_equal_size_and_the_slope(slide):
    panel = sp.pl.calibration(slide, "Immune_T", n_bins=4, figure=Figure())[0, 0]
    measured, predicted, _ = scores(slide, "Immune_T")
    order = np.argsort(predicted, kind="stable")
    expected = [(predicted[part].mean(), measured[part].mean()) for part in np.array_split(order, 4)]
    np.testing.assert_allclose(panel.lines[0].get_xydata(), expected)
    slope, _ = np.polyfit(predicted, measured, 1)
    assert texts(panel) == [f"S1: slope {slope:.2f}"]
    low, high = np.percentile(measured[order[: len(order) // 4 + (len(order) % 4 > 0)]], (25, 75))
    np.testing.assert_allclose(panel.collections[0].get_segments()[0][:, 1], [low, high])
    identity = panel.lines[1]
    assert identity.get_slope() == 1


def test_calibration_of_a_cohort_and_of_many_slides(cohort, monkeypatch):
    panel = sp.pl.calibration(cohort, "Immune_T", figure=Figure())[0, 0]
    assert [text.split(":")[0] for text in texts(panel)] == ["S1", "S2"]
    monkeypatch.setattr("spatialsig.pl._calibration.MAX_NAMED", 1)
    (text,) = texts(sp.pl.calibration(cohort, "Immune_T", figure=Figure())[0, 0])
    assert text.startswith("2 slides\nslopes ")


def test_calibration_of_predictions_that_do_not_vary():
    flat = (np.arange(20.0), np.full(20, 0.3))
    panel = draw_calibration({"T": {"S1": flat}}, Figure())[0, 0]
    assert texts(panel) == ["S1: no slope"]


@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_bins_keep_every_patch(n, n_bins, seed):
    rng = np.random.default_rng(seed)
    measured, predicted = rng.normal(size=(2, n))
    x, y, quartiles = bins_of(measured, predicted, n_bins=n_bins)
    assert len(x) == max(1, min(n_bins, n // 5))
    assert (np.diff(x) >= 0).all()
    assert (quartiles[0] <= quartiles[1]).all()
    if n % len(x) == 0:  # bins of one size: their mean is the mean of all
        np.testing.assert_allclose([x.mean(), y.mean()], [predicted.mean(), measured.mean()], atol=1e-12)


def test_calibration_errors(slide):
    with pytest.raises(InputError, match="n_bins"):
        sp.pl.calibration(slide, n_bins=0)
    with pytest.raises(InputError, match=r"no patch has both.*fold=9"):
        sp.pl.calibration(slide, fold=9)


def crops(axes):
    """Rows of (text above a crop, its pixels), by where they are drawn."""
    found = {}
    for image in axes.images:
        x0, x1, _, y = image.get_extent()
        (text,) = [t.get_text() for t in axes.texts if np.allclose(t.get_position(), ((x0 + x1) / 2, y - 0.03))]
        found.setdefault(y, []).append((text, image.get_array()))
    return [found[y] for y in sorted(found)]


def test_gallery_shows_the_pixels_and_scores_of_the_patches(slide):
    axes = sp.pl.gallery(slide, "Immune_T", n=3, figure=Figure())
    rows_drawn = crops(axes)
    assert [len(row) for row in rows_drawn] == [3] * len(GROUPS)
    measured, predicted, rows = scores(slide, "Immune_T")
    best = np.argmax(strengths(measured, predicted)["high"])
    title, shown = rows_drawn[0][0]
    assert title.replace("\N{MINUS SIGN}", "-") == f"m {measured[best]:.2f}, p {predicted[best]:.2f}"
    # patches of 32 px at 1 um on an image of 0.5 um: means of 2 x 2 px
    y, x = slide.shapes[_keys.PATCHES][[_keys.Y0, _keys.X0]].to_numpy()[rows[best]]
    full = slide.images[_keys.IMAGE]["scale0"]["image"].to_numpy()[:, y : y + 64, x : x + 64].astype(float)
    expected = full.reshape(3, 32, 2, 32, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(shown.astype(float) - expected).max() <= 1.5
    (said,) = [t.get_text() for t in axes.texts if t.get_text().startswith("Immune_T")]
    assert said.endswith("32 µm wide")


def test_gallery_of_a_cohort_takes_the_clearest_of_all_slides(cohort):
    titles = [text for row in crops(sp.pl.gallery(cohort, "Immune_T", n=4, figure=Figure())) for text, _ in row]
    assert {text.split(":")[0] for text in titles} == {"S1", "S2"}
    only = crops(sp.pl.gallery(cohort, "Immune_T", n=4, fold=1, figure=Figure()))
    assert all(text.startswith("m ") for row in only for text, _ in row)


def test_groups_hold_what_they_say():
    measured = np.array([0.0, 1, 2, 3, 4, 5, 6, 7])
    predicted = np.array([0.0, 1, 7, 3, 4, 2, 5, 6])  # the third is called highest, the sixth low
    found = {group: int(np.argmax(values)) for group, values in strengths(measured, predicted).items()}
    assert found == {"high": 7, "low": 0, "missed": 5, "false": 2}
    perfect = strengths(measured, measured * 3 - 1)  # a model that is right in rank errs nowhere
    assert (perfect["missed"] <= 0.5).all()
    assert (perfect["false"] <= 0.5).all()


def test_patches_of_a_group_do_not_overlap():
    strength = np.array([0.9, 0.95, 0.8, 0.7, 0.4])
    origins = np.array([[0, 0], [0, 5], [0, 10], [20, 5], [90, 90]])
    assert clearest(strength, origins, n=4, apart_px=10) == [1, 3]
    assert clearest(strength, origins, n=1, apart_px=1) == [1]


def test_gallery_without_mistakes_has_empty_rows(slide):
    crop = _gallery.Crop("high", 0.9, "S1", np.zeros((8, 8, 3), np.uint8), 8.0, 1.0, 0.5)
    axes = _gallery.draw_gallery([crop], "T", Figure(), n=2)
    assert [len(row) for row in crops(axes)] == [1]
    assert set(GROUPS.values()) <= {text.get_text() for text in axes.texts}


def test_gallery_errors(slide):
    with pytest.raises(InputError, match=r"no patch has both a measured and a predicted 'Immune_T' \(`fold=9`\)"):
        sp.pl.gallery(slide, "Immune_T", fold=9)
    with pytest.raises(InputError, match="`n`|n="):
        sp.pl.gallery(slide, "Immune_T", n=0)
    with pytest.raises(KeyMissingError, match=r"signature='X'.*slide 'S1'"):
        sp.pl.gallery(slide, "X")


def test_all_common_signatures_where_none_is_asked_for(slide):
    found = collect_pairs(slide, None, ScoreTables())
    assert list(found) == ["Immune_T", "Fibroblast"]
    measured, predicted, _ = scores(slide, "Fibroblast")
    np.testing.assert_array_equal(found["Fibroblast"]["S1"][0], measured)
    np.testing.assert_array_equal(found["Fibroblast"]["S1"][1], predicted)
