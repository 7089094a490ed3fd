"""Embeddings of different models are not put together."""

import numpy as np
import pytest

from spatialsig.errors import InputError
from spatialsig.labels.embeddings import check_one_embedding
from spatialsig.models import Autoencoder
from spatialsig.nn.autoencoder import AutoencoderConfig


def record(seed: int = 0, mean: float = 0.0) -> dict:
    import torch

    torch.manual_seed(seed)
    config = AutoencoderConfig(hidden=(4,), n_latent=2)
    return Autoencoder(config, ["A", "B", "C"], mean=np.full(3, mean), std=np.ones(3)).record()


def test_the_same_model_and_unknown_ones_pass() -> None:
    check_one_embedding({"S1": record(), "S2": record(), "S3": {"key": "X_pca"}, "S4": {}})


def test_other_weights_and_other_scalers_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"'S1' and 'S3' come from different .* differ in the weights \(genes and sca"):
        check_one_embedding({"S1": record(), "S2": {}, "S3": record(seed=1)})
    with pytest.raises(InputError, match=r"differ in `mean` of 3 genes \(most in A: 0 and 0.5\). Call `sp.tl.embed_c"):
        check_one_embedding({"S1": record(), "S2": record(mean=0.5)})
