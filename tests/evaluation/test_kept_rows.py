"""What an evaluation keeps of the pixels: used again only where it is whole and of the same data, model and seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialsig as sp
from spatialsig.errors import SpatialsigError
from spatialsig.evaluation import rows


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    slide = sp.datasets.toy_study()
    return {"slide": slide, "model": sp.datasets.toy_model(slide)}


def damaged(file: Path, how: str) -> None:
    kept = dict(np.load(file))
    if how == "other array":
        np.save(file.open("wb"), np.zeros(3))
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:500])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        del kept["features/hand"]
        np.savez(file.open("wb"), **kept)


@pytest.mark.parametrize("how", ["whole", "other array", "cut", "empty", "a feature is missing", "another seed"])
def test_only_what_is_whole_and_of_the_same_is_used_again(
    study: dict[str, Any], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sp.tl.evaluate(study["slide"], study["model"], run_dir=tmp_path)
    if how not in ("whole", "another seed"):
        damaged(tmp_path / "toy.npz", how)
    looked = []
    look = rows._look
    monkeypatch.setattr(rows, "_look", lambda *args: looked.append(1) or look(*args))
    again = sp.tl.evaluate(study["slide"], study["model"], run_dir=tmp_path, seed=int(how == "another seed"))
    assert len(looked) == (how != "whole")
    if how != "another seed":
        pd.testing.assert_frame_equal(first, again)


def test_a_place_that_is_a_file_is_refused_before_a_pixel_is_read(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(rows, "_look", lambda *_: pytest.fail("pixels were read"))
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SpatialsigError, match="file"):
            sp.tl.evaluate(study["slide"], study["model"], run_dir=place)


def test_features_are_skipped_only_where_the_network_is_known(study: dict[str, Any]) -> None:
    slide = study["slide"]
    for factor in (1.0, 7.0):
        sp.tl.embed_patches(slide, lambda x, k=factor: x.mean((2, 3)) * k, um_per_px=2.0, skip_done=True)
    once = np.asarray(slide["embedding"].X).copy()
    sp.tl.embed_patches(slide, lambda x: x.mean((2, 3)) * 7.0, um_per_px=2.0)
    np.testing.assert_array_equal(once, slide["embedding"].X)
