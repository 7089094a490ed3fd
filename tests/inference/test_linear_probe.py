"""The linear probe against scikit-learn: the fit, patches that are missing or weigh more, and the table it is chosen from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spatialsig.inference.linear_probe import choose_linear_probe, chosen_settings, fit_linear_probe

NAMES = ["a", "b", "c"]


def data(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scale that go together, and three targets: two of them follow the features."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6))
    features = hidden @ rng.normal(size=(6, d)) + rng.normal(size=(n, d))
    features = features * rng.uniform(0.1, 20, d) + rng.normal(0, 50, d)
    targets = np.stack([hidden[:, 0], hidden[:, 1] + rng.normal(size=n), rng.normal(size=n)], axis=1)
    return features.astype(np.float32), targets


def by_scikit_learn(k: int, alpha: float):
    return make_pipeline(StandardScaler(), PCA(k, svd_solver="full"), Ridge(alpha))


@pytest.mark.parametrize(("n", "d"), [(200, 30), (40, 90)], ids=["more patches", "more features"])
def test_every_target_is_fitted_as_scikit_learn_does(n: int, d: int) -> None:
    features, targets = data(n, d)
    sizes, penalties = [5, 20, 20], [1e-3, 0.1, 10.0]
    probe = fit_linear_probe(features, targets, np.ones(n), n_components=sizes, penalties=penalties)
    others = data(50, d, seed=1)[0].astype(np.float64)
    for t, (k, penalty) in enumerate(zip(sizes, penalties, strict=True)):
        wanted = by_scikit_learn(k, penalty * n).fit(features.astype(np.float64), targets[:, t])
        np.testing.assert_allclose(probe.predict(others)[:, t], wanted.predict(others), rtol=0, atol=1e-6)


def test_weights_count_in_components_and_regression() -> None:
    features, targets = data(120, 10)
    weights = np.random.default_rng(2).uniform(0.1, 4, 120)
    found = fit_linear_probe(features, targets, weights, n_components=[4] * 3, penalties=[0.3] * 3)
    scaler = StandardScaler().fit(features.astype(np.float64), sample_weight=weights)
    z = scaler.transform(features.astype(np.float64))
    axes = np.linalg.svd(z * np.sqrt(weights)[:, None], full_matrices=False)[2][:4].T
    ridge = Ridge(0.3 * weights.sum()).fit(z @ axes, targets, sample_weight=weights)
    np.testing.assert_allclose(found.predict(features), ridge.predict(z @ axes), rtol=0, atol=1e-6)
    alike = fit_linear_probe(features, targets, np.ones(120), n_components=[4] * 3, penalties=[0.3] * 3)
    assert np.abs(alike.predict(features) - found.predict(features)).max() > 1e-3


def test_a_target_is_fitted_where_it_was_measured() -> None:
    features, targets = data(150, 8)
    targets[:60, 1], targets[:, 2] = np.nan, np.nan
    found = fit_linear_probe(features, targets, np.ones(150), n_components=[6] * 3, penalties=[0.2] * 3)
    z = make_pipeline(StandardScaler(), PCA(6, svd_solver="full")).fit_transform(features.astype(np.float64))
    for t, rows in ((0, slice(None)), (1, slice(60, None))):
        ridge = Ridge(0.2 * len(z[rows])).fit(z[rows], targets[rows, t])
        np.testing.assert_allclose(found.predict(features)[:, t], ridge.predict(z), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.predict(features)[:, 2], 0)  # never measured: the mean


def test_features_that_are_constant_say_nothing() -> None:
    features, targets = data(80, 6)
    constants = np.append(np.random.default_rng(3).normal(size=20), 0).astype(np.float32)
    dead = np.concatenate([features, np.tile(constants, (80, 1))], axis=1)
    options = {"n_components": [6] * 3, "penalties": [0.1] * 3}
    with_dead, without = (fit_linear_probe(x, targets, np.ones(80), **options) for x in (dead, features))
    np.testing.assert_allclose(with_dead.predict(dead), without.predict(features), atol=1e-8)


def test_the_table_holds_what_scikit_learn_finds_on_patients_held_out() -> None:
    features, targets = data(180, 12)
    targets[:20, 1] = np.nan
    patients = np.repeat([0, 1, 2], [40, 60, 80])
    features[patients == 1] += 5  # whoever is held out is unlike the others
    sizes, penalties = [3, 12], [0.01, 1.0, 100.0]
    table = choose_linear_probe(
        features, targets, np.ones(180), patients, names=NAMES, n_components=sizes, penalties=penalties
    )
    for row in table.itertuples():
        y = targets[:, NAMES.index(row.signature)]
        known = np.isfinite(y)
        error, of_mean, r = 0.0, 0.0, []
        for patient in range(3):
            rest, own = (patients != patient) & known, (patients == patient) & known
            reduce = make_pipeline(StandardScaler(), PCA(row.n_components, svd_solver="full"))
            reduce.fit(features[patients != patient].astype(np.float64))
            z, z_own = (reduce.transform(features[rows].astype(np.float64)) for rows in (rest, own))
            predicted = Ridge(row.penalty * rest.sum()).fit(z, y[rest]).predict(z_own)
            error += ((y[own] - predicted) ** 2).sum()
            of_mean += ((y[own] - y[rest].mean()) ** 2).sum()
            r.append(pearsonr(y[own], predicted)[0])
        assert row.error == pytest.approx(error / of_mean, abs=1e-6)
        assert row.pearson == pytest.approx(np.mean(r), abs=1e-6)
    assert len(table) == 3 * 2 * 3
    best = table.loc[table.groupby("signature", sort=False)["error"].idxmin()]
    pd.testing.assert_frame_equal(table[table["chosen"]], best)
    assert chosen_settings(table, NAMES) == (best["n_components"].tolist(), best["penalty"].tolist())


def test_each_target_gets_the_penalty_it_needs() -> None:
    features, targets = data(300, 40)
    folds = np.arange(300) * 5 // 300
    table = choose_linear_probe(features, targets, np.ones(300), folds, names=NAMES, n_components=[40])
    penalties = dict(zip(NAMES, chosen_settings(table, NAMES)[1], strict=True))
    assert penalties["a"] < penalties["b"] < penalties["c"]  # signal, signal in noise, noise
    errors = table[table["chosen"]].set_index("signature")["error"]
    assert errors["a"] < 0.5 < errors["b"] < 1
    assert errors["c"] == pytest.approx(1, abs=0.05)


def test_a_target_that_no_fold_can_judge_gets_the_usual_penalty() -> None:
    features, targets = data(60, 5)
    folds = np.arange(60) // 30
    targets[folds == 1, 2] = np.nan  # the other fold learns nothing of it
    table = choose_linear_probe(features, targets, np.ones(60), folds, names=NAMES, n_components=[5])
    assert table[table["signature"] == "c"]["error"].isna().all()
    assert chosen_settings(table, NAMES)[1][2] == 1.0
