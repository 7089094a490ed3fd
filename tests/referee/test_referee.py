"""The referee: planted faults are named, honest predictions are left alone, and numbers are those of the evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, KeyMissingError, SpatialsigWarning
from spatialsig.referee import Refereed
from spatialsig.slide.counts import counts_of
from spatialsig.slide.slides import Slide
from spatialsig.stats.agreement import pearson
from spatialsig.stats.expression import library_size, log1p_cp10k
from spatialsig.stats.grouped import grouped_mean

pytestmark = pytest.mark.filterwarnings("ignore::spatialsig.errors.SpatialsigWarning")


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def honest(study: sd.SpatialData) -> pd.DataFrame:
    """The truth behind the counts, a little off: what a good model would say, which knows no noise of the measurement."""
    labels = study["signatures"]
    around = np.random.default_rng(3).normal(size=labels.shape) * 0.6 * np.nanstd(labels.X, axis=0)
    return labels.to_df().add(around).assign(patch_id=labels.obs["patch_id"].to_numpy())


def judged(study: sd.SpatialData, table: object, unit: str = "scores", **options: object) -> Refereed:
    return sp.tl.referee(study, table, unit=unit, **options)


def test_an_honest_model_stands_and_its_numbers_are_those_of_numpy(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    found = judged(study, honest)
    assert found.verdict == "stands"
    assert not (found.findings["severity"] == "error").any()
    labels, fold = study["signatures"], study["signatures"].obs["fold"].to_numpy()
    wanted = pearson(np.asarray(labels.X)[fold == 0], honest[list(labels.var_names)].to_numpy()[fold == 0])
    own = found.evaluation[found.evaluation["method"] == "outside"].set_index("signature")["pearson"]
    np.testing.assert_allclose(own[list(labels.var_names)], wanted, atol=1e-6)
    assert set(found.evaluation["method"]) == {"outside", *sp.tl.baselines(study)["method"]}
    baseline = sp.tl.baselines(study).set_index(["method", "signature"])["pearson"]
    beside = found.evaluation[found.evaluation["method"] != "outside"].set_index(["method", "signature"])["pearson"]
    pd.testing.assert_series_equal(beside.sort_index(), baseline.sort_index())
    np.testing.assert_allclose(study["signatures_outside"].X, honest[list(labels.var_names)], rtol=1e-6)
    assert study["signatures_outside"].uns["spatialsig"]["referee"]["unit"] == "scores"


def leaked(table: pd.DataFrame, study: sd.SpatialData) -> pd.DataFrame:
    return table.assign(**study["signatures"].to_df().reset_index(drop=True).set_axis(table.index))


FAULTS: dict[str, tuple[Callable[[pd.DataFrame, sd.SpatialData], pd.DataFrame], str, str]] = {
    "leaked": (leaked, "leaked", "above_ceiling"),
    "shuffled": (
        lambda t, _: t.assign(patch_id=np.random.default_rng(0).permutation(t["patch_id"])), "rows out of order", "rows_without_order"
    ),
    "ids as text": (
        lambda t, _: t.assign(patch_id=sorted(t["patch_id"], key=str)), "rows out of order", "rows_out_of_order"
    ),
    "last to first": (lambda t, _: t.assign(patch_id=t["patch_id"].to_numpy()[::-1]), "rows out of order", "rows_out_of_order"),
    "another scale": (
        lambda t, _: t.assign(**{name: 5 + 2 * t[name] for name in t if name != "patch_id"}), "wrong unit", "scale_differs"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, study: sd.SpatialData, honest: pd.DataFrame) -> None:
    change, verdict, name = FAULTS[fault]
    with pytest.warns(SpatialsigWarning):
        found = judged(study, change(honest, study))
    assert found.verdict == verdict, found.sentence
    assert name in set(found.findings["name"])
    assert found.sentence.startswith(f"Verdict: {verdict}.")


def test_a_column_of_text_is_named(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    with pytest.warns(SpatialsigWarning, match="columns Immune_T hold text, no numbers, and are not judged"):
        found = judged(study, honest.assign(Immune_T="high"))
    assert "Immune_T" not in set(found.evaluation.dropna(subset="pearson").query("method == 'outside'")["signature"])


def test_what_it_has_seen_may_be_said(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    assert judged(study, honest, trained_on=["P1"]).verdict == "leaked"
    assert judged(study, honest, trained_on=["P2"]).verdict == "stands"


@pytest.fixture(scope="module")
def expression(study: sd.SpatialData) -> pd.DataFrame:
    """Mean log-normalised expression of the cells of each patch."""
    slide = Slide(study)
    counts, membership = counts_of(slide, "table"), slide.patches().membership("table")
    values = grouped_mean(np.asarray(log1p_cp10k(counts, library_size(counts)).todense()), membership)
    return pd.DataFrame(
        values, columns=study["table"].var_names, index=pd.Index(study["patches"].index, name="patch_id")
    )


def test_genes_in_the_unit_of_the_cells_give_the_labels(study: sd.SpatialData, expression: pd.DataFrame) -> None:
    judged(study, expression, "log1p_cp10k")
    labels, made = np.asarray(study["signatures"].X), np.asarray(study["signatures_outside"].X)
    there = np.isfinite(labels)
    np.testing.assert_allclose(made[there], labels[there], atol=1e-4)


def test_genes_in_another_unit_are_named_or_refused(study: sd.SpatialData, expression: pd.DataFrame) -> None:
    with pytest.raises(
        InputError, match=r"`unit='log1p_cp10k'` says log1p of counts per 10,000, but .* of the values are above 9.21"
    ):
        judged(study, np.expm1(expression) * 10, "log1p_cp10k")
    with pytest.raises(InputError, match=r"`unit='counts'` says counts, but .* are below 0"):
        judged(study, expression - 1, "counts")
    with pytest.raises(InputError, match="z-scores of genes"):
        judged(study, (expression - expression.mean()) / expression.std(), "log1p_cp10k")
    found = judged(study, expression, "cp10k")
    assert found.verdict == "wrong unit"
    assert "as log1p of counts per 10,000 by 1.0" in found.sentence


def test_a_part_of_the_genes_scores_what_it_can(study: sd.SpatialData, expression: pd.DataFrame) -> None:
    scored = study["signatures"].uns["spatialsig"]["score_cells"]
    genes = np.asarray(scored["genes"])[np.asarray(scored["weights"])[:, 0] != 0]
    found = judged(study, expression[list(genes)], "log1p_cp10k")
    assert "signatures_missing" in set(found.findings["name"])
    table = found.table.set_index("signature")["pearson"]
    assert table[scored["names"][0]] > 0.99
    assert table.drop(["mean", scored["names"][0]]).isna().any()
    with pytest.raises(InputError, match="Names differ in case"):
        judged(study, expression.rename(columns=str.lower), "log1p_cp10k")


SOURCES: dict[str, Callable[[pd.DataFrame, sd.SpatialData, Path], object]] = {
    "csv": lambda t, _, p: t.to_csv(p / "a.csv", index=False) or p / "a.csv",
    "csv with semicolons": lambda t, _, p: t.to_csv(p / "a.csv", index=False, sep=";") or p / "a.csv",
    "parquet": lambda t, _, p: t.to_parquet(p / "a.parquet") or p / "a.parquet",
    "directory": lambda t, _, p: t.to_csv(p / "toy.csv", index=False) or p,
    "mapping": lambda t, _, p: {"toy": t},
    "named rows": lambda t, _, p: t.assign(patch_id=[f"toy-{i}" for i in t["patch_id"]]).set_index("patch_id"),
    "shuffled with their ids": lambda t, _, p: t.sample(frac=1, random_state=0),
    "column of samples": lambda t, _, p: t.assign(sample="toy"),
    "AnnData in um": lambda t, s, p: ad.AnnData(
        t.drop(columns="patch_id").to_numpy(), var=pd.DataFrame(index=t.columns.drop("patch_id")), obsm={"spatial": s["signatures"].obsm["spatial"]}
    ),
    "places in px": lambda t, s, p: t.drop(columns="patch_id").assign(
        x0=s["patches"]["x0"].to_numpy(), y0=s["patches"]["y0"].to_numpy()
    ),
    "middles in px": lambda t, s, p: t.drop(columns="patch_id").assign(
        x_pixel=s["patches"].geometry.centroid.x.to_numpy(), y_pixel=s["patches"].geometry.centroid.y.to_numpy()
    ),
    "GeoJSON": lambda t, s, p: _geojson(t, s, p / "a.geojson"),
}  # fmt: skip


def _geojson(table: pd.DataFrame, study: sd.SpatialData, path: Path) -> Path:
    features = [
        {"geometry": square.__geo_interface__, "properties": {"measurements": row}}
        for square, row in zip(
            study["patches"].geometry, table.drop(columns="patch_id").to_dict("records"), strict=True
        )
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize("source", SOURCES)
def test_every_form_says_the_same(source: str, study: sd.SpatialData, honest: pd.DataFrame, tmp_path: Path) -> None:
    samples = ["toy"]
    given = SOURCES[source](honest.reset_index(drop=True), study, tmp_path)
    from spatialsig.referee.laid import Terms, lay_slide
    from spatialsig.referee.reading import read_predictions

    terms = Terms("scores", None, None, None, "m", "signatures_outside", "patches", "signatures", "table")
    found = lay_slide(Slide(study), outside=read_predictions(given, samples), terms=terms)
    assert found is not None
    np.testing.assert_allclose(found.scores, honest.drop(columns="patch_id"), rtol=1e-5)


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], object], type[Exception], str]] = {
    "other patches": (lambda t: t.assign(patch_id=t["patch_id"] + 1000), InputError, "name patches that slide 'toy' does not have"),
    "patches twice": (lambda t: pd.concat([t, t]), InputError, "has several rows"),
    "beside the slide": (
        lambda t: t.drop(columns="patch_id").assign(x_um=9e4, y_um=9e4), InputError, "0% of the places .* lie on the H&E of slide 'toy'"
    ),
    "no place": (lambda t: t.drop(columns="patch_id").reset_index(drop=True), InputError, "nothing says where a row belongs"),
    "no signature": (lambda t: t[["patch_id"]].assign(other=1.0), InputError, "no column is one of the signatures"),
    "other slide": (lambda t: t.assign(sample="S9"), InputError, "column 'sample' names S9; the data hold toy"),
    "mapping of another slide": (lambda t: {"S9": t}, InputError, "`predictions` names slides that are not in the data: S9"),
    "no file": (lambda t: "nowhere.csv", FileMissingError, "nowhere.csv does not exist"),
    "infinite": (lambda t: t.assign(Immune_T=np.inf), InputError, "predictions are infinite"),
    "no rows": (lambda t: t.iloc[:0], InputError, "there are no rows"),
    "none held out": (lambda t: t.assign(**{n: np.nan for n in t if n != "patch_id"}), InputError, "there is nothing to judge"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_judged_is_refused(case: str, study: sd.SpatialData, honest: pd.DataFrame) -> None:
    change, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        judged(study, change(honest))


def test_px_said_to_be_um_are_told(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    far = honest.drop(columns="patch_id").assign(
        x=study["patches"]["x0"].to_numpy() * 40.0, y=study["patches"]["y0"].to_numpy() * 40.0
    )
    with pytest.raises(InputError, match="Are they those of another slide"):
        judged(study, far, coordinates="px")


def test_another_grid_counts_by_shared_area(study: sd.SpatialData) -> None:
    """Two halves of every patch, of which one says 1 and the other 3: each patch is 2."""
    slide = Slide(study)
    patches = slide.patches()
    size, names = patches.spec.size_l0, list(study["signatures"].var_names)
    middles = np.concatenate(
        [patches.centres_px + size / 4 * np.array(corner) for corner in ((-1, -1), (1, -1), (-1, 1), (1, 1))]
    )
    values = np.repeat([1.0, 3.0, 1.0, 3.0], len(patches))
    table = pd.DataFrame(dict.fromkeys(names, values)).assign(x_px=middles[:, 0], y_px=middles[:, 1], size_px=size / 2)
    from spatialsig.referee.columns import of_frame
    from spatialsig.referee.places import lay

    laid = lay(
        of_frame(table, where="t", sample="toy"), patches, table_key="table", by=None, coordinates=None, size_um=None
    )
    np.testing.assert_allclose(laid.of_patches(table[names].to_numpy()), 2.0)
    assert "by the area they share" in laid.how


@pytest.mark.parametrize("by", ["ids", "places"])
def test_cells_are_averaged_over_patches(by: str, study: sd.SpatialData) -> None:
    cells = study["table"]
    table = pd.DataFrame(cells.obsm["signatures"], columns=study["signatures"].var_names)
    if by == "ids":
        table["cell_id"] = cells.obs["cell_id"].to_numpy()
    else:
        table["x_um"], table["y_um"] = cells.obsm["spatial"].T
    judged(study, table, by="cell" if by == "places" else None)
    labels, made = np.asarray(study["signatures"].X), np.asarray(study["signatures_outside"].X)
    there = np.isfinite(labels)
    np.testing.assert_allclose(made[there], labels[there], atol=1e-5)


def test_recalibration_learns_from_training_patches_alone(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    names = [name for name in honest if name != "patch_id"]
    scaled = honest.assign(**{name: 5 + 2 * honest[name] for name in names})
    plain, fitted = judged(study, scaled), judged(study, scaled, recalibrate=True)
    assert plain.verdict == "wrong unit"
    assert fitted.verdict == "stands"
    own = [f.evaluation[f.evaluation["method"] == "outside"].set_index("signature") for f in (plain, fitted)]
    np.testing.assert_allclose(own[0]["pearson"], own[1]["pearson"], atol=1e-9)
    fold = study["signatures"].obs["fold"].to_numpy()
    truth, guess = study["signatures"].to_df()["Immune_T"].to_numpy(), scaled["Immune_T"].to_numpy()
    there = np.isfinite(truth)
    line = np.polyfit(guess[there & (fold == 1)], truth[there & (fold == 1)], 1)
    error = np.nanmean(np.abs(np.polyval(line, guess) - truth)[fold == 0])
    assert own[1].loc["Immune_T", "mae"] == pytest.approx(error, rel=1e-5)
    with pytest.raises(
        InputError, match="`recalibrate=True` needs predictions on at least 10 patches of training patients"
    ):
        judged(study, scaled[fold == 0], recalibrate=True)


def test_the_same_patches_for_all(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    found = judged(study, honest.iloc[::2])
    assert "patches_missing" in set(found.findings["name"])
    n = (
        found.evaluation[found.evaluation["method"].isin(["outside", "hand_features"])]
        .groupby("method")["n_patches"]
        .max()
    )
    assert n.nunique() == 1


def test_one_page_says_the_verdict(study: sd.SpatialData, honest: pd.DataFrame, tmp_path: Path) -> None:
    found = judged(study, honest, report=tmp_path / "referee.html", name="Model X")
    page = (tmp_path / "referee.html").read_text()
    assert "Model X, judged on held-out patients" in page
    assert found.sentence in page.replace("&#39;", "'").replace("&amp;", "&")
    assert f"Model X, judged on held-out patients: {found.verdict}</h1>" in page  # the verdict is the headline
    assert "outside model" not in page.split("<h1>")[1].lower()  # its name throughout


def test_predictions_are_no_labels_and_replace_nothing(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="holds scores that a model predicted"):
        sp.tl.baselines(study, signatures_key="signatures_outside")
    with pytest.raises(InputError, match="it would be lost"):
        judged(study, honest, key_added="signatures")
    with pytest.raises(KeyMissingError):
        judged(sp.datasets.toy(size_um=150), honest)


def test_rows_at_one_place_are_refused_as_rows_of_one_id_are(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    corners = study["patches"].loc[honest["patch_id"], ["x0", "y0"]].to_numpy()
    placed = honest.drop(columns="patch_id").assign(x0=corners[:, 0], y0=corners[:, 1])
    judged(study, placed)
    again = placed.assign(x0=placed["x0"] + 1.0)
    with pytest.raises(InputError, match=r"several rows of slide 'toy' lie at one place \(81 pairs"):
        judged(study, pd.concat([placed, again]))


def test_what_cannot_be_judged_is_counted_and_named(study: sd.SpatialData, honest: pd.DataFrame) -> None:
    with pytest.warns(SpatialsigWarning, match=r"columns Immune_T hold no number, and are not judged"):
        found = judged(study, honest.assign(Immune_T=np.nan))
    own = found.evaluation.query("method == 'outside'").set_index("signature")["pearson"]
    assert own.index[own.isna()].tolist() == ["Immune_T"]
    with pytest.raises(InputError, match=r"1 of \d+ predictions are infinite or beyond 1e\+100 \(column 'Immune_B'\)"):
        judged(study, honest.assign(Immune_B=[1e300, *honest["Immune_B"][1:]]))
    bad = honest.assign(patch_id=["bad", *honest["patch_id"].astype(str)[1:]])
    with pytest.raises(InputError, match=r"1 of 81 rows name patches that slide 'toy' does not have \(bad\)"):
        judged(study, bad)
    lost = honest.drop(columns="patch_id").assign(x_um=0.0, y_um=np.nan)
    with pytest.raises(InputError, match=r"81 of 81 rows have a place that is missing or infinite"):
        judged(study, lost)
    with pytest.raises(InputError, match=r"columns Immune_B hold complex numbers"):
        judged(study, honest.assign(Immune_B=honest["Immune_B"] + 0j))
