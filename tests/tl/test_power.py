"""sp.tl.power: nested subsets, judged as the baselines are; sentences; resuming."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig.evaluation import subsets
from spatialsig.evaluation.learning_curves import LearningCurves, summary_of

FEW = "the learning curves are judged on 1 held-out patient"
pytestmark = pytest.mark.filterwarnings(f"ignore:{FEW}")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    folder = tmp_path_factory.mktemp("power")
    for k in range(5):
        sp.io.write(sp.datasets.toy(seed=k, size_um=250, sample=f"S{k}", patient=f"P{k}"), folder / f"S{k}.zarr")
    cohort = sp.Cohort(folder)
    sp.pp.split(cohort, n_folds=5)
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=0)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return cohort


@pytest.fixture(scope="module")
def curve(cohort: sp.Cohort) -> LearningCurves:
    with pytest.warns(SpatialsigWarning, match=rf"{FEW} \(.*hold out 3 or more"):
        return sp.tl.power(cohort, repeats=3)


def test_all_patients_give_what_the_baseline_gives(cohort: sp.Cohort, curve: LearningCurves) -> None:
    table = sp.tl.baselines(cohort)
    wanted = table[table["method"] == "hand_features"].set_index("signature")
    points = curve.points[curve.points["n_patients"] == 4].set_index("signature")
    assert points["repeat"].eq(0).all()  # the whole pool is one subset
    for column in ("pearson", "share_of_ceiling"):
        np.testing.assert_allclose(points.loc[wanted.index, column], wanted[column], atol=1e-6)
    assert points.loc["mean", "pearson"] == pytest.approx(wanted["pearson"].mean())
    assert curve.points.groupby("n_patients")["repeat"].nunique().to_dict() == {1: 3, 2: 3, 3: 3, 4: 1}


def test_subsets_are_nested_and_never_hold_a_held_out_patient(
    cohort: sp.Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    plain = subsets.ridge_on

    def spied(block: str, slides: list[object]) -> object:
        learn = plain(block, slides)  # type: ignore[arg-type]

        def noted(samples: list[str]) -> object:
            seen.append(tuple(samples))
            return learn(samples)

        return noted

    monkeypatch.setattr("spatialsig.tl._power.ridge_on", spied)
    sp.tl.power(cohort, repeats=2)
    held_out = {name for name in cohort if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0}
    assert not held_out & {name for samples in seen for name in samples}
    first = [samples for samples in seen if len(samples) < 4][:3]
    assert [len(samples) for samples in first] == [1, 2, 3]
    assert first[0] == first[1][:1]
    assert first[1] == first[2][:2]


def test_it_resumes(cohort: sp.Cohort, curve: LearningCurves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sp.tl.power(cohort, repeats=3, run_dir=tmp_path)
    pd.testing.assert_frame_equal(made.points, curve.points)
    monkeypatch.setattr("spatialsig.tl._power.judged", lambda *_: pytest.fail("a subset was learned from again"))
    pd.testing.assert_frame_equal(sp.tl.power(cohort, repeats=3, run_dir=tmp_path).points, curve.points)


def test_a_network_is_trained_on_the_subsets(cohort: sp.Cohort) -> None:
    size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    found = sp.tl.power(cohort, learner="vit", patients=[1, 2, 4], repeats=1, size=size, max_epochs=1)
    assert found.points["n_patients"].unique().tolist() == [1, 2, 4]
    assert np.isfinite(found.points["pearson"]).any()


def points_of(a: float, b: float, c: float, n: tuple[int, ...] = (1, 2, 4, 8, 16, 32)) -> pd.DataFrame:
    rows = [(k, repeat, "Immune_T", a - b * k**-c, a - b * k**-c) for k in n for repeat in range(2)]
    return pd.DataFrame(rows, columns=["n_patients", "repeat", "signature", "pearson", "share_of_ceiling"])


SENTENCES = {
    (0.95, 0.6, 1.0): r"r/ceiling 0.8 for Immune_T needs [3-6] \([3-6] to [3-6]\) patients of this kind\.",
    (
        0.5,
        0.3,
        1.0,
    ): r"Immune_T will not get to r/ceiling 0.8 with more patients of this kind: its curve levels off at 0\.5",
}


@pytest.mark.parametrize("planted", SENTENCES)
def test_the_sentence_says_what_was_planted(planted: tuple[float, float, float]) -> None:
    found = summary_of(points_of(*planted), n_pool=32, target=0.8, level=0.95)
    import re

    assert re.match(SENTENCES[planted], found.sentence("Immune_T")), found.sentence("Immune_T")
    assert found.sentences == [found.sentence("Immune_T")]
    with pytest.raises(KeyMissingError, match="Immune_B"):
        found.sentence("Immune_B")


def test_prediction_and_plot(curve: LearningCurves) -> None:
    told = curve.predict(10)
    assert (told["low"] <= told["pearson"]).all()
    assert (told["pearson"] <= told["high"]).all()
    axes = sp.pl.power(curve, figure=Figure())
    shown = [panel for panel in axes.flat if panel.get_visible()]
    assert len(shown) == len(curve.curves)
    assert shown[0].get_title(loc="left").startswith(next(iter(curve.curves)))
    assert len({panel.get_ylim() for panel in shown}) == 1
    (legend,) = shown[0].figure.legends
    assert len(legend.get_texts()) == 5


def test_what_makes_no_curve_is_refused(cohort: sp.Cohort) -> None:
    with pytest.raises(InputError, match="`patients=\\[1, 9\\]` must name at least 3 different numbers from 1 to 4"):
        sp.tl.power(cohort, patients=[1, 9])
    with pytest.raises(InputError, match="at least 3 training patients; there are 2"):
        sp.tl.power(cohort.subset([n for n in cohort if cohort[n].attrs["spatialsig"]["split"]["fold"] in (0, 1, 2)]))
    with pytest.raises(InputError, match="are options of `train_vit`"):
        sp.tl.power(cohort, max_epochs=1)
    with pytest.raises(InputError, match="belong together"):
        sp.tl.power(cohort, learner="embedding")
    with pytest.raises(InputError, match="cannot be given"):
        sp.tl.power(cohort, learner="vit", use_rep="X_ae")


def test_the_order_of_the_slides_decides_nothing(cohort: sp.Cohort, curve: LearningCurves) -> None:
    names = list(cohort)[::-1]
    turned = sp.tl.power(sp.Cohort({name: cohort.stores[name] for name in names}), repeats=3)
    pd.testing.assert_frame_equal(turned.table, curve.table, rtol=1e-9)


@pytest.mark.parametrize("n", [0, -1, 1.5, "a", None, [1, 2], True])
def test_numbers_of_patients_are_numbers(curve: LearningCurves, n: object) -> None:
    with pytest.raises(InputError, match="`n_patients"):
        curve.predict(n)
