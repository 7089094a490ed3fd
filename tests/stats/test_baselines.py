import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from spatialsig.stats.baselines import PENALTIES, nearest_neighbours, neighbour_mean, ridge


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(80, 5)), rng.normal(size=(30, 5))
    y = x @ rng.normal(size=(5, 3)) + rng.normal(size=(80, 3))
    y[:20, 1] = np.nan
    y[:, 2] = np.nan
    return x, y, x_test


def test_ridge_fits_every_target_on_the_rows_it_is_measured_on() -> None:
    x, y, x_test = data()
    found = ridge(x, y, x_test)
    for target, rows in ((0, slice(None)), (1, slice(20, None))):
        scaler = StandardScaler().fit(x[rows])
        oracle = RidgeCV(PENALTIES).fit(scaler.transform(x[rows]), y[rows, target])
        np.testing.assert_allclose(found[:, target], oracle.predict(scaler.transform(x_test)))
    assert np.isnan(found[:, 2]).all()


def test_missing_inputs_are_neither_learned_from_nor_predicted() -> None:
    x, y, x_test = data()
    x[3], x_test[4] = np.nan, np.nan
    found = ridge(x, y, x_test)
    assert np.isnan(found[4]).all()
    np.testing.assert_allclose(found[:4, :2], ridge(np.delete(x, 3, 0), np.delete(y, 3, 0), x_test)[:4, :2])


def test_nearest_neighbours_equal_sklearn() -> None:
    x, y, x_test = data()
    oracle = KNeighborsRegressor(10).fit(x, y[:, 0]).predict(x_test)
    np.testing.assert_allclose(nearest_neighbours(x, y, x_test)[:, 0], oracle)


def test_neighbours_do_not_overlap_and_leave_out_the_patch_itself() -> None:
    row, col = np.indices((7, 7)).reshape(2, -1)
    y = (10.0 * row + col)[:, None]
    y[(row == 3) & (col == 1)] = np.nan
    found = neighbour_mean(y, row, col, step=2).reshape(7, 7)
    around = [10 * r + c for r in (1, 3, 5) for c in (1, 3, 5) if (r, c) not in {(3, 3), (3, 1)}]
    assert found[3, 3] == np.mean(around)
    assert found[0, 0] == np.mean([2, 20, 22])
    alone = neighbour_mean(np.ones((2, 1)), np.array([0, 5]), np.array([0, 0]), step=1)
    assert np.isnan(alone).all()
