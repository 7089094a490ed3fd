"""Every function that trains refuses a wrong option, by its name or its value, before a slide is opened."""

from pathlib import Path
from typing import Any

import pytest

import spatialsig as sp
from spatialsig.errors import InputError, OptionError, StoreError

NOWHERE = "no/such/store.zarr"  # whoever opens it raises StoreError
VIT = {"tune": "half", "fusion": "sum", "weights": "area"}
AUTOENCODER = {"panel": "both", "loss": "l1", "n_latent": 0, "denoise": 2.0}


def functions(run_dir: Path) -> dict[str, Any]:
    return {
        "train_vit": lambda **options: sp.tl.train_vit(NOWHERE, **options),
        "train_ensemble": lambda **options: sp.tl.train_ensemble(NOWHERE, run_dir=run_dir, **options),
        "cross_validate": lambda **options: sp.tl.cross_validate(NOWHERE, run_dir=run_dir, **options),
        "cross_validate's autoencoder": lambda **options: sp.tl.cross_validate(
            NOWHERE, run_dir=run_dir, autoencoder=options
        ),
        "train_autoencoder": lambda **options: sp.tl.train_autoencoder(NOWHERE, **options),
        "pretrain_vit": lambda **options: sp.tl.pretrain_vit(NOWHERE, **options),
        "train_probe": lambda **options: sp.tl.train_probe(NOWHERE, "features", head="mlp", **options),
    }


NAMES = list(functions(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_is_answered_with_the_nearest_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"has no option `max_epoch`; did you mean `max_epochs`\?"):
        functions(tmp_path)[name](max_epoch=3)
    with pytest.raises(StoreError, match="does not exist"):
        functions(tmp_path)[name](max_epochs=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize(("option", "value"), VIT.items())
def test_a_wrong_value_of_the_image_model(name: str, option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"`{option}={value!r}` is not known"):
        functions(tmp_path)[name](**{option: value})


@pytest.mark.parametrize("name", NAMES[3:5])
@pytest.mark.parametrize(("option", "value"), AUTOENCODER.items())
def test_a_wrong_value_of_the_autoencoder(name: str, option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=option):
        functions(tmp_path)[name](**{option: value})


@pytest.mark.parametrize("name", ["cross_validate", "cross_validate's autoencoder"])
def test_folds_are_chosen_by_cross_validation_itself(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\['test_fold'\] cannot be given"):
        functions(tmp_path)[name](test_fold=1)


def test_a_typo_of_an_embedding_of_patches_is_answered() -> None:
    with pytest.raises(OptionError, match=r"has no option `key_add`; did you mean"):
        sp.tl.embed_patches(NOWHERE, "registered:ours", key_add="x")
