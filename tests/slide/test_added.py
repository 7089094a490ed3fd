"""A name under which something else stands: every function that adds an element or an entry, beside everything on a slide."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
MODELS: dict[str, object] = {}
ADDS: dict[str, Callable[[sd.SpatialData, str], object]] = {
    "pp.find_tissue": lambda s, key: sp.pp.find_tissue(s, key_added=key),
    "pp.make_patches": lambda s, key: sp.pp.make_patches(s, patch_px=28, um_per_px=2.0, key_added=key),
    "pp.import_patches": lambda s, key: sp.pp.import_patches(s, "patches", key_added=key),
    "tl.aggregate_patches": lambda s, key: sp.tl.aggregate_patches(s, use_rep=None, min_cells=3, key_added=key),
    "tl.predict": lambda s, key: sp.tl.predict(s, MODELS["vit"], key_added=key),
    "tl.embed_patches": lambda s, key: sp.tl.embed_patches(s, MODELS["vit"], key_added=key),
    "tl.attention": lambda s, key: sp.tl.attention(s, MODELS["vit"], patches=[0], n_steps=2, key_added=key),
    "pp.find_nuclei": lambda s, key: sp.pp.find_nuclei(s, key_added=key),
    "tl.predict_cells": lambda s, key: sp.tl.predict_cells(s, MODELS["vit"], key_added=key),
    "tl.signature_map": lambda s, key: sp.tl.signature_map(s, MODELS["vit"], stride_um=56.0, key_added=key),
}
OWN = {
    "pp.find_tissue": {"tissue"}, "pp.make_patches": {"patches"}, "pp.import_patches": {"patches"},
    "tl.aggregate_patches": {"signatures"}, "tl.predict": {"signatures_pred"}, "tl.embed_patches": {"embedding"},
    "tl.attention": {"attention"}, "tl.signature_map": {"signature_map"}, "pp.find_nuclei": {"nuclei"}, "tl.predict_cells": {"cells_pred"},
}  # fmt: skip


@pytest.fixture(scope="module")
def slide() -> sd.SpatialData:
    slide = sp.datasets.toy_study()
    MODELS["vit"] = sp.datasets.toy_model(slide)
    MODELS["ae"] = sp.tl.train_autoencoder(slide, signatures="seed", n_latent=3, hidden=(8,), max_epochs=1)
    sp.pp.find_tissue(slide)
    sp.tl.predict(slide, MODELS["vit"])
    sp.tl.embed_patches(slide, MODELS["vit"])
    sp.tl.attention(slide, MODELS["vit"], patches=[0], n_steps=2)
    sp.tl.signature_map(slide, MODELS["vit"], stride_um=56.0)
    sp.pp.find_nuclei(slide)
    sp.tl.predict_cells(slide, MODELS["vit"])
    sp.pp.normalize(slide)
    return slide


@pytest.mark.parametrize("function", ADDS)
def test_no_function_replaces_what_it_did_not_make(slide: sd.SpatialData, function: str) -> None:
    names = [name for _, name, _ in slide.gen_elements()]
    assert len(names) == 12
    for name in names:
        data = sd.deepcopy(slide)
        before = data[name]
        if name in OWN[function]:
            ADDS[function](data, name)
            continue
        with pytest.raises(InputError, match=f"`key_added='{name}'`: slide 'toy' has .* and it would be lost"):
            ADDS[function](data, name)
        assert data[name] is before


def test_nor_an_entry_of_a_table(slide: sd.SpatialData) -> None:
    functions = {
        "tl.score_cells": (lambda s, key: sp.tl.score_cells(s, "seed", key_added=key), {"signatures"}),
        "tl.embed_cells": (lambda s, key: sp.tl.embed_cells(s, MODELS["ae"], key_added=key), {"X_ae"}),
    }
    sp.tl.embed_cells(slide, MODELS["ae"])
    for add, own in functions.values():
        for key in ("spatial", "patch_membership", "signatures", "X_ae"):
            data = sd.deepcopy(slide)
            if key in own:
                add(data, key)
                continue
            with pytest.raises(InputError, match=f"`key_added='{key}'`.*obsm.*it would be lost"):
                add(data, key)
    data = sd.deepcopy(slide)
    sp.pp.normalize(data)
    data["table"].layers["mine"] = data["table"].X
    with pytest.raises(InputError, match="`layer='mine'`: .*which `sp.pp.normalize` did not make"):
        sp.pp.normalize(data, layer="mine")


def test_a_record_that_leads_to_itself_ends(slide: sd.SpatialData) -> None:
    data = sd.deepcopy(slide)
    recorded = data.attrs["spatialsig"]["lineage"]
    recorded["tissue"]["from"] = dict(recorded["patches"]["from"]) | {"patches": "another"}
    recorded["patches"]["from"] |= {"tissue": "another"}
    found = sp.io.status(data).set_index("part")
    assert found.loc["patches", "state"] == "stale"
