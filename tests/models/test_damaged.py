"""Damaged and altered model directories are refused with our error, or load bit for bit; nothing in them is executed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from safetensors.torch import save_file

from spatialsig.errors import InputError
from spatialsig.models.card import CARD
from spatialsig.models.domain import DOMAIN
from spatialsig.models.ensemble import SignatureModel, load_signature_model
from spatialsig.models.record import RUN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import damaged_models as damaged


def test_two_hundred_alterations_are_refused_or_harmless() -> None:
    found = damaged.run(200, seed=1)
    assert found["bad"] == []
    assert found["ends"]["refused"] > 100


@pytest.fixture
def models(tmp_path: Path) -> dict[Path, type]:
    return damaged.make_models(tmp_path)


@pytest.mark.parametrize("kind", ["Autoencoder", "CellHead", "SignatureViT", "PretrainedViT", "SignatureEnsemble"])
def test_the_record_is_covered_by_a_digest_of_its_own(models, kind) -> None:
    place, cls = next((place, cls) for place, cls in models.items() if place.name == f"{kind}-1")
    text = (place / RUN).read_text()
    changed = text.replace('"S1"', '"S2"').replace('"seed": 1', '"seed": 2')
    assert changed != text
    (place / RUN).write_text(changed)
    with pytest.raises(InputError, match=r"run\.json is not what was saved \(its SHA-256 differs"):
        cls.load(place)
    record = json.loads(text)
    del record["sha256"][RUN]  # as early versions wrote it
    (place / RUN).write_text(json.dumps(record))
    assert cls.load(place).run == record["run"]


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip", b"", b"\x80\x04K\x01.", "encrypted"])
def test_a_damaged_scaler_is_named_though_it_was_signed(models, content) -> None:
    place, cls = next(iter(models.items()))
    if content == "encrypted":
        data = bytearray((place / "scaler.npz").read_bytes())
        data[6] |= 1  # the flag of the first member
        data[data.index(b"PK\x01\x02") + 8] |= 1
        content = bytes(data)
    (place / "scaler.npz").write_bytes(content)
    damaged.sign_again(place)
    with pytest.raises(InputError, match=r"scaler\.npz cannot be read as plain arrays"):
        cls.load(place)


def test_weights_that_are_no_numbers_are_refused_though_they_were_signed(models) -> None:
    place, cls = next(iter(models.items()))
    weights = cls.load(place).net.state_dict()
    next(iter(weights.values()))[...] = np.nan
    save_file(weights, place / "weights.safetensors")
    damaged.sign_again(place)
    with pytest.raises(InputError, match="NaN or infinite weights"):
        cls.load(place)


def test_a_folder_in_the_place_of_a_file_is_named(models) -> None:
    for place, cls in models.items():
        for file in sorted(path for path in place.iterdir() if path.is_file() and path.name != CARD):
            kept = file.rename(place.parent / "kept")
            file.mkdir()
            for load in (cls.load, *([load_signature_model] if cls in get_args(SignatureModel) else [])):
                with pytest.raises(InputError, match=rf"{file.name}' is a folder; wanted a file\."):
                    load(place)
            file.rmdir()
            kept.rename(file)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stain_mean", lambda a: a * np.nan),
        ("tissue_axes", lambda a: a[:-1]),
        ("sharpness_variance", lambda a: -a),
        ("stain_rest", lambda _: np.array(np.inf)),
        ("tissue_threshold", lambda _: np.array(0.0)),
        ("n_patches", lambda _: np.array(np.nan)),
    ],
)
def test_a_domain_that_cannot_be_is_refused_though_it_was_signed(models, name, change) -> None:
    place = next(place for place in models if place.name == "SignatureViT-1")
    with np.load(place / DOMAIN) as file:
        arrays = dict(file)
    np.savez(place / DOMAIN, **arrays | {name: change(arrays[name])})
    damaged.sign_again(place)
    with pytest.raises(InputError, match=r"domain\.npz holds no domain of a model"):
        models[place].load(place)
