"""Our models where LazySlide expects its own: the loop of its ``tile_prediction``, written down here, gets what ours gives."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from spatialsig.errors import InputError
from spatialsig.models import LazySlideModel, SignatureEnsemble
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.evaluating import evaluating

from .test_ensemble import PX, member


@runtime_checkable
class TilePrediction(Protocol):
    """What lazyslide-models 0.1 asks of a model of tiles."""

    model: Any
    name: str

    def get_transform(self) -> Any: ...
    def to(self, device: Any) -> Any: ...
    def try_compile(self, **options: Any) -> Any: ...
    def predict(self, image: Any, *args: Any, **kwargs: Any) -> dict[str, Any]: ...


class Tiles(torch.utils.data.Dataset):
    """Tiles as wsidata reads them: ``(h, w, 3)`` uint8, changed by the transform."""

    def __init__(self, tiles: np.ndarray, transform: Any) -> None:
        self.tiles, self.transform = tiles, transform

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.transform(self.tiles[index]), "x": index}


def tile_prediction(model: TilePrediction, tiles: np.ndarray) -> pd.DataFrame:
    """As LazySlide 0.13 does it."""
    model.to(device="cpu")
    model.try_compile()
    parts = []
    with torch.inference_mode():
        for batch in DataLoader(Tiles(tiles, model.get_transform()), batch_size=4):
            parts.append(pd.DataFrame(model.predict(batch["image"].to("cpu"))))
    return pd.concat(parts).reset_index(drop=True)


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, PX, PX, 3), dtype=np.uint8)


def test_columns_are_the_scores_of_our_own_call(tiles: np.ndarray) -> None:
    model = member(0)
    wrapped = LazySlideModel(model)
    assert isinstance(wrapped, TilePrediction)
    assert isinstance(wrapped.model, torch.nn.Module)
    found = tile_prediction(wrapped, tiles)
    assert list(found) == list(wrapped.columns) == ["A", "B"]
    np.testing.assert_allclose(found.to_numpy(), model.predict(np.moveaxis(tiles, -1, 1)), rtol=1e-5)
    features = wrapped.encode_image(np.moveaxis(tiles, -1, 1))
    with evaluating(model.net), torch.inference_mode():
        np.testing.assert_allclose(
            features @ model.net.linear.weight.numpy().T, _linear(model, tiles), rtol=1e-3, atol=1e-4
        )


def _linear(model: SignatureViT, tiles: np.ndarray) -> np.ndarray:
    read = model.net.whiten(model.net.backbone(torch.from_numpy(np.ascontiguousarray(np.moveaxis(tiles, -1, 1)))))
    return (read @ model.net.linear.weight.T).numpy()


def test_an_ensemble_gives_its_deviation_too(tiles: np.ndarray) -> None:
    ensemble = SignatureEnsemble([member(0), member(1)])
    found = tile_prediction(LazySlideModel(ensemble), tiles)
    mean, std = ensemble.predict_distribution(np.moveaxis(tiles, -1, 1))
    assert list(found) == ["A", "B", "A std", "B std"]
    np.testing.assert_allclose(found.to_numpy(), np.concatenate([mean, std], axis=1), rtol=1e-4, atol=1e-6)


def test_what_lazyslide_cannot_give_is_refused(tiles: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"normalised stain \(macenko\), and LazySlide gives the colours of the scan"):
        LazySlideModel(member(0, inputs={"image": {"stain": "macenko"}}))
    with pytest.raises(InputError, match="wanted uint8 as they are read"):
        LazySlideModel(member(0)).predict(torch.zeros(1, 3, PX, PX))
    with pytest.raises(InputError, match=rf"wanted \(n, 3, {PX}, {PX}\) uint8"):
        LazySlideModel(member(0)).predict(np.zeros((1, 3, 2 * PX, 2 * PX), np.uint8))
