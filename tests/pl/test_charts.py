"""Scatter, training curves and the ladder: what is drawn is what the tables hold."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl import _scatter
from spatialsig.pl.drawing.methods import METHODS


def pairs(sdata, signature):
    measured, predicted = (
        np.asarray(sdata.tables[key][:, signature].X)[:, 0] for key in (_keys.SIGNATURES, _keys.SIGNATURES_PRED)
    )
    known = np.isfinite(measured)
    return np.column_stack([measured[known], predicted[known]])


def by_row(points):
    return points[np.lexsort(points.T)]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_scatter_shows_every_labelled_patch(slide):
    axes = sp.pl.scatter(slide, figure=Figure())
    assert [a.get_title(loc="left") for a in axes.flat] == ["Immune_T", "Fibroblast"]
    for panel, name in zip(axes.flat, ("Immune_T", "Fibroblast"), strict=True):
        expected = pairs(slide, name)
        np.testing.assert_allclose(by_row(np.asarray(panel.collections[0].get_offsets())), by_row(expected), rtol=1e-6)
        assert legend(panel) == [f"S1: r = {np.corrcoef(expected.T)[0, 1]:.2f}"]
        line = panel.lines[0].get_xydata()
        np.testing.assert_array_equal(line[:, 0], line[:, 1])


def test_scatter_gives_each_slide_its_colour_and_r(cohort):
    panel = sp.pl.scatter(cohort, "Immune_T", figure=Figure())[0, 0]
    assert [label.split(":")[0] for label in legend(panel)] == ["S1", "S2"]
    colours = np.unique(panel.collections[0].get_facecolor()[:, :3], axis=0)
    assert len(colours) == 2
    only = sp.pl.scatter(cohort, "Immune_T", fold=1, figure=Figure())[0, 0]
    assert [label.split(":")[0] for label in legend(only)] == ["S2"]


def test_scatter_shows_density_where_points_would_hide_each_other(slide, monkeypatch):
    monkeypatch.setattr(_scatter, "MAX_POINTS", 10)
    panel = sp.pl.scatter(slide, "Immune_T", figure=Figure())[0, 0]
    (cells,) = [c for c in panel.collections if isinstance(c, PolyCollection)]
    assert cells.get_array().sum() == len(pairs(slide, "Immune_T"))


def test_scatter_sums_up_many_slides(cohort, monkeypatch):
    monkeypatch.setattr(_scatter, "MAX_NAMED", 1)
    (label,) = legend(sp.pl.scatter(cohort, "Immune_T", figure=Figure())[0, 0])
    assert label.startswith("2 slides: mean r = ")


def test_scatter_without_pairs_says_so(slide):
    with pytest.raises(InputError, match=r"no patch has both.*fold=9"):
        sp.pl.scatter(slide, fold=9)
    with pytest.raises(KeyMissingError, match=r"signature='X'.*slide 'S1'"):
        sp.pl.scatter(slide, ["X"])


def test_history_draws_the_columns(drawn, tmp_path):
    table = drawn.make_history(pearson=True)
    axes = sp.pl.history(table, figure=Figure(), save=tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").exists()
    drawn_columns = [axes[0].lines[0], axes[0].lines[1], axes[1].lines[0], axes[2].lines[0]]
    for line, column in zip(drawn_columns, ["train_loss", "val_loss", "val_pearson", "lr"], strict=True):
        np.testing.assert_array_equal(line.get_xydata(), table[["epoch", column]].to_numpy())
    best = table.loc[table["val_loss"].idxmin()]
    assert axes[0].get_title(loc="left") == f"Loss (best {best['val_loss']:.3g}, epoch {best['epoch']:.0f})"
    assert f"epoch {table['val_pearson'].idxmax()}" in axes[1].get_title(loc="left")


def test_history_without_validation(drawn):
    axes = sp.pl.history(
        SimpleNamespace(run={"history": drawn.make_history(validated=False).to_dict("list")}), figure=Figure()
    )
    assert len(axes) == 2
    assert len(axes[0].lines) == 1
    assert axes[0].get_title(loc="left") == "Loss"


def test_history_of_one_epoch_and_of_steep_losses(drawn):
    axes = sp.pl.history(drawn.make_history(1), figure=Figure())
    assert axes[0].lines[0].get_marker() == "o"
    steep = drawn.make_history(5).assign(train_loss=[100.0, 10, 1, 0.1, 0.01])
    assert sp.pl.history(steep, figure=Figure())[0].get_yscale() == "log"


def test_history_errors(drawn):
    with pytest.raises(InputError, match=r"`history=<list>` .* a DataFrame"):
        sp.pl.history([1, 2])
    with pytest.raises(KeyMissingError, match=r"column='lr'.*training history.*train_loss"):
        sp.pl.history(drawn.make_history().drop(columns="lr"))
    with pytest.raises(InputError, match="no epoch yet"):
        sp.pl.history(drawn.make_history().iloc[:0])


def test_ladder_bars_are_means_in_display_order(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2", "S3"))
    axes = sp.pl.ladder(evaluation, figure=Figure())
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(METHODS.values())
    expected = evaluation.groupby("method")["pearson"].mean()[list(METHODS)]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], expected)
    for line, method in zip(axes.lines[: len(METHODS)], METHODS, strict=True):
        slides = evaluation[evaluation["method"] == method].groupby("sample")["pearson"].mean()
        np.testing.assert_allclose(sorted(line.get_xdata()), sorted(slides))
    texts = [text.get_text() for text in axes.texts]
    assert "ceiling 0.95" in texts
    assert f"{expected['he_only']:.2f}" in texts
    assert f"{expected['he_only'] / 0.95:.0%}" in texts
    assert axes.yaxis_inverted()


def test_ladder_keeps_unknown_methods_and_missing_numbers(drawn):
    evaluation = drawn.make_evaluation()
    mine = evaluation[evaluation["method"] == "colour"].assign(method="my model")
    gone = evaluation["method"] == "ae_only"
    evaluation.loc[gone, ["pearson", "share_of_ceiling"]] = np.nan
    axes = sp.pl.ladder(pd.concat([mine, evaluation]), figure=Figure())
    assert [tick.get_text() for tick in axes.get_yticklabels()][-1] == "my model"
    assert [text.get_text() for text in axes.texts].count("–") == 2  # noqa: RUF001


def test_ladder_without_a_known_ceiling(drawn):
    evaluation = drawn.make_evaluation().assign(ceiling=np.nan, share_of_ceiling=np.nan)
    texts = [text.get_text() for text in sp.pl.ladder(evaluation, figure=Figure()).texts]
    assert not any(text.startswith("ceiling") for text in texts)


def test_ladder_errors(drawn):
    evaluation = drawn.make_evaluation()
    with pytest.raises(KeyMissingError, match=r"column='ceiling'.*evaluation table.*sp\.tl\.evaluate"):
        sp.pl.ladder(evaluation.drop(columns="ceiling"))
    with pytest.raises(InputError, match="no slide was held out"):
        sp.pl.ladder(evaluation.iloc[:0])


def test_ladder_draws_the_limits_of_the_summary(drawn):
    evaluation = drawn.make_evaluation()
    rows = [
        {"method": "he_only", "signature": "mean", "pearson": 0.8, "low": 0.71, "high": 0.86, "share_of_ceiling": 0.9},
        {
            "method": "he_only",
            "signature": "Immune_T",
            "pearson": 0.8,
            "low": 0.1,
            "high": 0.2,
            "share_of_ceiling": 0.5,
        },
        {
            "method": "colour",
            "signature": "mean",
            "pearson": 0.4,
            "low": np.nan,
            "high": np.nan,
            "share_of_ceiling": 0.4,
        },
    ]
    axes = sp.pl.ladder(evaluation, summary=pd.DataFrame(rows), figure=Figure())
    (line,) = [segment for lines in axes.collections for segment in lines.get_segments()]
    np.testing.assert_allclose(line, [[0.71, 0], [0.86, 0]])
    assert "95 % interval" in axes.get_xlabel()
    bars = dict(zip(METHODS, axes.patches, strict=True))
    assert (bars["he_only"].get_width(), bars["colour"].get_width()) == (0.8, 0.4)  # the mean the interval is of
    assert "90%" in [text.get_text() for text in axes.texts]
    assert "95 % interval" not in sp.pl.ladder(evaluation, figure=Figure()).get_xlabel()
    with pytest.raises(KeyMissingError, match=r"column='low'.*summary table.*sp\.tl\.summarise"):
        sp.pl.ladder(evaluation, summary=pd.DataFrame(rows).drop(columns="low"))


def test_ladder_leaves_out_all_slides_put_together(drawn):
    evaluation = drawn.make_evaluation()
    pooled = evaluation[evaluation["sample"] == "S1"].assign(sample="(all slides)", patient="(all slides)", pearson=-1)
    axes = sp.pl.ladder(pd.concat([evaluation, pooled]), figure=Figure())
    assert min(bar.get_width() for bar in axes.patches) > -0.2


def test_ladder_marks_the_worst_slide(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2", "S3"))
    evaluation.loc[(evaluation["sample"] == "S2") & (evaluation["method"] == "he_only"), "pearson"] = 0.2
    axes = sp.pl.ladder(evaluation, figure=Figure())
    assert "vermilion: S2, the worst" in axes.get_xlabel()
    (marked,) = [line for line in axes.lines if line.get_color() == "#d55e00"]
    assert marked.get_xdata()[0] == pytest.approx(0.2)
    assert len(marked.get_xdata()) == len(METHODS)
    assert "worst" not in sp.pl.ladder(drawn.make_evaluation(("S1",)), figure=Figure()).get_xlabel()
