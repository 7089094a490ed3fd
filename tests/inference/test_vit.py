"""Options of a run are sorted and checked by name before a slide is opened."""

from dataclasses import fields

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, OptionError, SpatialsigWarning, StoreError
from spatialsig.inference import vit
from spatialsig.inference.vit import FIT_OPTIONS, VitOptions, default_batch_size, train_signature_vit


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("max_epoch", "max_epochs"),
        ("batchsize", "batch_size"),
        ("learning_rat", "learning_rate"),
        ("use_reps", "use_rep"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(typo: str, nearest: str) -> None:
    with pytest.raises(OptionError, match=rf"`train_vit` has no option `{typo}`; did you mean `{nearest}`\?"):
        VitOptions.of(**{typo: 1})


def test_a_name_like_none_is_answered_with_all_of_them() -> None:
    with pytest.raises(OptionError, match=r"no option `zzz`; it takes \[.*'max_epochs'.*'use_rep'"):
        VitOptions.of(zzz=1)
    with pytest.raises(TypeError):  # as Python itself answers
        VitOptions.of(zzz=1)


def test_a_typo_is_refused_before_a_slide_is_opened() -> None:
    with pytest.raises(OptionError, match="did you mean `max_epochs`"):
        sp.tl.train_vit("no/such/store.zarr", max_epoch=3)
    with pytest.raises(StoreError, match="does not exist"):
        sp.tl.train_vit("no/such/store.zarr", max_epochs=3)


def test_other_mistakes_are_refused_before_a_slide_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "gather_training_set", lambda *_: pytest.fail("a slide was opened"))
    for options, message in (
        ({"tune": "some"}, "`tune='some'` is not known"),
        ({"tune": "frozen"}, "`tune='frozen'` needs a network that was trained before"),
        ({"weights": "area"}, "`weights='area'` is not known"),
        ({"validation_fold": 1, "inner_fold": 0}, "give it with one alone"),
        ({"backbone": "nowhere:x"}, "backbone 'nowhere:x' is not known"),
    ):
        with pytest.raises(InputError, match=message):
            train_signature_vit("unused", VitOptions.of(**options))


def test_frozen_networks_see_no_augmented_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "gather_training_set", lambda *_: pytest.fail("a slide was opened"))

    def network(x: object) -> object:
        return x.mean(dim=(2, 3))  # type: ignore[attr-defined]

    options = VitOptions.of(backbone=network, tune="frozen", augment=sp.AugmentConfig())
    with pytest.raises(InputError, match="computes the features of every patch once; leave `augment` out"):
        train_signature_vit("unused", options)


def test_options_are_sorted_into_run_and_fit() -> None:
    options = VitOptions.of(test_fold=2, use_rep=None, max_epochs=5, loss="huber")
    assert (options.test_fold, options.use_rep, options.seed) == (2, None, 0)
    assert options.fit == {"max_epochs": 5, "loss": "huber"}
    names = {f.name for f in fields(VitOptions)}
    assert not names & set(FIT_OPTIONS)
    assert {"max_epochs", "learning_rate", "run_dir", "trainer"} <= set(FIT_OPTIONS)
    assert not {"signatures", "um_per_px", "validation"} & set(FIT_OPTIONS)  # what a run decides itself


def test_tables_are_those_of_the_labels_unless_named() -> None:
    tables = VitOptions.of(signatures_key="scores").tables
    assert (tables.targets_key, tables.backbone, tables.weights) == ("scores", "vit", "n_cells")
    assert VitOptions.of(signatures_key="scores", targets_key="genes").tables.targets_key == "genes"
    assert VitOptions.of(backbone="table:uni").tables.backbone == "table:uni"
    assert VitOptions.of(backbone="timm:resnet18").tables.backbone == "vit"  # pixels are read


def test_batches_are_powers_of_two_that_make_300_steps() -> None:
    n_patches = np.concatenate([np.arange(1, 9000, 37), [10**6]])
    sizes = np.array([default_batch_size(int(n)) for n in n_patches])
    expected = [max([b for b in (8, 16, 32, 64, 128) if n // b >= 300], default=8) for n in n_patches]
    np.testing.assert_array_equal(sizes, expected)


def test_embeddings_that_hold_the_answer_are_warned_of(
    patched: sd.SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = patched["signatures"]
    table.obsm["X_ae"] = np.ones((table.n_obs, 2), np.float32)
    genes = table.uns["spatialsig"]["score_cells"]["genes"]
    table.uns["spatialsig"]["embed_cells"] = {"key": "X_ae", "genes": list(genes)}
    monkeypatch.setattr(vit, "fit_tuned", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(
        SpatialsigWarning, match=r"slide 'toy': the embedding 'X_ae' was made from \d+ genes of the signatures"
    ):
        train_signature_vit(patched, VitOptions.of())
