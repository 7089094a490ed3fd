"""Heads on the features of a network that stays as it is: a ridge regression, or a small network.

Floor 5, above slide. Used by tl/_probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import numpy as np
import torch

from spatialsig._arguments import Count, Positive, checked_class
from spatialsig._checks import check_options
from spatialsig.data.features import FeatureSource
from spatialsig.errors import InputError
from spatialsig.inference.linear_probe import (
    PENALTIES,
    Components,
    LinearProbe,
    choose_linear_probe,
    chosen_settings,
    fit_linear_probe,
    principal_components,
)
from spatialsig.inference.stacking import folds_to_hold_out
from spatialsig.inference.training_set import batches
from spatialsig.inference.tuning import FULL, put_in_front, reader_of
from spatialsig.inference.vit import FIT_OPTIONS, VitOptions, fit_by_descent, train_signature_vit
from spatialsig.nn.signature import SignatureNet
from spatialsig.train.loop import reproducible
from spatialsig.train.recipe import Recipe, model_around, new_network

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.inference.training_set import LabelledPatches, TrainingSet
    from spatialsig.inference.tuning import Tuning
    from spatialsig.models import SignatureViT
    from spatialsig.nn.external import TableBackbone
    from spatialsig.slide.slides import Data

Head: TypeAlias = Literal["ridge", "mlp"]
RIDGE: Final = "ridge"
MLP: Final = "mlp"
AUTO: Final = "auto"
SIZES = (32, 64, 128, 256, 512)  # numbers of components that "auto" compares, and all of them
FLOOR = 1e-6  # share of the largest variance below which a component is noise of rounding
CHOSEN_FROM, PROBE = "chosen_from", "probe"  # in the run of a model
_COMPONENTS = "(components)"  # in place of the key of a table, while a head learns from the components of its features


@checked_class
@dataclass(frozen=True)
class ProbeOptions:
    """Arguments of :func:`spatialsig.tl.train_probe`, which describes them, beside those of :class:`VitOptions`."""

    head: Head = RIDGE
    n_components: Count | Literal["auto"] | None = 256
    penalty: Positive | Literal["auto"] = AUTO

    def check(self, fit_options: dict[str, Any]) -> None:
        """Refuse options of the other head."""
        check_options(fit_options, (*FIT_OPTIONS, "batch_size"), function="train_probe")
        if self.head == RIDGE and fit_options:
            msg = f"`{next(iter(fit_options))}` belongs to the training of `head='mlp'`; a ridge regression is solved. Leave it out."
            raise InputError(msg)
        if self.head == MLP and (self.penalty != AUTO or self.n_components == AUTO):
            name, value = ("penalty", self.penalty) if self.penalty != AUTO else ("n_components", self.n_components)
            msg = f"`{name}={value!r}` is chosen or used by `head='ridge'`; for `head='mlp'` leave it out, or give a number of components."
            raise InputError(msg)


def train_signature_probe(data: Data, options: VitOptions, probe: ProbeOptions) -> SignatureViT:
    """Train a head on features; all options are checked before the first slide is opened."""
    fit = {RIDGE: _fit_ridge, MLP: _fit_mlp}[probe.head]
    return train_signature_vit(data, options, fit=partial(fit, probe=probe))


def _fit_ridge(
    tuning: Tuning, training_set: TrainingSet, options: VitOptions, *, probe: ProbeOptions
) -> tuple[SignatureViT, None]:
    train = training_set.train
    reader = cast("TableBackbone", reader_of(tuning, train))  # nothing else is asked for
    with reproducible(options.seed):
        every = batches(train, batch_size=1, seed=options.seed, shuffle=False)
        network = new_network(every, len(training_set.names), options.size, reader, "none", 0.0, Recipe())
        model = model_around(network, every, training_set.names, um_per_px=training_set.spec.um_per_px, run={})
    features, weights = _features(train), every.weight.astype(np.float64)
    targets = (np.concatenate([p.targets for p in train]) - model.target_mean) / model.target_std
    sizes, penalties, table = _settings(features, targets, weights, training_set, probe)
    found = fit_linear_probe(features, targets, weights, n_components=sizes, penalties=penalties)
    _hold(network, found, float(np.median(penalties)))
    model.run[PROBE] = {
        "head": RIDGE,
        "folds": "patients" if len({p.patient for p in train}) > 1 else "blocks of neighbouring patches",
        "n_components": dict(zip(training_set.names, sizes, strict=True)),
        "penalty": dict(zip(training_set.names, penalties, strict=True)),
    }
    if table is not None:
        model.run[CHOSEN_FROM] = table.to_dict("list")
    if tuning.table is None and tuning.network is not None:
        put_in_front(model, tuning.network)
    return model, None


def _settings(
    features: NDArray[np.float32],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
    training_set: TrainingSet,
    probe: ProbeOptions,
) -> tuple[list[int], list[float], pd.DataFrame | None]:
    """Components and penalty of every target, and the table that they were chosen from; None where all were given."""
    most, n_targets = min(features.shape[1], len(features) - 1), targets.shape[1]
    asked = probe.n_components
    counts = [k for k in SIZES if k < most] if asked == AUTO else []
    counts.append(min(asked, most) if isinstance(asked, int) else most)
    if probe.penalty != AUTO and len(counts) == 1:
        return counts * n_targets, [float(probe.penalty)] * n_targets, None
    penalties = PENALTIES if probe.penalty == AUTO else (float(probe.penalty),)
    names, folds = training_set.names, folds_to_hold_out(training_set.train)
    table = choose_linear_probe(
        features, targets, weights, folds, names=names, n_components=counts, penalties=penalties
    )
    return *chosen_settings(table, names), table


@torch.no_grad()
def _hold(network: SignatureNet, probe: LinearProbe, penalty: float) -> None:
    """Put a ridge regression into the linear path of a network, and nothing into its other head.

    Directions that the ridge does not trust stay small: what the head reads is also what later slides are compared by.
    """
    axes, spread = _directions(probe.components, penalty)
    _whiten(network, probe.components.mean, axes)
    network.linear.weight.zero_()
    network.linear.weight[:, : axes.shape[1]] = torch.from_numpy((probe.coefficients * spread[:, None]).T)
    network.linear.bias.copy_(torch.from_numpy(probe.offset))
    for parameter in network.head[-1].parameters():
        parameter.zero_()


def _directions(components: Components, floor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axes in the space of features ``(d, k)``, and by what each was divided, ``(k,)``."""
    spread = np.sqrt(components.variance + floor)
    return components.axes / components.scale[:, None] / spread, spread


def _whiten(network: SignatureNet, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> None:
    """Let the heads of a network read features along ``axes`` ``(d, k)``, and zeros in the other places."""
    matrix = np.zeros((len(axes), len(axes)))
    matrix[:, : axes.shape[1]] = axes
    network.whiten.set(torch.from_numpy(mean), torch.from_numpy(matrix))


def _fit_mlp(
    tuning: Tuning, training_set: TrainingSet, options: VitOptions, *, probe: ProbeOptions
) -> tuple[SignatureViT, pd.DataFrame]:
    """Train the head of a network on the principal components, and give the network the features they are of."""
    train = training_set.train
    reader = cast("TableBackbone", reader_of(tuning, train))  # nothing else is asked for
    features = _features(train)
    asked = probe.n_components if isinstance(probe.n_components, int) else features.shape[1]
    weights = np.concatenate([p.weights for p in train]).astype(np.float64)
    components = principal_components(features, weights, asked)
    axes, _ = _directions(components, FLOOR * float(components.variance[0]))
    seen = [replace(p, source=_reduced(p.source, components.mean, axes)) for p in train]  # type: ignore[arg-type]
    of_components = replace(tuning, network=None, table=_COMPONENTS, tune=FULL)
    model, history = fit_by_descent(of_components, replace(training_set, train=seen, held_out=[]), options)
    _widen(model, reader, components.mean, axes)
    model.run[PROBE] = {"head": MLP, "n_components": axes.shape[1]}
    if tuning.table is None and tuning.network is not None:
        put_in_front(model, tuning.network)
    return model, history


def _features(train: list[LabelledPatches]) -> NDArray[np.float32]:
    return np.concatenate([p.source.features for p in train if isinstance(p.source, FeatureSource)])


def _reduced(source: FeatureSource, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> FeatureSource:
    return replace(source, features=((source.features - mean) @ axes).astype(np.float32))


@torch.no_grad()
def _widen(model: SignatureViT, reader: TableBackbone, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> None:
    """Make of a network that reads ``(features - mean) @ axes`` one that reads the features."""
    small, k = cast("SignatureNet", model.net), axes.shape[1]
    wide = SignatureNet(replace(small.config, backbone=reader.spec), reader)
    for name, tensor in small.state_dict().items():
        own = wide.state_dict()[name]
        if own.shape == tensor.shape:
            own.copy_(tensor)
        elif name in ("linear.weight", "project.weight"):  # (width, k)
            own.zero_()
            own[:, :k] = tensor
    shift, matrix = (part.double().numpy() for part in (small.whiten.mean, small.whiten.matrix))
    back = np.linalg.pinv(axes)
    _whiten(wide, mean + shift @ back, axes @ matrix)
    model.net, model.config = wide.eval(), wide.config
