"""Cases of answers.py that start from a slide in memory or a table: sections A and B, and what the other sections share."""

from __future__ import annotations

import copy
import os
import resource
import shutil
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import tifffile
from spatialdata import SpatialData, deepcopy, read_zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation, set_transformation

import spatialsig as sp
from spatialsig.store import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[SpatialData], object]

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
TRAIN = "train STORE --out OUT --no-embedding --max-epochs 1"
LABEL = "label STORE --signatures seed --patch-px 28 --um-per-px 2 --min-cells 5"
SPLIT = "split STORE --by block --n-folds 2 --block-um 100 --buffer-um 0"
PREDICT, EVALUATE = "predict STORE --model MODEL", "evaluate STORE --model MODEL --out OUT"
EXPORT = "export geojson STORE --out OUT"
SMOOTH = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)[..., None] + np.arange(3, dtype=np.uint8)


class Case(NamedTuple):
    """Words for a case, its call, the words of the command that does the same, and what holds meanwhile."""

    name: str
    call: Callable[[], object] | None = None
    command: Callable[[], list[object]] | None = None
    given: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass
class Place:
    """A folder, and what is made once for all cases."""

    root: Path
    numbers: Iterator[int] = field(default_factory=count)
    stores: dict[Change | None, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.study = sp.datasets.toy_study(predicted=True)
        self.model = sp.datasets.toy_model(self.study)
        self.model.save(self.root / "model")
        self.bundle = self.made("3.0", n_slides=2)

    def made(self, version: str, *, n_slides: int = 1) -> Path:
        """Bundle of a version; all hold the same slide."""
        folder = self.root / version
        small: dict[str, Any] = {"size_um": 160.0, "density_per_mm2": 6000.0, "transcripts": False}
        sp.datasets.synthetic_xenium(folder, version=version, n_slides=n_slides, seed=2, **small)
        return folder / "S1"

    def new(self, name: str) -> Path:
        """A path in a folder of its own."""
        (folder := self.root / str(next(self.numbers))).mkdir()
        return folder / name

    def own(self, folder: Path) -> Path:
        """A copy of a folder."""
        return Path(shutil.copytree(folder, self.new(folder.name)))

    def file(self, name: str, text: str) -> Path:
        (path := self.new(name)).write_text(text, encoding="utf-8")
        return path

    def slide(self, change: Change | None) -> SpatialData:
        slide = deepcopy(self.study)
        if change is not None:
            change(slide)
        return slide

    def store(self, change: Change | None = None) -> Path:
        """The slide as the plain writer of spatialdata leaves it."""
        if change not in self.stores:
            self.stores[change] = self.new("slide.zarr")
            self.slide(change).write(self.stores[change])
        return self.own(self.stores[change])

    def words(self, command: str, change: Change | None = None, **more: Path) -> list[object]:
        """Words of a command, in which ``STORE``, ``MODEL`` and ``OUT`` stand for paths."""
        paths = {"STORE": self.store(change), "MODEL": self.root / "model", "OUT": self.new("out")} | more
        return [paths.get(word, word) for word in command.split()]

    def on(self, name: str, change: Change | None, call: Change, command: str = "") -> Case:
        """Case of a changed slide."""
        return Case(name, lambda: call(self.slide(change)), (lambda: self.words(command, change)) if command else None)

    def importing(self, source: Callable[[], Path], *options: object) -> Callable[[], list[object]]:
        return lambda: ["import", source(), "--out", self.new("s.zarr"), *options]


def tiff(path: Path, pixels: np.ndarray = SMOOTH, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", "metadata": None} | options)
    return path


def refused(code: int) -> AbstractContextManager[object]:
    """Nothing can be written beside a store: what the system says on a read-only share or a full disk, played."""
    return mock.patch.object(lock, "_write_new", side_effect=OSError(code, os.strerror(code)))


@contextmanager
def room(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond ``n_bytes``, and no bytecode is kept: cut short, it would break later imports."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        with mock.patch.object(sys, "dont_write_bytecode", new=True):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def cut(slide: SpatialData, patch_px: int = 80, stride_um: float = 46) -> None:
    sp.pp.make_patches(slide, patch_px=patch_px, um_per_px=2.0, stride_um=stride_um)


def as_many_of_another_size(slide: SpatialData) -> None:
    cut(slide, 20, 50)
    n_patches = len(slide["patches"])
    sp.pp.assign_cells(slide)
    cut(slide)
    assert len(slide["patches"]) == n_patches


def scaled(by: float) -> Change:
    """Change of the H&E to one that is larger than it is."""
    scale = Scale([by, by], ("x", "y"))
    return lambda s: set_transformation(s["he_image"], Sequence([scale, get_transformation(s["he_image"])]), "global")


def split(slide: SpatialData) -> None:
    sp.pp.split(slide, by="block", n_folds=2, block_um=100, buffer_um=0, seed=1)


def stale(p: Place) -> list[Case]:
    """Results beside what they were not made from."""
    model, twice = p.model, scaled(2)
    average = partial(sp.tl.aggregate_patches, use_rep=None)
    train = partial(sp.tl.train_vit, use_rep=None, max_epochs=1)
    he = get_transformation(p.study["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    elsewhere = pd.DataFrame({"method": ["he_only"], "signature": ["T"], "sample": ["elsewhere"], "pearson": [0.5]})

    def mirrored(slide: SpatialData) -> None:
        names: dict[str, Any] = {"dims": ("c", "y", "x"), "c_coords": ["r", "g", "b"], "scale_factors": [2, 2]}
        frames = get_transformation(slide["he_image"], get_all=True)
        pixels = slide["he_image"]["scale0"]["image"].to_numpy()
        slide["he_image"] = Image2DModel.parse(pixels[:, ::-1], **names, transformations=frames)

    def embedded(slide: SpatialData) -> None:
        encoder = sp.tl.train_autoencoder(slide, signatures="seed", n_latent=2, hidden=(4,), max_epochs=1)
        sp.tl.embed_cells(slide, encoder)
        sp.tl.aggregate_patches(slide, min_cells=5)
        slide["table"].obsm["X_ae"] = slide["table"].obsm["X_ae"][::-1].copy()

    def maps_of_another_model(slide: SpatialData) -> object:
        one, other = (sp.tl.train_vit(slide, use_rep=None, size=TINY, max_epochs=1, seed=seed) for seed in (1, 2))
        sp.tl.attention(slide, one, signatures=["Immune_T"], patches=[0, 1], n_steps=2)
        sp.tl.predict(slide, other)
        return sp.pl.attention(slide, "Immune_T", n=1)

    return [
        p.on("A1 as many patches of another size after assign_cells, then aggregate_patches", as_many_of_another_size, average, TRAIN),
        p.on("A2 new patches, then export_geojson", cut, lambda s: sp.io.export_geojson(s, p.new("a.geojson")), EXPORT),
        p.on("A2 new patches, then export_heatmap", cut, lambda s: sp.io.export_heatmap(s, p.new("a.png"), "Immune_T")),
        p.on("A2 new patches, then pl.patches", cut, lambda s: sp.pl.patches(s, "Immune_T", table_key="signatures_pred")),
        p.on("A3 H&E moved, then predict", twice, lambda s: sp.tl.predict(s, model), PREDICT),
        p.on("A3 H&E replaced, then evaluate", mirrored, lambda s: sp.tl.evaluate(s, model), EVALUATE),
        p.on("A3 align_he after patches", None, lambda s: sp.pp.align_he(s, matrix=he @ np.diag([1, 1.01, 1]))),
        p.on("A3 qc_alignment(refine=True) after patches", None, lambda s: sp.pp.qc_alignment(s, refine=True)),
        p.on("A3 cells filtered after assignment, then train_vit", lambda s: sp.pp.filter_cells(s, min_counts=140), train, TRAIN),
        p.on("A3 cells scored again after aggregation, then train_vit", lambda s: sp.tl.score_cells(s, "seed", method="ucell"), train, TRAIN),
        p.on("A3 embedding of the cells replaced, then train_vit", embedded, lambda s: sp.tl.train_vit(s, max_epochs=1), TRAIN.replace("--no-embedding ", "")),
        p.on("A3 folds split again, then evaluate", split, lambda s: sp.tl.evaluate(s, model), EVALUATE),
        p.on("A3 folds split again, then calibrate", split, lambda s: sp.tl.calibrate(s, copy.copy(model), fold=0)),
        p.on("A3 stain reference changed, then export_geojson", lambda s: (sp.pp.normalize_stain(s), sp.tl.predict(s, sp.datasets.toy_model(s)),
             sp.pp.normalize_stain(s, n_patches=12)), lambda s: sp.io.export_geojson(s, p.new("a.geojson")), EXPORT),
        p.on("A3 patches imported in place of others, then pl.compare", lambda s: (s.shapes.update(tiles=s["patches"].iloc[::2]),
             sp.pp.import_patches(s, "tiles", um_per_px=2.0, min_tissue=0)), lambda s: sp.pl.compare(s, "Immune_T"), EVALUATE),
        p.on("A3 attention of another model than the scores, then pl.attention", None, maps_of_another_model),
        p.on("A3 what is stale, by status", twice, lambda s: sp.io.status(s).set_index("part")["state"].to_dict(), "status STORE"),
        Case("A3 what is stale, by verify", lambda: sp.io.verify(p.store(twice)).set_index("element")["status"].to_dict(), lambda: p.words("verify STORE", twice)),
        p.on("A  a result in place of another element", None, lambda s: sp.tl.predict(s, model, key_added="table"), f"{PREDICT} --key-added table"),
        p.on("A  case A1 in an object without a record, which is taken as it is", lambda s: (as_many_of_another_size(s), s.attrs["spatialsig"].pop("lineage")), average, "status STORE"),
        p.on("A  an evaluation of other slides, then findings", None, lambda s: sp.tl.findings(s, model, elsewhere)),
    ]  # fmt: skip


def cells(columns: dict[Any, Any]) -> ad.AnnData:
    """Twelve cells with these columns, of which lists are repeated."""
    table = pd.DataFrame(index=[f"c{i}" for i in range(12)])
    for name, given in columns.items():
        table[name] = given * 4 if isinstance(given, list) else given
    return ad.AnnData(np.ones((12, 3), np.float32), table, obsm={"spatial": np.linspace(1, 39, 24).reshape(12, 2)})


def placed(adata: ad.AnnData, out: Path | None = None) -> ad.AnnData:
    return sp.io.from_anndata(adata, SMOOTH, um_per_px=1.0, out=out)["table"]


def tables(p: Place) -> list[Case]:
    """Manifests, gene sets, tables of cells."""

    def manifest(name: str, text: str) -> Case:
        csv = p.file("bundles.CSV", text.format(p.bundle, p.bundle.with_name("S2")))
        return Case(name, lambda: sp.Cohort.from_bundles(csv, p.new("stores")), p.importing(lambda: csv))

    def gene_sets(name: str, file: str, text: str) -> Case:
        path = p.file(file, text)
        return Case(name, lambda: sp.io.read_signatures(path), lambda: p.words(LABEL, seed=path))

    def read_back(columns: dict[Any, Any]) -> str:
        placed(cells(columns), out := p.new("s.zarr"))
        obs = read_zarr(out)["table"].obs
        return str({name: f"{obs[name].dtype}, {obs[name].isna().sum()} of 12 missing" for name in columns})

    def bundle_with(columns: dict[Any, Any]) -> Path:
        file = (bundle := p.own(p.bundle)) / "cells.parquet"
        table = pd.read_parquet(file)
        for name, given in columns.items():
            table[str(name)] = (given * len(table))[: len(table)] if isinstance(given, list) else given
        table.to_parquet(file)
        return bundle

    def column(what: str, columns: dict[Any, Any]) -> Case:
        command = None if 3 in columns else p.importing(lambda: bundle_with(columns))
        return Case(f"B8 a column {what}", lambda: placed(cells(columns), p.new("s.zarr")), command)

    def kinds(name: str, other: str | None) -> Case:
        words = pd.Categorical(["A", other] * (p.study["table"].n_obs // 2))
        return p.on(name, lambda s: s["table"].obs.insert(0, "kind", words), mean_shares)

    def mean_shares(slide: SpatialData) -> str:
        sp.tl.aggregate_patches(slide, targets={"obs": "kind"}, use_rep=None, min_cells=5, key_added="kinds")
        return f"mean shares {dict(zip(slide['kinds'].var_names, np.nanmean(slide['kinds'].X, axis=0), strict=True))}"

    def of_pandas_3() -> str:
        with pd.option_context("future.infer_string", True):  # noqa: FBT003
            return read_back({"kind": ["a", None, "b"]})

    cells({}).write_h5ad(h5ad := p.new("a.h5ad"))
    lazy = cells({})
    lazy.X = da.from_array(lazy.X)
    nullable = {"n": pd.array([1, None, 2] * 4, "Int64"), "yes": pd.array([True, None, False] * 4, "boolean")}
    when, own = pd.Timestamp("2026-01-01"), {"region": "rim", "cell_id": "x"}
    return [
        manifest("B4 patients P1 and P1 with a no-break space", "sample,patient,bundle\nS1,P1,{0}\nS2,P1\u00a0,{1}\n"),
        manifest("B4 patients P1 and p1", "sample,patient,bundle\nS1,P1,{0}\nS2,p1,{1}\n"),
        manifest("B4 samples S1 and s1", "sample,patient,bundle\nS1,P1,{0}\ns1,P2,{1}\n"),
        manifest("B5 byte order mark and semicolons in a manifest", "\ufeffsample;patient;bundle\nS1;P1;{0}\nS2;P2;{1}\n"),
        gene_sets("B5 byte order mark in a GMT", "bom.gmt", "\ufeffImmune_T\tna\tCD3D\tCD3E\tCD2\n"),
        gene_sets("B5 semicolons, extension in capitals", "sets.CSV", "signature;gene\nImmune_T;CD3D\nImmune_T;CD3E\nImmune_T;CD2\n"),
        gene_sets("B5 a set named twice", "twice.json", '{"T": ["CD3D"], "T": ["CD3E"]}'),
        gene_sets("B5 genes that became dates", "excel.csv", "signature,gene\nT,1-Mar\nT,2-Sep\nT,CD3D\nT,CD3E\nT,CD2\n"),
        Case("B6 a table that names its patient", lambda: placed(cells({"patient": "P7"})).obs["patient"].unique().tolist()),
        Case("B6 a table with region and cell_id of its own", lambda: list(placed(cells(own)).obs), p.importing(lambda: bundle_with({"region": "rim"}))),
        Case("B6 two slides in one AnnData", lambda: placed(cells({"sample": ["S1", "S2", "S2"]}))),
        Case("B7 missing values in text, written", lambda: read_back({"kind": ["a", None, np.nan]}), p.importing(lambda: bundle_with({"kind": ["a", None]}))),
        p.on("B7 missing values in a column that a slide was given, then write", lambda s: s["table"].obs.insert(0, "kind", [None, "a"] * 520),
             lambda s: (sp.io.write(s, p.new("s.zarr")), int(read_zarr(s.path)["table"].obs["kind"].isna().sum()))[1]),
        kinds("B7 missing values in a column, as targets", None),
        kinds("B7 missing values that became 'None', as targets", "None"),
        kinds("B7 missing values that became 'nan', as targets", "nan"),
        Case("B8 nullable text", lambda: read_back({"text": pd.array(["a", None, "b"] * 4, "string")})),
        Case("B8 nullable integers and truth values", lambda: read_back(nullable)),
        Case("B8 categories that hold '/'", lambda: read_back({"kind": pd.Categorical(["T/NK", "B", None] * 4)})),
        column("of datetimes", {"when": when}),
        column("named 'area/um2'", {"area/um2": 1.0}),
        column("named '_index'", {"_index": 1}),
        column("named 'Leiden' beside 'leiden'", {"leiden": "1", "Leiden": "2"}),
        column("named by an integer", {3: 1}),
        p.on("B8 a column of datetimes, then write", lambda s: s["table"].obs.insert(0, "when", when), lambda s: sp.io.write(s, p.new("s.zarr"))),
        Case("B8 counts that are backed", lambda: placed(ad.read_h5ad(h5ad, backed="r")).X.sum()),
        Case("B8 counts that are lazy", lambda: placed(lazy).X.sum()),
        Case("B8 pandas.options.future.infer_string", of_pandas_3),
    ]  # fmt: skip
