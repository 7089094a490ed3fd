import itertools

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import stats

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.evaluation.schema import slide_rows


def evaluation(n_patients: int = 4, n_slides: int = 2) -> pd.DataFrame:
    """Methods whose correlations are known; slide 0 of every patient lies .1 below slide 1."""
    rng = np.random.default_rng(0)
    rows = []
    for patient, slide, signature in itertools.product(range(n_patients), range(n_slides), ("A", "B")):
        base = 0.4 + 0.1 * slide + 0.05 * patient + (signature == "B") * 0.2
        for method, r in {"he_only": base, "density": base - 0.3 + rng.normal(0, 0.01), "fused": base + 0.1}.items():
            rows.append(
                {
                    "method": method, "signature": signature, "sample": f"S{patient}{slide}", "patient": f"P{patient}",
                    "pearson": r, "share_of_ceiling": r / 0.9, "p": 0.03 if signature == "A" else 0.5,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_mean_is_over_patients_and_the_interval_student_s_on_fisher_s_z() -> None:
    table = evaluation()
    found = sp.tl.summarise(table).set_index(["method", "signature"]).loc[("he_only", "mean")]
    patients = table[table["method"] == "he_only"].groupby("patient")["pearson"].mean()
    on_z = stats.t.interval(0.95, 3, loc=np.arctanh(patients.mean()), scale=stats.sem(np.arctanh(patients)))
    assert (found["pearson"], found["low"], found["high"]) == pytest.approx((patients.mean(), *np.tanh(on_z)))
    assert (found["n_slides"], found["n_patients"]) == (8, 4)
    assert found["share_of_ceiling"] == pytest.approx(patients.mean() / 0.9)


def test_slides_of_one_patient_count_once() -> None:
    """Many slides of the same patients make no interval narrower."""
    by_patient = sp.tl.summarise(evaluation(3, 2)).set_index(["method", "signature"]).loc[("fused", "mean")]
    copied = evaluation(3, 2)
    more = pd.concat([copied.assign(sample=copied["sample"] + str(k)) for k in range(10)])
    again = sp.tl.summarise(more).set_index(["method", "signature"]).loc[("fused", "mean")]
    assert (again["low"], again["high"]) == pytest.approx((by_patient["low"], by_patient["high"]))
    by_slide = sp.tl.summarise(more, by="sample").set_index(["method", "signature"]).loc[("fused", "mean")]
    assert by_slide["high"] - by_slide["low"] < again["high"] - again["low"]


def test_p_is_combined_over_slides_and_q_over_signatures() -> None:
    found = sp.tl.summarise(evaluation()).set_index(["method", "signature"])
    p = [stats.combine_pvalues([value] * 8, method="stouffer").pvalue for value in (0.03, 0.5)]
    assert found.loc[("he_only", ["A", "B"]), "p"].tolist() == pytest.approx(p)
    assert found.loc[("he_only", ["A", "B"]), "q"].tolist() == pytest.approx(stats.false_discovery_control(p))
    assert np.isnan(found.loc[("he_only", "mean"), ["p", "q"]].astype(float)).all()


def test_comparisons_are_paired() -> None:
    table = evaluation()
    found = sp.tl.compare_methods(table).set_index(["better", "than", "signature"])
    assert found.loc[("fused", "he_only", "mean"), ["difference", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    wide = table.pivot_table(index=["signature", "patient"], columns="method", values="pearson")
    test = stats.ttest_rel(wide.loc["A", "he_only"], wide.loc["A", "density"])
    one = found.loc[("he_only", "density", "A")]
    assert (one["difference"], one["p"]) == pytest.approx((0.3, test.pvalue), abs=0.01)
    assert one["p"] == pytest.approx(test.pvalue)
    p = found.loc[("he_only", "density", ["A", "B"]), "p"]
    assert found.loc[("he_only", "density", ["A", "B"]), "q"].tolist() == pytest.approx(
        stats.false_discovery_control(p)
    )
    only = sp.tl.compare_methods(table, pairs=[("density", "fused")])
    assert only["difference"].lt(0).all()


def test_patients_and_slides_may_be_numbers() -> None:
    named = evaluation()
    numbered = named.assign(**{key: named[key].astype("category").cat.codes for key in ("patient", "sample")})
    columns = ["method", "signature", "pearson", "low", "high"]
    pd.testing.assert_frame_equal(sp.tl.summarise(numbered)[columns], sp.tl.summarise(named)[columns])


def test_one_patient_gives_no_interval() -> None:
    table = evaluation(1)
    assert sp.tl.summarise(table)[["low", "high"]].isna().all(axis=None)
    assert sp.tl.compare_methods(table)[["low", "high", "p", "q"]].isna().all(axis=None)


def test_same_seed_same_bootstrap() -> None:
    first, again = (sp.tl.summarise(evaluation(), interval="bca", seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_errors() -> None:
    table = evaluation()
    with pytest.raises(KeyMissingError, match=r"`column='share_of_ceiling'` is not in the evaluation table"):
        sp.tl.summarise(table.drop(columns="share_of_ceiling"))
    for reader in (sp.tl.summarise, sp.tl.compare_methods, sp.pl.ladder, slide_rows):
        with pytest.raises(InputError, match="slide 'S00' is judged more than once by 'he_only'"):
            reader(pd.concat([table, table]).assign(n_patches=9, ceiling=1.0))
    with pytest.raises(InputError, match=r"`by='patch'` is not known; choose one of \['patient', 'sample'\]"):
        sp.tl.summarise(table, by="patch")
    with pytest.raises(KeyMissingError, match="`pairs='magic'` is not in the methods of the evaluation"):
        sp.tl.compare_methods(table, pairs=[("magic", "density")])


@pytest.mark.parametrize("function", ["tl.summarise", "tl.compare_methods", "pl.ladder", "tl.findings"])
@pytest.mark.parametrize("column", ["pearson", "method", ""])
def test_a_table_that_a_spreadsheet_changed_is_named(function: str, column: str, toy: sd.SpatialData) -> None:
    table = evaluation().assign(n_patches=9, ceiling=0.9)
    if column == "pearson":
        table["pearson"] = table["pearson"].map(lambda r: f"{r:.3f}".replace(".", ","))
    changed = table.drop(columns="method") if column == "method" else table if column else table[:0]
    message = {
        "pearson": "holds '0,[0-9]+'; wanted numbers",
        "method": "`column='method'` is not in",
        "": "has no rows",
    }[column]
    arguments = {"tl.findings": {"data": toy, "evaluation": changed}}.get(function, {"evaluation": changed})
    room, _, name = function.partition(".")
    if function == "tl.findings" and not len(changed):  # those of the slides are asked for all the same
        assert len(sp.tl.findings(**arguments).columns) == 4
        return
    with pytest.raises((InputError, KeyMissingError), match=message):
        getattr(getattr(sp, room), name)(**arguments)
