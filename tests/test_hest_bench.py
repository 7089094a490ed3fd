"""HEST-Bench on a miniature in its layout: its protocol and ours against scikit-learn, encoders, folders of features, errors."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from spatialsig.errors import FileMissingError, InputError
from spatialsig.inference.linear_probe import PENALTIES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GENES = ["G0", "G1", "G2", "G3"]
SIZES = {"A1": 290, "A2": 270, "B1": 110}  # patches of a sample: the components of the first split are drawn, by a seed
SPLITS = [(["A1", "A2"], ["B1"]), (["B1"], ["A1", "A2"])]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("hest_bench")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def planted() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of more columns than the protocol keeps, and counts that follow them, of every sample."""
    rng = np.random.default_rng(0)
    loading = rng.normal(size=(5, 400))
    found = {}
    for name, n in SIZES.items():
        hidden = rng.normal(size=(n, 5))
        features = (hidden @ loading + rng.normal(size=(n, 400))).astype(np.float32)
        found[name] = features, rng.poisson(np.exp(1 + hidden[:, :4] / 2)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def data(planted: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``task/TOY`` as HEST-Bench publishes one, and ``features/TOY`` as it writes them; barcodes in orders of their own."""
    root, rng = tmp_path_factory.mktemp("hest"), np.random.default_rng(1)
    task = root / "task" / "TOY"
    for folder in (task / "splits", task / "patches", task / "adata", root / "features" / "TOY" / "ours"):
        folder.mkdir(parents=True)
    (task / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
    for name, (features, counts) in planted.items():
        barcodes = np.array([f"{name}-{k}" for k in range(len(counts))])
        with h5py.File(task / "patches" / f"{name}.h5", "w") as file:
            file["img"] = rng.integers(0, 256, (len(counts), 16, 16, 3), dtype=np.uint8)
            file["barcode"] = barcodes.astype("S")[:, None]
            file["coords"] = rng.integers(0, 5000, (len(counts), 2))
        with h5py.File(root / "features" / "TOY" / "ours" / f"{name}.h5", "w") as file:
            file["embeddings"], file["barcodes"] = features, barcodes.astype("S")[:, None]
        order = rng.permutation(len(counts))
        table = ad.AnnData(sparse.csr_matrix(np.column_stack([counts, counts[:, :1] + 1])[order]))
        table.obs_names, table.var_names = barcodes[order], [*GENES, "OTHER"]
        table[:, rng.permutation(table.n_vars)].copy().write_h5ad(task / "adata" / f"{name}.h5ad")
    for k, (train, test) in enumerate(SPLITS):
        for part, names in (("train", train), ("test", test)):
            rows = [(name, f"patches/{name}.h5", f"adata/{name}.h5ad") for name in names]
            frame = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
            frame.to_csv(task / "splits" / f"{part}_{k}.csv", index=False)
    return root


def arrays(planted: dict[str, tuple[np.ndarray, np.ndarray]], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    features, counts = zip(*(planted[name] for name in names), strict=True)
    return np.concatenate(features), np.log1p(np.concatenate(counts).astype(np.float64))


def mean_r(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean([pearsonr(truth[:, g], found[:, g])[0] for g in range(len(GENES))]))


def test_the_protocol_of_the_benchmark_is_what_scikit_learn_computes(
    bench: ModuleType, data: Path, planted: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    features = bench.partial(bench.precomputed, data / "features", None)
    found = bench.run_task(data / "task" / "TOY", features, {})
    wanted = []
    for train, test in SPLITS:
        (x, y), (x_test, y_test) = arrays(planted, train), arrays(planted, test)
        k = min(256, *x.shape)
        steps = [("scaler", StandardScaler()), ("PCA", PCA(n_components=k, random_state=1))]
        pipe = Pipeline(steps).fit(x)
        ridge = Ridge(
            alpha=100 / (k * len(GENES)), fit_intercept=False, solver="lsqr", max_iter=1000, random_state=1
        ).fit(pipe.transform(x).astype(np.float32), y)
        wanted.append(mean_r(y_test, ridge.predict(pipe.transform(x_test).astype(np.float32))))
    np.testing.assert_allclose(found["fixed"]["splits"], wanted, rtol=0, atol=1e-6)
    assert found["fixed"]["pearson"] == pytest.approx(np.mean(wanted), abs=1e-6)
    assert found["fixed"]["std"] == pytest.approx(np.std(wanted), abs=1e-6)


@pytest.mark.parametrize("patients", [{}, {"A1": "P", "A2": "P"}], ids=["two patients", "one, in blocks"])
def test_the_tuned_protocol_chooses_on_patients_held_out(
    bench: ModuleType, data: Path, planted: dict[str, tuple[np.ndarray, np.ndarray]], patients: dict[str, str]
) -> None:
    task, features = data / "task" / "TOY", bench.partial(bench.precomputed, data / "features", None)
    found = bench.run_task(task, features, patients)["tuned"]["splits"][0]
    (x, y), (x_test, y_test) = arrays(planted, ["A1", "A2"]), arrays(planted, ["B1"])
    fold = np.repeat([0, 1], [SIZES["A1"], SIZES["A2"]])
    if patients:
        train = bench.read_part(task, task / "splits" / "train_0.csv", GENES, features)
        fold = bench.blocks(train.centres, 8)
        assert len(set(fold)) == 8
    k, predicted = min(256, len(x) - 1), np.empty_like(y_test)

    def reduced(rows: np.ndarray) -> Pipeline:
        return Pipeline([("scaler", StandardScaler()), ("PCA", PCA(min(k, rows.sum() - 1), svd_solver="full"))]).fit(
            x[rows].astype(np.float64)
        )

    errors = np.zeros((len(PENALTIES), len(GENES)))
    for held_out in set(fold):
        rest = fold != held_out
        pipe = reduced(rest)
        z, z_own = pipe.transform(x[rest].astype(np.float64)), pipe.transform(x[~rest].astype(np.float64))
        for j, penalty in enumerate(PENALTIES):
            errors[j] += ((Ridge(penalty * rest.sum()).fit(z, y[rest]).predict(z_own) - y[~rest]) ** 2).sum(axis=0)
    pipe = reduced(np.ones(len(x), bool))
    for g, j in enumerate(errors.argmin(axis=0)):
        ridge = Ridge(PENALTIES[j] * len(x)).fit(pipe.transform(x.astype(np.float64)), y[:, g])
        predicted[:, g] = ridge.predict(pipe.transform(x_test.astype(np.float64)))
    assert found == pytest.approx(mean_r(y_test, predicted), abs=1e-6)


def test_an_encoder_sees_the_patches_once(bench: ModuleType, data: Path, tmp_path: Path) -> None:
    task = data / "task" / "TOY"
    with h5py.File(task / "patches" / "A1.h5") as file:
        images = file["img"][:] / np.float32(255)
    features, barcodes = bench.computed(bench.Colours(), tmp_path, "TOY", "A1", task / "patches" / "A1.h5")
    assert barcodes[:2] == ["A1-0", "A1-1"]
    np.testing.assert_allclose(features[:, :3], images[:, :8, :8].mean(axis=(1, 2)), atol=1e-5)
    again, _ = bench.computed(None, tmp_path, "TOY", "A1", task / "patches" / "A1.h5")  # no network is asked
    np.testing.assert_array_equal(features, again)


def test_what_is_missing_is_named(bench: ModuleType, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="is no task of HEST-Bench: wanted `splits/train_k.csv`"):
        bench.splits_of(tmp_path)
    with pytest.raises(FileMissingError, match="0 files of features of 'A1'"):
        bench.precomputed(tmp_path, None, "TOY", "A1", tmp_path)
    other = tmp_path / "TOY" / "theirs"
    for name in ("theirs", "ours"):
        (tmp_path / "TOY" / name).mkdir(parents=True)
        (tmp_path / "TOY" / name / "A1.h5").write_bytes((data / "features" / "TOY" / "ours" / "A1.h5").read_bytes())
    with pytest.raises(InputError, match=r"2 files of features of 'A1'.*--encoder-name"):
        bench.precomputed(tmp_path, None, "TOY", "A1", other)
    assert len(bench.precomputed(tmp_path, "ours", "TOY", "A1", other)[0]) == SIZES["A1"]


def test_the_short_form_runs(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hest_bench.py", "--quick"])
    bench.main()
    assert "MINI {'fixed':" in capsys.readouterr().out
