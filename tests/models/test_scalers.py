"""A scaler is known by its hash, and two of them are told apart in words."""

import numpy as np
import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.models import Autoencoder
from spatialsig.models.scalers import check_one_embedding, scaler_differences, scaler_hash
from spatialsig.nn.autoencoder import AutoencoderConfig

GENES = ["A", "B", "C"]
MEAN, STD = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])


def record(genes: list[str], mean: np.ndarray, std: np.ndarray) -> dict:
    return {"genes": genes, "mean": mean, "std": std}


def test_hash_sees_names_order_and_the_last_bit() -> None:
    same = scaler_hash(GENES, MEAN, STD)
    assert same == scaler_hash(tuple(GENES), MEAN.copy(), STD.copy())
    others = [
        scaler_hash(["A", "B", "D"], MEAN, STD),
        scaler_hash(["B", "A", "C"], MEAN, STD),
        scaler_hash(["A", 'B", "C'], MEAN, STD),
        scaler_hash(GENES, np.nextafter(MEAN, 1), STD),
        scaler_hash(GENES, STD, MEAN),
    ]
    assert len({same, *others}) == 6


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (record(GENES, MEAN, STD), []),
        (record(["A", "B", "D"], MEAN, STD), ["1 genes only in the first (C)", "1 genes only in the second (D)"]),
        (record(["B", "A", "C"], MEAN[[1, 0, 2]], STD[[1, 0, 2]]), ["the order of the genes"]),
        (record(GENES, MEAN + np.array([0, 0.5, 0.1]), STD), ["`mean` of 2 genes (most in B: 0.2 and 0.7)"]),
        (record(["D"], MEAN[:1], STD[:1]), ["3 genes only in the first (A, B, C)", "1 genes only in the second (D)"]),
    ],
)
def test_differences_in_words(other: dict, said: list[str]) -> None:
    assert scaler_differences(record(GENES, MEAN, STD), other) == said


def record_of(seed: int = 0, mean: float = 0.0) -> dict:
    torch.manual_seed(seed)
    config = AutoencoderConfig(hidden=(4,), n_latent=2)
    return Autoencoder(config, ["A", "B", "C"], mean=np.full(3, mean), std=np.ones(3)).record()


def test_the_same_model_and_unknown_ones_pass() -> None:
    check_one_embedding({"S1": record_of(), "S2": record_of(), "S3": {"key": "X_pca"}, "S4": {}})


def test_other_weights_and_other_scalers_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"'S1' and 'S3' come from different .* differ in the weights \(genes and sca"):
        check_one_embedding({"S1": record_of(), "S2": {}, "S3": record_of(seed=1)})
    with pytest.raises(InputError, match=r"differ in `mean` of 3 genes \(most in A: 0 and 0.5\). Call `sp.tl.embed_c"):
        check_one_embedding({"S1": record_of(), "S2": record_of(mean=0.5)})
