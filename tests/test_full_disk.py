"""Every file that is written, with too little room for it: a StoreError that names it, and the old content is kept."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from matplotlib.figure import Figure

import spatialsig as sp
from spatialsig import _files
from spatialsig.errors import StoreError
from spatialsig.models import (
    Autoencoder,
    CellHead,
    PretrainedViT,
    SignatureEnsemble,
    SignatureViT,
    export_seed_autoencoder,
)
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViT, vit_config
from spatialsig.pl.drawing.canvas import canvas, save_figure
from spatialsig.report.figures import Figures
from spatialsig.slide.ledger import Ledger
from spatialsig.train.checkpoint_file import write_checkpoint

from .store.conftest import squares, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROOM = (0, 300, 2_000, 20_000)  # bytes that a file may have


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond ``n_bytes``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def autoencoder() -> Autoencoder:
    shape = AutoencoderConfig(hidden=(64,), n_latent=8, linear_path=False)
    return Autoencoder(shape, [f"G{i}" for i in range(200)], mean=np.zeros(200), std=np.ones(200))


def vit(seed: int = 0) -> SignatureViT:
    torch.manual_seed(seed)
    scale = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
    return SignatureViT(SignatureConfig(), ["T cell"], **scale, patch_px=64, um_per_px=0.5, run={"seed": seed})


@pytest.fixture(scope="module")
def scored():
    return sp.datasets.toy_study()


def _geojson(path: Path, scored) -> None:
    sp.io.export_geojson(scored, path, table_key="signatures")


def _heatmap(path: Path, scored) -> None:
    first = scored["signatures"].var_names[0]
    sp.io.export_heatmap(scored, path.with_suffix(".png"), first, table_key="signatures", px_per_patch=40)


def _figure(path: Path, _scored, ending: str = ".png") -> None:
    figure = canvas(None, width_in=3, height_in=3)
    figure.gca().plot(np.random.default_rng(0).random(5000))
    save_figure(figure, path.with_suffix(ending))


def _report_figure(path: Path, _scored) -> None:
    figure = Figure(figsize=(3, 3))
    figure.gca().plot(np.random.default_rng(0).random(5000))
    Figures(path).drawing(figure, name="old", alt="a line")


WRITERS: dict[str, Callable[..., None]] = {
    "autoencoder": lambda path, _: autoencoder().save(path, overwrite=True),
    "vit": lambda path, _: vit().save(path, overwrite=True),
    "ensemble": lambda path, _: SignatureEnsemble([vit(0), vit(1)]).save(path, overwrite=True),
    "head": lambda path, _: CellHead(["A"], feature_mean=np.zeros(9), feature_std=np.ones(9), model_sha256="0").save(
        path, overwrite=True
    ),
    "pretrained": lambda path, _: PretrainedViT(ViT(vit_config("tiny")), patch_px=224, um_per_px=0.5).save(
        path, overwrite=True
    ),
    "prototype": lambda path, _: export_seed_autoencoder(autoencoder(), path),
    "prototype's layout": lambda path, scored: sp.io.export_seed_layout(scored, path, use_rep=None, images=True),
    "csv": lambda path, _: _files.write_csv(path, pd.DataFrame({"a": np.arange(9000)})),
    "geojson": _geojson,
    "heatmap": _heatmap,
    "figure": _figure,
    "figure as pdf": partial(_figure, ending=".pdf"),
    "figure as svg": partial(_figure, ending=".svg"),
    "figure of a report": _report_figure,
    "ledger": lambda path, _: Ledger(path).note("part", "hash", text="x" * 30_000),
    "checkpoint": lambda path, _: write_checkpoint(path, {"weights": torch.zeros(9000)}),
    "store": lambda path, scored: sp.io.write(scored, path, overwrite=True),
}


IN_PLACE = {"prototype", "prototype's layout"}  # of several files, each whole


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("kind", WRITERS)
def test_too_little_room_is_a_store_error_and_the_old_one_survives(tmp_path: Path, scored, kind: str) -> None:
    write = WRITERS[kind]
    old = tmp_path / ("old.geojson" if kind == "geojson" else "old")
    write(old, scored)
    scored.path = None
    before = contents(tmp_path)
    refused = 0
    for n_bytes in ROOM:
        with room_for(n_bytes):
            try:
                write(old, scored)
            except StoreError as error:
                message = str(error)
            else:
                continue
        refused += 1
        assert "old" in message, message
        assert "Free some space" in message
        if kind not in IN_PLACE:
            assert contents(tmp_path) == before
    assert refused >= 2
    write(old, scored)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind.startswith("figure")])
def test_too_little_room_leaves_nothing_where_nothing_was(tmp_path: Path, scored, kind: str) -> None:
    with room_for(2_000), pytest.raises(StoreError, match="Free some space"):
        WRITERS[kind](tmp_path / "new", scored)
    assert contents(tmp_path) == {}


def looks(sdata: sd.SpatialData) -> dict[str, object]:
    """What an object holds, down to the attributes of its elements."""
    found: dict[str, object] = {"attrs": repr(sdata.attrs), "path": sdata.path}
    for kind, name, element in sdata.gen_elements():
        frames = [element.obs, element.var] if kind == "tables" else []
        columns = [(column, str(dtype)) for frame in frames for column, dtype in frame.dtypes.items()]
        notes = repr(element.uns) if kind == "tables" else repr(getattr(element, "attrs", None))
        found[f"{kind}/{name}"] = (type(element), notes, columns, repr(getattr(element, "dtypes", "")))
    return found


@pytest.mark.parametrize("n_bytes", [0, 600, 2_000, 5_000, 20_000])
def test_an_object_is_what_it_was_after_a_write_that_failed(tmp_path: Path, n_bytes: int) -> None:
    sdata = whole()
    del sdata.shapes["squares"]
    sdata["squares"] = squares(5000)  # the largest file of all, so that there is room for others
    sdata["table"].obs["note"] = ["a", "b", "c", "d"]
    before = looks(sdata)
    with room_for(n_bytes), pytest.raises(StoreError, match="Free some space"):
        sp.io.write(sdata, tmp_path / "a.zarr")
    assert looks(sdata) == before
    assert list(tmp_path.iterdir()) == []
    sp.io.write(sdata, tmp_path / "a.zarr")
    assert set(sp.io.verify(tmp_path / "a.zarr")["status"]) == {"ok"}


@pytest.mark.parametrize("n_bytes", [0, 300, 20_000])
def test_slides_that_did_not_fit_are_made_by_the_same_call(tmp_path: Path, n_bytes: int) -> None:
    make = partial(sp.datasets.synthetic_xenium, tmp_path / "b", n_slides=1, size_um=100, transcripts=False)
    with room_for(n_bytes), pytest.raises(StoreError, match=r"b' cannot be written: .*Free some space"):
        make()
    assert list((tmp_path / "b").iterdir()) == []
    made = make()
    assert sp.io.read_xenium(made["bundle"][0])["table"].n_obs > 0
