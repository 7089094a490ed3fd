"""A store read from another machine is what the same store is on this one; what goes wrong names the address and the fix."""

from __future__ import annotations

import builtins
import json
import pickle
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any

import anndata as ad
import dask
import fsspec
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from dask.array import Array as DaskArray
from scipy import sparse
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import get_transformation
from tests.served import Served, served
from tests.store.conftest import TO_GLOBAL, image, labels, picture, points, squares, table

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning, StoreError
from spatialsig.store.layout import levels_of
from spatialsig.store.remote.places import Place, _connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def slide() -> sd.SpatialData:
    """One element of every kind that is read, in every form: levels or none, one chunk or several, a table alone."""
    with_places = table()
    with_places.obsm["places"] = np.arange(8.0).reshape(4, 2)
    alone = ad.AnnData(np.arange(6, dtype=np.float32).reshape(3, 2), obsm={"places": np.zeros((3, 2))})
    cells = np.arange(300 * 280, dtype=np.int32).reshape(300, 280)
    return sd.SpatialData(
        images={
            "he": image(600, 500, scale_factors=[2, 2]),
            "flat": image(90, 70),
            "dapi": Image2DModel.parse(
                picture(40, 50)[..., :1].astype(np.uint16).transpose(2, 0, 1), c_coords=["dapi"]
            ),
        },
        labels={
            "cells": labels(),
            "levels": Labels2DModel.parse(cells, dims=("y", "x"), scale_factors=[2], transformations={"a": TO_GLOBAL}),
        },
        shapes={"squares": squares()},
        tables={"table": with_places, "alone": TableModel.parse(alone)},
        attrs={"spatialsig": {"sample": "S1"}, "of others": [1, 2]},
    )


@pytest.fixture(scope="module", params=["ours", "theirs"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remote") / "s.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp.settings, "progress", False)
        if request.param == "ours":
            sp.io.write(slide(), path)
        else:
            slide().write(path)
    return path


@pytest.fixture
def server(local: Path, tmp_path: Path) -> Iterator[Served]:
    shutil.copytree(local, tmp_path / "s.zarr")
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def in_memory(local: Path) -> Iterator[str]:
    """The store in an object store of fsspec."""
    files = fsspec.filesystem("memory")
    files.put(str(local), "/bucket/s.zarr", recursive=True)
    yield "memory://bucket/s.zarr"
    files.rm("/bucket", recursive=True)


def same(remote: sd.SpatialData, local: sd.SpatialData) -> None:
    assert {key for _, key, _ in remote.gen_elements()} == {key for _, key, _ in local.gen_elements()}
    assert remote.attrs == local.attrs
    for kind, key, element in local.gen_elements():
        other = remote[key]
        assert type(other) is type(element)
        if kind == "tables":
            same_table(other, element)
            continue
        assert get_transformation(other, get_all=True) == get_transformation(element, get_all=True)
        if kind == "shapes":
            assert other.dtypes.equals(element.dtypes)
            assert other.equals(element)
            assert other.attrs.keys() == element.attrs.keys()
        for ours, theirs in zip(levels_of(other), levels_of(element), strict=True):
            assert isinstance(ours.data, DaskArray)
            assert (ours.dtype, ours.data.dtype, ours.data._meta.dtype) == (theirs.dtype,) * 3
            assert (ours.name, ours.attrs.keys()) == (theirs.name, theirs.attrs.keys())
            assert get_transformation(ours, get_all=True) == get_transformation(theirs, get_all=True)
            assert ours.drop_attrs().identical(theirs.drop_attrs())  # pixels, axes and coordinates


def same_table(remote: ad.AnnData, local: ad.AnnData) -> None:
    assert remote.uns == local.uns
    pd.testing.assert_frame_equal(remote.obs, local.obs)
    pd.testing.assert_frame_equal(remote.var, local.var)
    assert (type(remote.X), remote.X.dtype) == (type(local.X), local.X.dtype)
    np.testing.assert_array_equal(*(x.toarray() if sparse.issparse(x) else x for x in (remote.X, local.X)))
    assert (list(remote.obsm), list(remote.layers)) == (list(local.obsm), list(local.layers))
    np.testing.assert_array_equal(remote.obsm["places"], local.obsm["places"])


def test_an_address_gives_what_the_path_gives(local: Path, server: Served, in_memory: str) -> None:
    for address in (f"{server.address}/s.zarr", f"{server.address}/s.zarr/", in_memory):
        sdata = sp.io.read(address)
        assert sdata.path is None
        same(sdata, sp.io.read(local))


def test_pixels_are_fetched_when_they_are_asked_for_and_once_per_computation(server: Served) -> None:
    sdata = sp.io.read(f"{server.address}/s.zarr")
    assert not [file for file in server.asked if "/c/" in file and ("/images/" in file or "/labels/" in file)]
    assert len(server.asked) == len(set(server.asked)) + 1  # the root again, to see whether it was changed
    server.asked.clear()
    pixels = levels_of(sdata.images["he"])[0].data
    windows = [pixels[:, y : y + 40, x : x + 40] for y in range(0, 200, 20) for x in range(0, 200, 20)]
    dask.compute(*windows)  # type: ignore[no-untyped-call]
    assert len(server.asked) == len(set(server.asked))
    assert len(server.asked) <= np.prod([-(-240 // step) for step in pixels.chunksize[1:]])


def test_the_object_can_be_sent_to_another_process(server: Served) -> None:
    pixels = levels_of(sp.io.read(f"{server.address}/s.zarr").images["he"])[0].data
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pixels)).compute(), pixels.compute())


def test_points_are_named_as_not_read(tmp_path: Path) -> None:
    sd.SpatialData(points={"dots": points()}, shapes={"squares": squares()}).write(tmp_path / "s.zarr")
    with (
        served(tmp_path) as server,
        pytest.warns(SpatialsigWarning, match=r"points/dots.*are not read: points of an address"),
    ):
        assert not sp.io.read(f"{server.address}/s.zarr").points


def test_what_is_not_there_or_does_not_answer_is_named(server: Served, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"no store at 'http://127.*/nothing\.zarr', which has no zarr\.json"):
        sp.io.read(f"{server.address}/nothing.zarr")
    with pytest.raises(FileMissingError, match="no store at 'memory://nowhere'"):
        sp.io.read("memory://nowhere")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        StoreError, match=rf"'http://\*\*\*@127\.0\.0\.1:{port}/s\.zarr.* cannot be read: .*Check the address"
    ):
        sp.io.read(f"http://me:secret@127.0.0.1:{port}/s.zarr")
    for status, what in ((500, "ClientResponseError: 500"), (403, "access is refused|ClientResponseError: 403")):
        server.answers["zarr.json"] = status
        with pytest.raises(StoreError, match=what):
            sp.io.read(f"{server.address}/s.zarr")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<html>", "its zarr.json is no JSON"),
        ("[1]", "no SpatialData store"),
        ('{"zarr_format": 3, "node_type": "group", "attributes": {}}', "'spatialdata_attrs' is missing"),
        (
            '{"attributes": {"spatialdata_attrs": {"version": "0.2"}}}',
            "no copy of its metadata in its root.*sp.io.repair",
        ),
        (
            '{"attributes": {"spatialdata_attrs": {}}, "consolidated_metadata": {"metadata": {"tables/../../x": {}}}}',
            r"names? a part 'tables/\.\./\.\./x'",
        ),
        ('{"attributes": {"spatialdata_attrs": {}}, "consolidated_metadata": {"metadata": {"/x": {}}}}', "a part '/x'"),
    ],
)
def test_what_is_no_store_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text(text)
    with served(tmp_path) as server, pytest.raises(StoreError, match=what) as caught:
        sp.io.read(f"{server.address}/s.zarr")
    assert server.address in str(caught.value)


def test_a_store_that_was_changed_while_it_was_read_is_not_half_old_and_half_new(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Place.fetch

    def changing(self: Place, file: str) -> bytes | None:
        if file.endswith("shapes.parquet"):
            root = tmp_path / "s.zarr" / "zarr.json"
            root.write_text(json.dumps(json.loads(root.read_text()) | {"changed": True}))
        return fetch(self, file)

    monkeypatch.setattr(Place, "fetch", changing)
    with pytest.raises(StoreError, match="was changed while it was read; read it again"):
        sp.io.read(f"{server.address}/s.zarr")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    "part", ["tables/table/obs/patch_id/c/0", "shapes/squares/shapes.parquet", "images/he/*0/c/0/0/0"]
)
def test_a_damaged_file_is_named(server: Served, local: Path, tmp_path: Path, how: str, part: str) -> None:
    (file,) = (tmp_path / "s.zarr").glob(part)
    DAMAGE[how](file)
    listed = (tmp_path / "s.zarr/images/he/.spatialsig-manifest").exists()
    if how == "gone" and not listed and not part.startswith("shapes"):
        if part.startswith("images"):  # as Zarr means it, and said
            with pytest.warns(SpatialsigWarning, match="has no file for chunk"):
                assert not levels_of(sp.io.read(f"{server.address}/s.zarr").images["he"])[0][:, 0, 0].to_numpy().any()
        return
    with pytest.raises(StoreError, match=r"http://127.*(again|cannot be read)") as caught:
        levels_of(sp.io.read(f"{server.address}/s.zarr").images["he"])[0].to_numpy()
    named = str(file.relative_to(tmp_path)) if listed or how == "gone" or part.startswith("images") else "s.zarr"
    assert named in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


PACKAGES = {
    "https://h/x": ("aiohttp", r"pip install 'spatialsig\[remote\]'"),
    "s3://b/x": ("s3fs", r"pip install 'spatialsig\[remote\]'"),
    "gs://b/x": ("gcsfs", "pip install gcsfs"),
    "az://b/x": ("adlfs", "install what fsspec needs for az://"),
}


@pytest.mark.parametrize("address", PACKAGES)
def test_a_package_that_is_missing_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, fix = PACKAGES[address]
    importing = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    for scheme in ("http", "https", "s3"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    for module in ("fsspec.implementations.http", package):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    _connected.cache_clear()
    with pytest.raises(StoreError, match=f"'{address}.*not installed.*: {fix}"):
        sp.io.read(address)


def test_addresses_that_nothing_knows_and_options_of_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"'nix://b/x' cannot be read: fsspec knows no nix://"):
        sp.io.read("nix://b/x")
    with pytest.raises(InputError, match=r"'https://h/x\.zarr\?key=1' holds a '\?' or a '#'.*storage_options"):
        sp.io.read("https://h/x.zarr?key=1")
    with pytest.raises(InputError, match="`storage_options` are for addresses such as s3://"):
        sp.io.read(tmp_path, storage_options={"anon": True})


def test_storage_options_reach_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def refused(address: str, **options: Any) -> None:
        given.update(options, address=address)
        raise PermissionError("Access Denied")

    monkeypatch.setattr(fsspec, "url_to_fs", refused)
    _connected.cache_clear()
    with pytest.raises(StoreError, match=r"'s3://b/x' cannot be read: access is refused .*Access Denied.*'anon': True"):
        sp.io.read("s3://b/x", storage_options={"anon": True, "client_kwargs": {"endpoint_url": "http://h"}})
    assert given == {"anon": True, "client_kwargs": {"endpoint_url": "http://h"}, "address": "s3://b/x"}


def test_storage_options_that_a_backend_does_not_take_are_blamed(tmp_path: Path) -> None:
    with served(tmp_path) as server, pytest.raises(StoreError, match=r"nonsense.*`storage_options` are \['nonsense'\]"):
        sp.io.read(f"{server.address}/x.zarr", storage_options={"nonsense": 1})
