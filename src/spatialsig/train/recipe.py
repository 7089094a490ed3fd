"""Settings by which a signature model is fitted, apart from its data and its network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from spatialsig._checks import check_choice, check_fraction, check_positive
from spatialsig.nn.losses import LOSSES

SCHEDULES = ("cycle", "constant")
ONE_PASS = ("gated", "film", "add")  # fusions after the backbone: with and without expression at the cost of one pass
MIN_WARMUP = 40  # steps: Adam's estimates of the gradients' size are noise before
FULL_RATE = 400  # steps from which the whole learning rate is used


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Parameters
    ----------
    max_epochs
        Passes over the patches.
    learning_rate
        Highest rate; runs of fewer than :data:`FULL_RATE` steps use less of it in proportion.
    weight_decay
        Decay of matrices.
    warmup
        Share of the steps with a rising rate; at least :data:`MIN_WARMUP` steps where these are not more than half.
    clip
        Largest norm of the gradient; None does not clip.
    ema_decay
        Decay of the running average of the weights per step; 0 keeps the weights themselves.
    loss
        One of :data:`spatialsig.nn.losses.LOSSES`.
    beta
        Of the ``"gaussian"`` loss, see :func:`spatialsig.nn.losses.masked_loss`.
    auxiliary
        Weight of the loss of guessing the expression embedding from the image.
    distil
        Weight of the loss of the image alone against what the network says with expression.
    schedule
        ``"cycle"``, or ``"constant"`` for one rate throughout.
    ridge
        Start from a ridge regression.
    """

    max_epochs: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip: float | None = 1.0
    ema_decay: float = 0.995
    loss: str = "huber"
    beta: float = 0.5
    auxiliary: float = 0.0
    distil: float = 0.0
    schedule: str = "cycle"
    ridge: bool = True

    def __post_init__(self) -> None:
        check_positive(max_epochs=self.max_epochs, learning_rate=self.learning_rate)
        if self.clip is not None:
            check_positive(clip=self.clip)
        check_fraction(warmup=self.warmup, ema_decay=self.ema_decay, beta=self.beta)
        check_fraction(auxiliary=self.auxiliary, distil=self.distil)
        check_choice(self.loss, LOSSES, name="loss")
        check_choice(self.schedule, SCHEDULES, name="schedule")

    def peak_rate(self, n_steps: int) -> float:
        """Highest learning rate of a run of ``n_steps``."""
        return self.learning_rate * min(1.0, n_steps / FULL_RATE) if self.schedule == "cycle" else self.learning_rate

    def rising_share(self, n_steps: int) -> float:
        """Share of ``n_steps`` in which the rate rises."""
        share = max(self.warmup, min(0.5, MIN_WARMUP / n_steps))
        # torch divides by 0 where just one step rises
        return 1.5 / n_steps if abs(share * n_steps - 1) < 1e-9 else share


PROTOTYPE = Recipe(
    max_epochs=10,
    learning_rate=2e-4,
    warmup=0.0,
    clip=None,
    ema_decay=0.0,
    loss="mse",
    schedule="constant",
    ridge=False,
)


def usual_distillation(fusion: str, modality_dropout: float) -> float:
    """Weight of ``distil`` where none is chosen: 1 where it costs no second pass and the image alone is to be of use."""
    return 1.0 if fusion in ONE_PASS and modality_dropout > 0 else 0.0


def chosen_recipe(base: Recipe, **changes: Any) -> Recipe:
    """``base`` with those of ``changes`` that are not None."""
    return replace(base, **{name: value for name, value in changes.items() if value is not None})
