"""A table of scores as others leave it: sparse, empty, in words, or with a name twice; every function that reads one."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigError

SIGNATURE = "Immune_T"


def _with_x(table: ad.AnnData, x: object) -> ad.AnnData:
    return ad.AnnData(x, obs=table.obs, var=table.var, uns=table.uns, obsm=table.obsm)


def _named_twice(table: ad.AnnData) -> ad.AnnData:
    table.var_names = [SIGNATURE, SIGNATURE, *table.var_names[2:]]
    return table


DEFECTS: dict[str, tuple[Callable[[ad.AnnData], ad.AnnData], str]] = {
    "no matrix": (
        lambda table: _with_x(table, None),
        r"tables\['signatures'\].X is missing; wanted a matrix of numbers",
    ),
    "words": (
        lambda table: _with_x(table, table.X.astype(str)),
        r"tables\['signatures'\].X is of type .*; wanted a matrix of numbers",
    ),
    "complex numbers": (
        lambda table: _with_x(table, table.X.astype(complex)),
        "X is of type complex128; wanted a matrix",
    ),
    "a mask": (
        lambda table: _with_x(table, np.ma.masked_invalid(table.X)),
        "X is masked, and what lies under the mask would count as a value: fill it in",
    ),
    "infinite values": (
        lambda table: _with_x(table, np.where(np.isnan(table.X), np.inf, table.X)),
        r"X: \d+ of \d+ values are infinite; make them missing",
    ),
    "a name twice": (_named_twice, rf"tables\['signatures'\] has several columns of one name: {SIGNATURE}"),
}
READERS: dict[str, Callable[[sd.SpatialData, Path], object]] = {
    "io.export_geojson": lambda s, at: sp.io.export_geojson(s, at / "a.geojson", table_key="signatures"),
    "io.export_heatmap": lambda s, at: sp.io.export_heatmap(
        s, at / "a.png", signature=SIGNATURE, table_key="signatures"
    ),
    "pl.patches": lambda s, at: sp.pl.patches(s, SIGNATURE),
    "pl.scatter": lambda s, at: sp.pl.scatter(s, SIGNATURE, predictions_key="signatures"),
    "tl.train_vit": lambda s, at: sp.tl.train_vit(s, use_rep=None, test_fold=0, max_epochs=1),
    "tl.train_probe": lambda s, at: sp.tl.train_probe(s, "signatures"),
}


def _spoilt(patched: sd.SpatialData, defect: Callable[[ad.AnnData], ad.AnnData]) -> sd.SpatialData:
    table = defect(patched.tables["signatures"].copy())
    del patched.tables["signatures"]
    patched.tables["signatures"] = table
    return patched


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_table_that_holds_no_scores_is_named(
    patched: sd.SpatialData, tmp_path: Path, defect: str, reader: str
) -> None:
    spoil, message = DEFECTS[defect]
    with pytest.raises(SpatialsigError, match=message):
        READERS[reader](_spoilt(patched, spoil), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reader", ["io.export_geojson", "io.export_heatmap", "pl.patches"])
def test_a_sparse_table_is_read_as_its_dense_form(patched: sd.SpatialData, tmp_path: Path, reader: str) -> None:
    scores = np.nan_to_num(patched.tables["signatures"].X)
    found = []
    for x in (scores, sparse.csr_matrix(scores), sparse.csc_matrix(scores)):
        READERS[reader](_spoilt(patched, lambda table, x=x: _with_x(table, x)), tmp_path)
        drawn = [panel.collections[0].get_array() for panel in plt.gcf().axes[:1]] if reader == "pl.patches" else []
        found.append([np.asarray(values).tolist() for values in drawn] or [f.read_bytes() for f in tmp_path.iterdir()])
        plt.close("all")
    assert found[0]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"std": -1.0}, r"layers\['std'\] has \d+ values below 0"),
        ({"sem": -1.0}, r"layers\['sem'\] has \d+ values below 0"),
        ({"lower": 2.0, "upper": 1.0}, r"\d+ values of layers\['lower'\] lie above layers\['upper'\]"),
    ],
)
def test_what_stands_beside_the_scores_must_be_able_to(
    patched: sd.SpatialData, tmp_path: Path, layers: dict[str, float], message: str
) -> None:
    for name, value in layers.items():
        patched.tables["signatures"].layers[name] = np.full(patched.tables["signatures"].shape, value)
    with pytest.raises(InputError, match=message):
        READERS["io.export_geojson"](patched, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("columns", [None, 0], ids=["missing values", "no columns"])
def test_a_table_without_any_score_is_not_exported(
    patched: sd.SpatialData, tmp_path: Path, columns: int | None
) -> None:
    empty = _spoilt(patched, lambda table: _with_x(table, np.full_like(table.X, np.nan))[:, :columns])
    with pytest.raises(InputError, match=r"has no score of \[.*\] on any of \d+ patches; there is nothing to export"):
        READERS["io.export_geojson"](empty, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_signature_without_any_score_is_not_drawn(patched: sd.SpatialData, tmp_path: Path) -> None:
    empty = _spoilt(patched, lambda table: _with_x(table, np.full_like(table.X, np.nan)))
    with pytest.raises(InputError, match=rf"signature '{SIGNATURE}' has no score on any of \d+ patches"):
        READERS["io.export_heatmap"](empty, tmp_path)
