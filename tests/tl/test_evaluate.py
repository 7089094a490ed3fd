"""Evaluation with a model whose answers are known, on one slide in memory."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig.evaluation import rows
from spatialsig.inference.training_set import FoldChoice
from spatialsig.slide.slides import Slide

METHODS = {
    "he_only", "he_only_permuted", "fused", "fused_permuted", "ae_only", "hand_features", "colour", "density",
    "coordinates", "neighbours", "train_mean",
}  # fmt: skip


@dataclass
class Config:
    backbone: str = "vit"
    fusion: str = "gated"
    modality_dropout: float = 0.3


@dataclass
class Brightness(sp.models.SignatureViT):
    """Predicts the brightness of a patch plus a little noise-free constant, and the embedding where it gets one."""

    signatures: tuple[str, ...]
    patch_px: int = 56
    um_per_px: float = 1.0
    config: Config = field(default_factory=Config)
    run: dict[str, Any] = field(default_factory=lambda: {"test_fold": 0, "use_rep": "X_ae"})
    net: torch.nn.Module = field(default_factory=torch.nn.Identity)

    def predict(self, images: np.ndarray, ae: np.ndarray | None = None, **_: Any) -> np.ndarray:
        bright = images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 255
        known = 0.0 if ae is None else 2.0 * ae[:, :1]
        return np.repeat(bright + known, len(self.signatures), axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def _slide(_toy: sd.SpatialData) -> sd.SpatialData:
    sdata = sd.deepcopy(_toy)
    sp.pp.split(sdata, by="block", block_um=250, buffer_um=40, n_folds=2)
    sp.pp.make_patches(sdata, patch_px=56, um_per_px=1.0, stride_um=28.0)
    sp.pp.assign_cells(sdata)
    sp.tl.score_cells(sdata, "seed")
    rng = np.random.default_rng(0)
    sdata["table"].obsm["X_ae"] = rng.normal(size=(sdata["table"].n_obs, 3)).astype(np.float32)
    sp.tl.aggregate_patches(sdata, min_cells=5)
    return sdata


@pytest.fixture
def slide(_slide: sd.SpatialData) -> Iterator[sd.SpatialData]:
    labels = _slide["signatures"].copy()
    yield _slide
    _slide["signatures"] = labels


@pytest.fixture(scope="module")
def whole(_slide: sd.SpatialData) -> pd.DataFrame:
    return sp.tl.evaluate(_slide, model_of(_slide), pooled=True)


def model_of(slide: sd.SpatialData) -> Brightness:
    return Brightness(tuple(slide["signatures"].var_names))


def test_numbers_equal_those_of_pandas_on_the_held_out_patches(slide: sd.SpatialData, whole: pd.DataFrame) -> None:
    table = whole[whole["sample"] == "toy"]
    assert set(table["method"]) == METHODS
    labels = slide["signatures"]
    rows = np.flatnonzero((labels.obs["fold"] == 0) & np.isfinite(labels.X).any(axis=1))
    image = np.asarray(slide["he_image"]["scale0"]["image"].data)
    corners = slide["patches"][["y0", "x0"]].to_numpy()[rows]
    bright = np.array([image[:, y : y + 56, x : x + 56].mean() for y, x in corners]) / 255
    truth = pd.Series(labels.X[rows, 0])
    found = table[table["signature"] == labels.var_names[0]].set_index("method")
    assert found.loc["he_only", "n_patches"] == truth.notna().sum()
    assert found.loc["he_only", "pearson"] == pytest.approx(truth.corr(pd.Series(bright)), abs=1e-4)
    n_cells = pd.Series(labels.obs["n_cells"].to_numpy()[rows], dtype=float)
    assert found["r_n_cells"].unique() == pytest.approx([truth.corr(n_cells)])
    order = np.random.default_rng(0).permutation(len(rows))
    embedding = 2 * labels.obsm["X_ae"][rows, 0]
    for method, guess in {
        "he_only_permuted": bright[order],
        "fused": bright + embedding,
        "fused_permuted": bright[order] + embedding,
    }.items():
        assert found.loc[method, "pearson"] == pytest.approx(truth.corr(pd.Series(guess)), abs=1e-4), method


def test_every_patch_is_read_once(slide: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[np.ndarray] = []

    def counted(source: Any, rows: np.ndarray) -> np.ndarray:
        read.append(source.origins[rows])
        return original(source, rows)

    original = rows.read_patches
    monkeypatch.setattr(rows, "read_patches", counted)
    sp.tl.evaluate(slide, model_of(slide))
    origins = np.concatenate(read)
    assert len(np.unique(origins, axis=0)) == len(origins)


def test_baselines_alone_are_those_of_the_evaluation(slide: sd.SpatialData, whole: pd.DataFrame) -> None:
    alone = sp.tl.baselines(slide, use_rep="X_ae", pooled=True)
    same = whole[whole["method"].isin(alone["method"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)
    assert set(whole["method"]) - set(alone["method"]) == {"he_only", "he_only_permuted", "fused", "fused_permuted"}


def test_embedding_tables_become_a_baseline(slide: sd.SpatialData) -> None:
    labels = slide["signatures"]
    labels.obsm["X_backbone"] = np.nan_to_num(np.asarray(labels.X))[:, ::-1].copy()
    table = sp.tl.baselines(slide, embedding_key="X_backbone")
    assert table[table["method"] == "embedding"]["pearson"].min() > 0.99
    with pytest.raises(KeyMissingError, match="`embedding_key='nothing'` is not in the tables, and the obsm of"):
        sp.tl.baselines(slide, embedding_key="nothing")


def test_what_is_not_measured_never_becomes_a_number(slide: sd.SpatialData) -> None:
    labels = slide["signatures"]
    labels.X[:, 1] = np.nan
    labels.X[np.asarray(labels.obs["fold"] == 0), 2] = np.nan
    held_out = np.flatnonzero((labels.obs["fold"] == 0) & np.isfinite(labels.X).any(axis=1))
    labels.X[held_out[::2], 3] = np.nan
    table = sp.tl.evaluate(slide, model_of(slide), pooled=True)
    numbers = ["pearson", "spearman", "r2", "mae", "ccc", "share_of_ceiling", "partial_pearson", "p", "q"]
    names = labels.var_names
    assert table[table["signature"].isin(names[[1, 2]])][numbers].isna().all(axis=None)
    some = table[(table["signature"] == names[3]) & (table["method"] == "he_only")]
    assert (some["n_patches"] == len(held_out) // 2).all()
    assert some[["pearson", "ccc"]].notna().all(axis=None)
    summary = sp.tl.summarise(table).set_index(["method", "signature"])
    assert np.isnan(summary.loc[("he_only", names[1]), "pearson"])
    assert summary.loc[("he_only", names[1]), "n_slides"] == 0
    assert np.isfinite(summary.loc[("he_only", "mean"), "pearson"])


def test_pooled_rows_stand_apart(whole: pd.DataFrame) -> None:
    table = whole
    pooled = table["sample"] == "(all slides)"
    numbers = ["method", "signature", "pearson", "ccc", "mae", "n_patches"]
    # with one slide they are the same numbers
    pd.testing.assert_frame_equal(
        table.loc[pooled, numbers].reset_index(drop=True), table.loc[~pooled, numbers].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(sp.tl.summarise(table), sp.tl.summarise(table[~pooled]))


def test_the_table_survives_a_csv(slide: sd.SpatialData, whole: pd.DataFrame, tmp_path: Any) -> None:
    table = whole
    table.to_csv(tmp_path / "e.csv", index=False)
    back = pd.read_csv(tmp_path / "e.csv")
    pd.testing.assert_frame_equal(sp.tl.summarise(back), sp.tl.summarise(table))
    assert sp.tl.findings(slide, None, back).equals(sp.tl.findings(slide, None, table))


def test_the_inner_fold_shares_no_pixel_with_training_or_test(slide: sd.SpatialData) -> None:
    corners = slide["patches"][["y0", "x0"]].to_numpy()
    size = slide.attrs["spatialsig"]["patches"]["patches"]["size_l0"]
    test = (slide["signatures"].obs["fold"] == 0).to_numpy()
    train, held_out = FoldChoice(0, inner=1).rows(Slide(slide).patches())
    groups = [corners[rows] for rows in (train, held_out, test)]
    assert all(map(len, groups))
    for a, b in itertools.combinations(groups, 2):
        assert np.abs(a[:, None] - b[None]).max(axis=-1).min() >= size


def test_a_random_split_is_called_by_its_name(toy: sd.SpatialData) -> None:
    sdata = toy
    with pytest.warns(SpatialsigWarning, match="Never report it"):
        sp.pp.split(sdata, by="random", allow_leakage=True, n_folds=3)
    sp.pp.make_patches(sdata, patch_px=56, um_per_px=1.0, stride_um=28.0)
    sp.pp.assign_cells(sdata)
    sp.tl.score_cells(sdata, "seed")
    sp.tl.aggregate_patches(sdata, min_cells=5, use_rep=None)
    model = model_of(sdata)
    model.run = {"test_fold": 0, "use_rep": None}
    with pytest.warns(SpatialsigWarning) as caught:
        table = sp.tl.evaluate(sdata, model)
    said = " ".join(str(w.message) for w in caught)
    assert "The folds of toy are random patches" in said
    assert "Position alone, without any image, reaches r = " in said
    assert table[table["method"] == "coordinates"]["pearson"].mean() > 0.5


def test_errors(slide: sd.SpatialData) -> None:
    model = model_of(slide)
    model.run["test_fold"] = 7
    with pytest.raises(InputError, match="`test_fold=7`: slide .* was split into folds 0 to 1; choose one of them"):
        sp.tl.evaluate(slide, model)
    other = Brightness(("A", "B"))
    with pytest.raises(InputError, match=r"slide 'toy' has labels for \['Immune_T'"):
        sp.tl.evaluate(slide, other)
