"""sp.tl.scales: labels, predictions and ceilings of squares against loops and planted truths."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from matplotlib.figure import Figure
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig.evaluation.scales import beats
from spatialsig.evaluation.squares import square_labels, squares_of
from spatialsig.slide.slides import Slide
from spatialsig.stats.agreement import pearson


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Four patients, one with overlapping patches of 56 um; predictions are the labels and an error of each patch."""
    folder, rng = tmp_path_factory.mktemp("scales"), np.random.default_rng(0)
    for k in range(4):
        sp.io.write(sp.datasets.toy(seed=k, size_um=350, sample=f"S{k}", patient=f"P{k}"), folder / f"S{k}.zarr")
    cohort = sp.Cohort(folder)
    sp.pp.split(cohort, n_folds=2)
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0, stride_um=28.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=0)
    sp.tl.aggregate_patches(cohort, min_cells=4, use_rep=None)
    for path in cohort.stores.values():
        (slide,) = [Slide(sp.io.read(path), path)]
        labels, patches = slide.sdata["signatures"], slide.patches()
        values = np.nan_to_num(np.asarray(labels.X))
        error = rng.normal(size=values.shape) * values.std(axis=0)
        table = patches.table(values + error, list(labels.var_names), n_cells=None)
        table.layers["lower"], table.layers["upper"] = (
            np.asarray(table.X + s * 2 * values.std(axis=0), np.float32) for s in (-1, 1)
        )
        table.uns["spatialsig"] = {"predict": {"inputs": "H&E", "training_samples": []}}
        slide.put("signatures_pred", table, made_by="tl.predict", sources=patches.pixel_parts)
    return cohort


def slide_of(cohort: sp.Cohort, name: str = "S0") -> Slide:
    return Slide(cohort[name])


@pytest.mark.parametrize("scale_um", [28.0, 56.0, 112.0])
def test_labels_of_squares_are_means_of_their_cells(cohort: sp.Cohort, scale_um: float) -> None:
    slide = slide_of(cohort)
    squares = squares_of(slide.patches(), scale_um)
    record, scored = slide.params("signatures")["aggregate_patches"], slide.params("signatures")["score_cells"]
    labels, _ = square_labels(squares, scored, record, table_key="table")
    from spatialsig.slide.coordinates import um_to_image

    cells = slide.sdata["table"]
    xy = um_to_image(slide, "he_image", cells.obsm["spatial"])
    least = max(1, 4 * (scale_um / 56) ** 2)
    for row, (y0, x0) in enumerate(squares.origins):
        inside = (xy[:, 0] >= x0) & (xy[:, 0] < x0 + squares.edge) & (xy[:, 1] >= y0) & (xy[:, 1] < y0 + squares.edge)
        wanted = cells.obsm["signatures"][inside].mean(axis=0) if inside.sum() >= least else np.nan
        np.testing.assert_allclose(labels[row], wanted, atol=1e-5)


def test_predictions_of_squares(cohort: sp.Cohort) -> None:
    slide = slide_of(cohort)
    patches = slide.patches()
    values = np.asarray(slide.sdata["signatures_pred"].X, np.float64)
    place = {tuple(origin): row for row, origin in enumerate(patches.origins)}
    same, large, small = (squares_of(patches, scale) for scale in (56.0, 112.0, 28.0))
    rows = [place[tuple(origin)] for origin in same.origins]
    np.testing.assert_allclose(same.means(values), values[rows], rtol=1e-6)
    size = patches.spec.size_l0
    for square, mean in zip(large.origins, large.means(values), strict=True):
        tiles = [place[t] for dy in (0, size) for dx in (0, size) if (t := (square[0] + dy, square[1] + dx)) in place]
        np.testing.assert_allclose(mean, values[tiles].mean(axis=0), rtol=1e-6)
    for square, mean in zip(small.origins, small.means(values), strict=True):
        over = [
            place[t]
            for dy in (0, -size // 2)
            for dx in (0, -size // 2)
            if (t := (square[0] + dy, square[1] + dx)) in place
        ]
        np.testing.assert_allclose(mean, values[over].mean(axis=0), rtol=1e-6)


def test_at_the_scale_of_the_patches_numbers_are_those_of_the_labels(cohort: sp.Cohort) -> None:
    found = sp.tl.scales(cohort, scales_um=[56.0])
    own = found.table[(found.table["method"] == "predicted") & (found.table["sample"] == found.table["sample"].iloc[0])]
    slide = slide_of(cohort, str(own["sample"].iloc[0]))
    patches = slide.patches()
    place = {tuple(origin): row for row, origin in enumerate(patches.origins)}
    rows = [place[tuple(origin)] for origin in squares_of(patches, 56.0).origins]
    labels, predicted = (np.asarray(slide.sdata[key].X)[rows] for key in ("signatures", "signatures_pred"))
    np.testing.assert_allclose(own["pearson"], pearson(labels, predicted), atol=1e-5)
    lower, upper = (slide.sdata["signatures_pred"].layers[name][rows] for name in ("lower", "upper"))
    known = np.isfinite(labels).all(axis=1)
    np.testing.assert_allclose(own["coverage"], ((labels >= lower) & (labels <= upper))[known].mean(axis=0), atol=1e-6)


def test_independent_errors_average_out_and_ceilings_rise(cohort: sp.Cohort) -> None:
    found = sp.tl.scales(cohort, scales_um=[28.0, 56.0, 84.0])
    summary = found.summary.set_index("scale_um")
    assert summary["ceiling"].is_monotonic_increasing
    assert summary.loc[84.0, "predicted"] > summary.loc[56.0, "predicted"]
    assert summary.loc[84.0, "coverage"] >= summary.loc[56.0, "coverage"]
    assert summary["how"].tolist() == [
        "means of the patches over a square",
        "the patches themselves",
        "means of the patches in a square",
    ]
    assert "µm: r" in found.sentence
    axes = sp.pl.scales(found, figure=Figure())
    assert next(line.get_label() for line in axes.lines if not line.get_label().startswith("_")) == "predicted"


def test_which_scale_beats_the_controls() -> None:
    summary = pd.DataFrame(
        {"gain": [0.01, 0.1, 0.1, 0.1], "gain_low": [0.005, -0.1, 0.02, np.nan], "n_patients": [5, 5, 5, 1]}
    )
    assert beats(summary).tolist() == [False, False, True, True]


def test_scales_below_the_step_are_left_out_with_a_warning(cohort: sp.Cohort) -> None:
    """An error only where none is left; both name what cuts patches closer together."""
    with pytest.warns(
        SpatialsigWarning, match=r"14 um are finer than the step .*28 um.*make_patches\(stride_um"
    ) as said:
        found = sp.tl.scales(cohort, scales_um=[14.0, 56.0])
    assert found.summary["scale_um"].tolist() == [56.0]
    assert "label --stride-um" in str(said[0].message)
    with pytest.raises(InputError, match=r"label --stride-um"):
        sp.tl.scales(cohort, scales_um=[7.0, 14.0])


def test_the_command_takes_scales(cohort: sp.Cohort, tmp_path: Path) -> None:
    words = [
        "scales",
        str(next(iter(cohort.stores.values())).parent),
        "--out",
        str(tmp_path),
        "--scales-um",
        "56,84",
        "--quiet",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "summary.csv")["scale_um"].tolist() == [56.0, 84.0]
    failed = CliRunner().invoke(app, [*words[:-2], "fine"])
    assert "`--scales-um fine` is no list of numbers" in str(failed.exception)


def test_what_cannot_be_judged_is_refused(cohort: sp.Cohort) -> None:
    with pytest.raises(InputError, match="a scale of 14 um is finer than the step between patches"):
        sp.tl.scales(cohort, scales_um=[14.0])
    with pytest.raises(KeyMissingError, match="nothing"):
        sp.tl.scales(cohort, predictions_key="nothing")
    with pytest.raises(InputError, match="holds no labelled square|no square of"):
        sp.tl.scales(cohort, scales_um=[5000.0])


def test_one_slide(patched: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match="sp.tl.predict"):
        sp.tl.scales(patched, scales_um=[56.0])
