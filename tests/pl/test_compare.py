"""Maps: the right value at the right place, over the right tissue."""

import copy
import re

import numpy as np
import pytest
import spatialdata as sd
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import AlignmentError, InputError, KeyMissingError
from spatialsig.slide.slides import Slide


def panels(data, signature="Immune_T", **options):
    axes = sp.pl.compare(data, signature, figure=Figure(), **options)
    return axes[0], [a.collections[0] if a.collections else None for a in axes[0]]


def column(sdata, key, signature="Immune_T"):
    return np.asarray(sdata.tables[key][:, signature].X)[:, 0]


def centres(collection):
    return np.array([path.vertices[:4].mean(axis=0) for path in collection.get_paths()])


def patch_centres(sdata):
    return np.array([(p.x, p.y) for p in sdata.shapes[_keys.PATCHES].geometry.centroid])


def test_each_square_shows_the_value_of_its_patch(slide):
    _, (_, measured, predicted, _) = panels(slide)
    for collection, key in ((measured, _keys.SIGNATURES), (predicted, _keys.SIGNATURES_PRED)):
        np.testing.assert_array_equal(np.ma.filled(collection.get_array(), np.nan), column(slide, key))
        np.testing.assert_allclose(centres(collection), patch_centres(slide))


def test_rows_of_a_table_may_stand_in_any_order(slide):
    shuffled = sd.SpatialData(images=dict(slide.images), shapes=dict(slide.shapes), attrs=slide.attrs)
    order = np.random.default_rng(1).permutation(slide.tables[_keys.SIGNATURES].n_obs)
    shuffled[_keys.SIGNATURES] = slide.tables[_keys.SIGNATURES][order].copy()
    shuffled[_keys.SIGNATURES_PRED] = slide.tables[_keys.SIGNATURES_PRED][order[:-5]].copy()
    _, (_, measured, predicted, _) = panels(shuffled)
    np.testing.assert_array_equal(np.ma.filled(measured.get_array(), np.nan), column(slide, _keys.SIGNATURES))
    assert sorted(np.flatnonzero(predicted.get_array().mask)) == sorted(order[-5:])


def test_residual_is_measured_minus_predicted(slide):
    axes, (*_, residual) = panels(slide)
    expected = column(slide, _keys.SIGNATURES) - column(slide, _keys.SIGNATURES_PRED)
    np.testing.assert_allclose(np.ma.filled(residual.get_array(), np.nan), expected, rtol=1e-5, atol=1e-6)
    assert axes[3].get_title(loc="left") == "Measured − predicted"  # noqa: RUF001
    assert residual.norm.vmin == -residual.norm.vmax
    assert residual.norm.vmax == pytest.approx(np.nanpercentile(np.abs(expected), 98), rel=1e-5)


def test_both_maps_share_the_scale_of_the_measurement(slide):
    _, (_, measured, predicted, _) = panels(slide)
    limits = np.nanpercentile(column(slide, _keys.SIGNATURES), (2, 98))
    for collection in (measured, predicted):
        np.testing.assert_allclose((collection.norm.vmin, collection.norm.vmax), limits, rtol=1e-5)
        assert collection.get_cmap().name == "viridis"


def test_a_patch_without_a_value_is_transparent(slide):
    _, (_, measured, predicted, residual) = panels(slide, alpha=0.6)
    unknown = np.isnan(column(slide, _keys.SIGNATURES))
    assert 0 < unknown.sum() < len(unknown)
    for collection in (measured, residual):
        collection.update_scalarmappable()
        opacity = collection.get_facecolor()[:, 3]
        assert (opacity[unknown] == 0).all()
        np.testing.assert_allclose(opacity[~unknown], 0.6)
    predicted.update_scalarmappable()
    np.testing.assert_allclose(predicted.get_facecolor()[:, 3], 0.6)


def test_overlapping_patches_are_drawn_as_tiles(drawn):
    sdata = drawn.make_slide(size=(240, 240), stride_um=8)
    _, (_, measured, *_) = panels(sdata)
    corners = np.array([path.vertices[:4] for path in measured.get_paths()])
    np.testing.assert_allclose(np.ptp(corners, axis=1), 16)  # 8 µm at 0.5 µm/px; the patch itself is 64 px
    np.testing.assert_allclose(corners.mean(axis=1), patch_centres(sdata))
    assert len(np.unique(corners[:, 0], axis=0)) == len(corners)


def test_distant_patches_keep_their_own_size(drawn):
    _, (_, measured, *_) = panels(drawn.make_slide(size=(320, 320), stride_um=48))
    corners = np.array([path.vertices[:4] for path in measured.get_paths()])
    np.testing.assert_allclose(np.ptp(corners, axis=1), 64)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_gradient_looks_as_it_lies_on_the_tissue(drawn, axis):
    """Planted: scores rise with x (or y) of the H&E, whose pixels brighten the same way. Read back from the picture."""
    sdata = drawn.make_slide(size=(256, 384))
    ramp = np.linspace(40, 240, 384 if axis == "x" else 256)
    pixels = np.broadcast_to(ramp if axis == "x" else ramp[:, None], (3, 256, 384)).astype(np.uint8)
    transformations = {_keys.GLOBAL: sd.transformations.get_transformation(sdata[_keys.IMAGE])}
    slide = Slide(sdata)
    slide.put(_keys.IMAGE, Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=("r", "g", "b"), scale_factors=[2], transformations=transformations
    ))  # fmt: skip
    del slide.attrs["lineage"]  # of the image before
    values = sdata.shapes[_keys.PATCHES][_keys.X0 if axis == "x" else _keys.Y0].to_numpy(float)[:, None]
    drawn.add_tables(slide, values, values, ("ramp",))

    figure = Figure()
    axes = sp.pl.compare(sdata, "ramp", figure=figure, alpha=1.0)[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    for panel in axes[:2]:  # tissue grows brighter, viridis grows greener
        box = panel.get_window_extent()
        top, height = picture.shape[0] - box.y1, box.height
        rows, columns = (
            (np.array([0.2, 0.8]) * height + top).astype(int),
            (np.array([0.2, 0.8]) * box.width + box.x0).astype(int),
        )
        middle_row, middle_column = int(top + height / 2), int(box.x0 + box.width / 2)
        low, high = (
            (picture[middle_row, columns[0]], picture[middle_row, columns[1]])
            if axis == "x"
            else (picture[rows[0], middle_column], picture[rows[1], middle_column])
        )
        assert high[1] > low[1] + 50


def test_r_is_that_of_the_labelled_patches(slide):
    axes, _ = panels(slide)
    measured, predicted = column(slide, _keys.SIGNATURES), column(slide, _keys.SIGNATURES_PRED)
    known = np.isfinite(measured)
    r = np.corrcoef(measured[known], predicted[known])[0, 1]
    assert axes[2].get_title(loc="left") == f"Predicted: r = {r:.2f} (n = {known.sum()})"


def test_few_labels_give_no_r(drawn):
    sdata = drawn.make_slide(size=(192, 192))  # nine patches
    assert "no r (n = " in panels(sdata)[0][2].get_title(loc="left")


def test_the_prediction_says_what_it_was_made_from(slide, drawn):
    sdata = drawn.make_slide(size=(192, 192))
    sdata.tables[_keys.SIGNATURES_PRED].uns[_keys.NAMESPACE] = {"predict": {"inputs": "H&E"}}
    assert panels(sdata)[0][2].get_title(loc="left").startswith("Predicted from H&E: ")


def test_the_scale_bar_is_as_long_as_it_says(slide):
    axes, _ = panels(slide)
    um = float(re.fullmatch(r"(\d+) µm", axes[0].texts[0].get_text())[1])
    assert axes[0].patches[0].get_width() * 0.5 == pytest.approx(um)  # 0.5 µm/px
    assert 0.08 <= axes[0].patches[0].get_width() / np.ptp(axes[0].get_xlim()) <= 0.25


def test_panels_can_be_left_out(slide):
    axes, collections = panels(slide, show_image=False)
    assert [a.get_title(loc="left").split(":")[0] for a in axes] == ["Measured", "Predicted", "Measured − predicted"]  # noqa: RUF001
    assert not axes[0].images
    assert collections[0].get_alpha() == 1
    axes, _ = panels(slide, signatures_key=None)
    assert [a.get_title(loc="left") for a in axes] == ["H&E", "Predicted"]


def test_a_cohort_has_one_row_per_slide_and_one_scale(cohort):
    axes = sp.pl.compare(cohort, "Fibroblast", figure=Figure())
    assert [row[0].get_ylabel() for row in axes] == ["S1", "S2"]
    assert axes.shape == (2, 4)
    assert axes[0, 1].collections[0].norm.vmax == axes[1, 2].collections[0].norm.vmax


def test_fold_keeps_only_its_slides_and_patches(cohort, drawn):
    axes = sp.pl.compare(cohort, "Fibroblast", fold=1, figure=Figure())
    assert [row[0].get_ylabel() for row in axes] == ["S2"]
    sdata = drawn.make_slide(size=(256, 256))
    fold = np.arange(sdata.tables[_keys.SIGNATURES].n_obs) % 3
    for key in (_keys.SIGNATURES, _keys.SIGNATURES_PRED):
        sdata.tables[key].obs[_keys.FOLD] = fold
    _, (_, _, predicted, _) = panels(sdata, fold=2)
    np.testing.assert_array_equal(~predicted.get_array().mask, fold == 2)


def test_a_store_path_draws_like_its_slide(cohort, tmp_path):
    axes = sp.pl.compare(str(cohort.stores["S1"]), "Immune_T", figure=Figure(), save=tmp_path / "map.png")
    assert axes.shape == (1, 4)
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_own_figure_stays_out_of_pyplot(slide):
    plt.close("all")
    sp.pl.compare(slide, "Immune_T", figure=Figure())
    assert plt.get_fignums() == []
    axes = sp.pl.compare(slide, "Immune_T")
    assert plt.get_fignums() == [axes[0, 0].figure.number]
    plt.close("all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signature": "T_cells"}, r"`signature='T_cells'` is not in table 'signatures' of slide 'S1'.*Immune_T"),
        ({"predictions_key": "pred"}, r"predictions_key='pred'.*slide 'S1'.*signatures_pred.*sp\.tl\.predict"),
        ({"signatures_key": "labels"}, r"signatures_key='labels'.*slide 'S1'.*sp\.tl\.aggregate_patches"),
        ({"image_key": "dapi"}, r"image_key='dapi'.*images of slide 'S1'.*he_image"),
        ({"patches_key": "tiles"}, r"patches_key='tiles'.*shapes of slide 'S1'.*make_patches"),
    ],
)
def test_what_is_missing_is_named(slide, options, message):
    with pytest.raises(KeyMissingError, match=message):
        sp.pl.compare(slide, **({"signature": "Immune_T"} | options))


def test_an_unknown_fold_says_so(slide):
    with pytest.raises(InputError, match=r"no prediction of 'Immune_T' lies in `fold=7` on any of \['S1'\]"):
        sp.pl.compare(slide, "Immune_T", fold=7)


def test_tables_of_other_patches_are_refused(drawn):
    sdata = drawn.make_slide(size=(256, 256))
    sp.pp.make_patches(sdata, patch_px=64, um_per_px=1.0, min_tissue=0)
    with pytest.raises(InputError, match=r"slide 'S1' describes \d+ patches that are not in 'patches'"):
        sp.pl.compare(sdata, "Immune_T")
    sp.pp.make_patches(sdata, patch_px=32, um_per_px=1.0, min_tissue=0, key_added="others")
    with pytest.raises(InputError, match=r"annotates 'patches', not `patches_key='others'`"):
        sp.pl.compare(sdata, "Immune_T", patches_key="others")


def test_an_image_in_another_frame_is_refused(drawn):
    sdata = drawn.make_slide(size=(192, 192))
    sdata["other"] = Image2DModel.parse(
        np.zeros((3, 64, 64), np.uint8), dims=("c", "y", "x"), transformations={_keys.GLOBAL: Identity()}
    )
    with pytest.raises(AlignmentError, match=r"patches lie on image 'he_image', and `image_key='other'`"):
        sp.pl.compare(sdata, "Immune_T", image_key="other")


def test_alpha_out_of_range(slide):
    with pytest.raises(InputError, match="`alpha=2` .* must be less than or equal to 1"):
        sp.pl.compare(slide, "Immune_T", alpha=2)


@pytest.mark.parametrize(
    ("by", "crossed", "said"),
    [
        ("patient", False, "trained on this slide"),
        ("block", False, "trained on parts of it"),
        ("block", True, "trained on other parts of it"),
    ],
)
def test_a_slide_that_trained_the_model_is_marked_and_no_other(cohort, by: str, crossed: bool, said: str) -> None:
    """Where the record of the prediction says so; a table without one is not guessed at."""
    stores = [sp.io.read(path) for path in cohort.stores.values()]
    slides = [sd.SpatialData(dict(s.images), shapes=dict(s.shapes), attrs=copy.deepcopy(s.attrs)) for s in stores]
    for new, old in zip(slides, stores, strict=True):
        for key in (_keys.SIGNATURES, _keys.SIGNATURES_PRED):
            new[key] = old[key].copy()
        if by == "block":
            blocks = {"by": "block", "n_folds": 2, "seed": 0, "block_um": 100.0, "buffer_um": 0.0}
            new.attrs["spatialsig"]["split"] = blocks
    first = slides[0].attrs["spatialsig"]["sample"]

    def marks(record: dict[str, object]) -> list[list[str]]:
        for one in slides:
            one[_keys.SIGNATURES_PRED].uns["spatialsig"] = record | ({"cross_validate": {}} if crossed else {})
        axes = [sp.pl.compare(one, "Immune_T", figure=Figure()) for one in slides]
        return [[text.get_text() for text in each[0, 0].texts if "train" in text.get_text()] for each in axes]

    assert marks({"predict": {"training_samples": [first]}}) == [[said], *[[]] * (len(slides) - 1)]
    assert marks({"predict": {"training_samples": np.array([first])}})[0] == [said]
    assert marks({"predict": {}}) == marks({}) == [[]] * len(slides)
