"""Training of the image model from labelled patches of slides.

Floor 5, above slide. Used by 9 modules of evaluation, inference, pipeline, tl.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, Positive, Seed, check_fit, checked_class
from spatialsig._checks import check_choice, first_few, option_names, warn
from spatialsig.errors import InputError
from spatialsig.inference.domain import learn_domain
from spatialsig.inference.provenance import FOLDS_OF, HELD_OUT_SEEN, INPUTS, LEFT_OUT, notes_of_seen
from spatialsig.inference.stacking import stack
from spatialsig.inference.training_set import FoldChoice, TrainingTables, gather_training_set
from spatialsig.inference.tuning import FROZEN, TUNES, as_seen, fit_tuned, plan_tuning
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.backbones import table_key
from spatialsig.nn.device import choose_device
from spatialsig.nn.fusion import FUSIONS
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import VIT
from spatialsig.nn.vit import SIZES, ViTConfig
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.embeddings import AUTO, chosen_rep
from spatialsig.slide.seen import PATIENTS, SAMPLES, patients_of, warn_of_seen
from spatialsig.train import fit_vit

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.inference.training_set import TrainingSet
    from spatialsig.inference.tuning import Tuning
    from spatialsig.models import SignatureViT
    from spatialsig.slide.slides import Data

    Fit = Callable[[Tuning, TrainingSet, "VitOptions"], tuple[SignatureViT, pd.DataFrame | None]]

BATCH_SIZES = (8, 128)  # smallest and largest default
STEPS_PER_EPOCH = 300  # few patches teach more in many small steps (docs/adr/0012)
# what a run decides itself, so that it is no option of the fit
_DECIDED = (
    "signatures", "um_per_px", "validation", "size", "backbone", "fusion", "layer_decay", "seed",
)  # fmt: skip
FIT_OPTIONS = option_names(fit_vit, without=_DECIDED)


@checked_class
@dataclass(frozen=True)
class VitOptions:
    """Arguments of :func:`spatialsig.tl.train_vit`, which describes them; unknown names in ``fit`` are refused."""

    test_fold: Natural | None = 0
    validation_fold: Natural | None = None
    inner_fold: Natural | None = None
    fusion: str | None = None
    use_rep: Key | None = _keys.X_AE
    size: str | ViTConfig = "tiny"
    backbone: str | nn.Module | Callable[..., Any] = VIT
    backbone_options: Mapping[str, Any] | None = None
    pretrained: PretrainedViT | str | os.PathLike[str] | None = None
    tune: str | None = None
    lora: Mapping[str, Any] | None = None
    layer_decay: Positive | None = None
    batch_size: Count | None = None
    seed: Seed = 0
    weights: str | None = "n_cells"
    targets_key: Key | None = None
    stacking: bool = True
    signatures_key: Key = _keys.SIGNATURES
    patches_key: Key = _keys.PATCHES
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fit", check_fit(self.fit, fit_vit, (*_NAMES, *FIT_OPTIONS), function="train_vit"))
        if isinstance(self.size, str):
            check_choice(self.size, (*SIZES, SEED), name="size")
        check_choice(self.tune, (*TUNES, None), name="tune")
        check_choice(self.fusion, (*FUSIONS, None), name="fusion")
        _ = self.tables, self.folds  # which check what they are made of

    @classmethod
    def of(cls, **options: Any) -> VitOptions:
        """Sort options into those of the run and those of the fit."""
        return cls(
            **{name: value for name, value in options.items() if name in _NAMES},
            fit={name: value for name, value in options.items() if name not in _NAMES},
        )

    @property
    def folds(self) -> FoldChoice:
        """Folds to test on and to choose the best epoch by."""
        return FoldChoice(self.test_fold, self.validation_fold, self.inner_fold)

    @property
    def tables(self) -> TrainingTables:
        """Tables to learn from."""
        reads_table = isinstance(self.backbone, str) and table_key(self.backbone) is not None
        return TrainingTables(
            patches_key=self.patches_key,
            signatures_key=self.signatures_key,
            targets_key=self.signatures_key if self.targets_key is None else self.targets_key,
            use_rep=self.use_rep,
            backbone=str(self.backbone) if reads_table else VIT,
            weights=self.weights,
        )


_NAMES = tuple(f.name for f in fields(VitOptions) if f.name != "fit")


def train_signature_vit(data: Data, options: VitOptions, fit: Fit | None = None) -> SignatureViT:
    """Train an image model; all options are checked before the first slide is opened.

    ``fit`` makes the model from what :func:`spatialsig.inference.tuning.as_seen` gives, and its losses per epoch where
    there are epochs; None trains the network by gradient descent.
    """
    choose_device(None)  # which checks that it is there
    tables, folds = options.tables, options.folds
    tuning = plan_tuning(
        options.backbone,
        options=options.backbone_options,
        pretrained=options.pretrained,
        size=options.size,
        tune=options.tune,
        lora=options.lora,
        layer_decay=options.layer_decay,
    )
    if tuning.tune == FROZEN and options.fit.get("augment") is not None:
        msg = "`tune='frozen'` computes the features of every patch once; leave `augment` out, or use 'lora' or 'full'."
        raise InputError(msg)
    held_out = [fold for fold in (folds.test, folds.validation) if fold is not None]
    refuse_leaks(data, held_out if folds.inner is None else None)
    looked_at = _held_out_seen(data, tuning, tables, held_out)
    training_set = gather_training_set(data, tables, folds)
    _warn_of_left_out(training_set)
    _warn_of_shared_genes(training_set, options.use_rep)
    seen = as_seen(tuning, training_set)
    model, history = (fit_by_descent if fit is None else fit)(tuning, seen, options)
    model.run |= {"test_fold": folds.test, "validation_fold": folds.validation, "inner_fold": folds.inner}
    model.run |= {SAMPLES: training_set.samples, "use_rep": options.use_rep, "seed": options.seed}
    model.run |= {} if history is None else {"history": history.to_dict("list")}
    model.run |= {"targets_key": tables.targets_key, "weights": options.weights}
    model.run |= {"tune": tuning.tune, INPUTS: training_set.inputs}
    model.run |= {FOLDS_OF: training_set.folds, PATIENTS: patients_of(data, training_set.samples)}
    model.run |= {HELD_OUT_SEEN: looked_at} if looked_at else {}
    model.run |= {LEFT_OUT: training_set.left_out} if training_set.left_out else {}
    if options.stacking and model.uses_expression and options.size != SEED:
        stack(model, seen, lambda half, k: fit_by_descent(tuning, half, options, part=k)[0], seed=options.seed)
    model.domain = learn_domain(model, training_set.train, seen.train)
    return model


def training_rep(
    data: Data,
    use_rep: str | None,
    *,
    signatures_key: str,
    fusion: str | None = None,
    backbone: object = VIT,
    **others: object,
) -> str | None:
    """Embedding that a training takes where it was not said: ``X_ae``, or none where nothing is fused with it and it is not there."""
    alone = fusion == "none" or (isinstance(backbone, str) and table_key(backbone) is not None)
    if use_rep == AUTO and not alone:
        return _keys.X_AE
    return chosen_rep(data, use_rep, table_key=signatures_key, where=all)


def fit_by_descent(
    tuning: Tuning, training_set: TrainingSet, options: VitOptions, *, part: int | None = None
) -> tuple[SignatureViT, pd.DataFrame]:
    """Model of a training set, or of a part of it, whose run has a directory of its own."""
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = 1 if options.size == SEED else default_batch_size(training_set.n_patches)
    fusion = "none" if options.use_rep is None else options.fusion
    fit = dict(options.fit)
    if part is not None and fit.get("run_dir") is not None:
        fit["run_dir"] = Path(fit["run_dir"]) / f"half-{part}"
    fit |= {"batch_size": batch_size, "fusion": fusion, "seed": options.seed, "whole": part is None}
    model, history = fit_tuned(tuning, training_set, **fit)
    model.run["batch_size"] = batch_size
    return model, history


def _held_out_seen(data: Data, tuning: Tuning, tables: TrainingTables, held_out: list[int]) -> dict[str, list[str]]:
    """What the model starts from or is given, and the held-out slides that this has learned from, which is said."""
    given = {"the pretrained network": tuning.seen} | notes_of_seen(
        data, tables.signatures_key, tables.use_rep, tuning.table
    )
    found = {what: warn_of_seen(data, what, seen, held_out) for what, seen in given.items()}
    return {what: slides for what, slides in found.items() if slides}


def _warn_of_left_out(training_set: TrainingSet) -> None:
    """Say which signatures the model will not know, as the panels do not measure them."""
    if left_out := training_set.left_out:
        n_all = len(left_out) + len(training_set.names)
        warn(
            f"{len(left_out)} of {n_all} signatures were measured on no training slide, so the model leaves them out: "
            f"{first_few(left_out, n=10)}. It predicts {first_few(training_set.names, n=10)}. `sp.pl.coverage` shows what a panel "
            "measures."
        )


def _warn_of_shared_genes(training_set: TrainingSet, use_rep: str | None) -> None:
    """Say that the embedding holds the answer, before hours are spent on learning it."""
    for name, shared in training_set.shared_genes.items():
        if shared:
            warn(
                f"slide {name!r}: the embedding {use_rep!r} was made from {len(shared)} genes of the signatures "
                f"to predict ({', '.join(shared[:5])}, ...), so the model can read the answer from it and ignore the "
                "image. Train the autoencoder with `signatures=` set to the same signatures."
            )
            return


def default_batch_size(n_patches: int) -> int:
    """Patches per step for that many training patches: the power of two that makes at least 300 steps, 8 to 128."""
    smallest, largest = BATCH_SIZES
    steps_of_one = n_patches // STEPS_PER_EPOCH
    return min(max(1 << (steps_of_one.bit_length() - 1) if steps_of_one else smallest, smallest), largest)
