from dataclasses import replace

import numpy as np
import pytest
import torch

from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.errors import InputError, TrainingError
from spatialsig.nn.augment import AugmentConfig
from spatialsig.nn.fusion import Fusion
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViTConfig
from spatialsig.train import fit_vit
from spatialsig.train.loop import check_finite
from spatialsig.train.module import averaged_copy, update_average
from spatialsig.train.recipe import PROTOTYPE, Recipe, model_around, new_network
from spatialsig.train.vit_module import VitModule, rate_groups

VIT = ViTConfig(dim=32, depth=1, heads=2, mlp_dim=64, stem=(8, 16), stem_blocks=(0, 0))
PX, SIDE = 16, 12
NAMES = ["colour", "other"]


def planted(seed: int, *, in_image: bool = True, in_ae: bool = False, **changes) -> PatchBatches:
    """One slide of 144 patches whose score is how much redder than usual they are, or a direction of the embedding."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(SIDE, SIDE))
    shade = score if in_image else rng.normal(size=(SIDE, SIDE))
    red = np.kron(150 + 25 * shade, np.ones((PX, PX))) + rng.normal(0, 15, (SIDE * PX, SIDE * PX))
    noise = rng.normal(150, 15, (2, SIDE * PX, SIDE * PX))
    image = np.clip(np.concatenate([red[None], noise]), 0, 255).astype(np.uint8)
    corner = np.arange(SIDE) * PX
    origins = np.stack(np.meshgrid(corner, corner, indexing="ij"), axis=-1).reshape(-1, 2)
    source = PatchSource(f"S{seed}", (ImageLevel(image, image.shape[1:]),), origins, PX, PX)
    target = np.stack([score.ravel() * 3 + 10, score.ravel()], axis=1).astype(np.float32)
    target[::7, 1] = np.nan
    ae = rng.normal(size=(SIDE**2, 4)).astype(np.float32)
    if in_ae:
        ae[:, 2] = score.ravel()
        ae[5] = np.nan
    arguments = {"batch_size": 16, "ae": [ae] if in_ae else None} | changes
    return PatchBatches([source], targets=[target], **arguments)


def fitted(batches: PatchBatches, **changes):
    arguments = {"signatures": NAMES, "um_per_px": 0.5, "size": VIT, "max_epochs": 12, "learning_rate": 5e-3}
    return fit_vit(batches, **arguments | {"augment": AugmentConfig(stain=0.02, offset=0.0)} | changes)


def everything(batches: PatchBatches) -> dict[str, np.ndarray]:
    plain = PatchBatches(
        batches.sources, targets=[batches.target], ae=None if batches.ae is None else [batches.ae], shuffle=False
    )
    return {name: np.concatenate([batch[name] for batch in plain]) for name in next(iter(plain))}


def r(model, batches: PatchBatches, **given) -> float:
    found = everything(batches)
    return float(np.corrcoef(model.predict(found["image"], **given)[:, 0], found["target"][:, 0])[0, 1])


def test_a_planted_colour_is_learned_and_found_on_another_slide() -> None:
    validation = planted(1, shuffle=False)
    model, history = fitted(planted(0), validation=validation)
    assert r(model, planted(2)) > 0.9
    assert history["val_pearson"].max() > 0.9
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]
    scores = model.predict(everything(validation)["image"])
    assert scores[:, 0].mean() == pytest.approx(10, abs=1)  # units of the score, not standardised
    assert scores[:, 0].std() > 1.5


def test_expression_is_used_where_only_it_carries_the_signal_and_may_be_missing() -> None:
    model, _ = fitted(planted(0, in_image=False, in_ae=True), modality_dropout=0.3)
    held_out = planted(2, in_image=False, in_ae=True)
    assert r(model, held_out, ae=held_out.ae) > 0.9
    assert abs(r(model, held_out)) < 0.4
    assert np.isfinite(model.predict(everything(held_out)["image"])).all()


@pytest.mark.parametrize("fusion", ["add", "token", "film", "gated"])
def test_every_fusion_trains(fusion: str) -> None:
    model, history = fitted(planted(0, in_ae=True), fusion=fusion, max_epochs=1)
    assert model.config.fusion == fusion
    assert np.isfinite(history["train_loss"]).all()


def test_image_alone_stays_enough_for_a_fused_model() -> None:
    model, _ = fitted(planted(0, in_ae=True))
    assert r(model, planted(2)) > 0.85


def test_dropout_acts_while_training_and_norms_keep_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    given = Fusion.given
    monkeypatch.setattr(Fusion, "given", lambda self, *args: seen.append(self.training) or given(self, *args))
    batches = planted(0, in_ae=True)
    trained, start = (
        fitted(batches, max_epochs=n, learning_rate=rate, distil=0) for n, rate in ((3, 5e-3), (1, 1e-12))
    )
    assert sum(seen) == 4 * len(batches)  # every training step, and none of the start
    moments = [name for name in start[0].net.state_dict() if "running" in name]
    for name in moments:
        assert torch.equal(trained[0].net.state_dict()[name], start[0].net.state_dict()[name])
    assert moments


def test_gaussian_loss_finds_which_patches_are_uncertain() -> None:
    batches = planted(0)
    noisy = batches.target[:, 0] > 10  # the labels of red patches are drowned in noise
    batches.target[noisy, 0] += np.random.default_rng(3).normal(0, 6, int(noisy.sum())).astype(np.float32)
    model, _ = fitted(batches, loss="gaussian", learning_rate=3e-2)
    _, std = model.predict_distribution(everything(batches)["image"])
    assert std[noisy, 0].mean() > 1.3 * std[~noisy, 0].mean()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1.0),
        ({"fusion": "film"}, 1.0),
        ({"distil": 0.0}, 0.0),
        ({"fusion": "token"}, 0.0),  # would run the backbone twice
        ({"modality_dropout": 0.0}, 0.0),  # not meant for the image alone
        ({"fusion": "none"}, 0.0),
    ],
)
def test_the_image_alone_is_taught_by_default_where_that_is_cheap(options, expected: float) -> None:
    model, _ = fitted(planted(0, in_ae=True), max_epochs=1, **options)
    assert model.run["distil"] == expected


@pytest.mark.parametrize("extra", [{"auxiliary": 0.3}, {"distil": 0.5}, {"distil": 0.5, "fusion": "token"}])
def test_side_losses_train_and_leave_the_image_alone_enough(extra) -> None:
    model, history = fitted(planted(0, in_ae=True), max_epochs=3, **extra)
    assert model.config.guess_code == ("auxiliary" in extra)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert r(model, planted(2)) > 0.8


def test_distillation_teaches_the_image_alone_where_there_are_no_labels() -> None:
    batches = planted(0, in_ae=True)
    model = model_around(
        new_network(batches, 2, VIT, "vit", "gated", 0.0, Recipe(distil=1.0)), batches, NAMES, um_per_px=1, run=None
    )
    module = VitModule(model, None, Recipe(distil=1.0), n_steps=10)
    torch.nn.init.normal_(model.net.linear_ae.weight)
    batch = next(iter(batches))
    batch["mask"][:] = False
    module.training_step(batch, 0).backward()
    assert model.net.linear.weight.grad.abs().sum() > 0
    assert model.net.linear_ae.weight.grad is None or not model.net.linear_ae.weight.grad.any()  # the teacher stays


def test_first_epoch_does_not_throw_away_the_start() -> None:
    batches = planted(0)
    start, _ = fitted(batches, max_epochs=1, learning_rate=1e-12, augment=AugmentConfig(False, 0, 0, 0))
    _, history = fitted(batches, max_epochs=8, learning_rate=None, augment=AugmentConfig(False, 0, 0, 0))
    found = everything(batches)
    error = (start.predict(found["image"]) - found["target"]) / start.target_std
    before = float(huber(torch.from_numpy(error)[torch.from_numpy(found["mask"])]))
    assert history["train_loss"].iloc[0] < max(1.1 * before, before + 0.02)
    assert history["train_loss"].max() < max(1.1 * before, before + 0.02)


def huber(error: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error))


def test_the_prototype_is_trained_its_own_way() -> None:
    batches = planted(0, in_ae=True, batch_size=1)
    wide = PatchBatches(
        [replace(batches.sources[0], size_l0=32, out_px=32, origins=np.minimum(batches.sources[0].origins, 160))],
        targets=[batches.target],
        ae=[np.nan_to_num(batches.ae)],
        batch_size=16,
    )
    model, history = fit_vit(wide, signatures=NAMES, um_per_px=0.5, size="seed", max_epochs=2)
    assert (model.config.backbone, model.config.fusion, model.config.image_px) == ("seed", "add", 32)
    np.testing.assert_array_equal(model.target_std, [1, 1])  # scores and embeddings as they are
    assert history["lr"].tolist() == [2e-4, 2e-4]
    assert history["train_loss"].iloc[1] < history["train_loss"].iloc[0]


def test_short_trainings_use_less_of_the_rate_and_warm_up_longer() -> None:
    recipe = Recipe()
    assert [recipe.peak_rate(n) for n in (40, 400, 4000)] == [pytest.approx(2e-4), 2e-3, 2e-3]
    assert [recipe.rising_share(n) for n in (40, 100, 4000)] == [0.5, 0.4, 0.1]
    assert PROTOTYPE.peak_rate(10) == PROTOTYPE.learning_rate == 2e-4


def test_linear_heads_learn_more_slowly_and_every_weight_is_in_one_group() -> None:
    net = SignatureNet(SignatureConfig(VIT, 2, 4, "gated"))
    groups = rate_groups(net, learning_rate=1.0, weight_decay=0.1)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        assert rates[id(parameter)] == (0.1 if name.split(".")[0] in {"linear", "linear_ae"} else 1.0)


def test_training_is_the_same_for_the_same_seed() -> None:
    states = [fitted(planted(0, in_ae=True), max_epochs=2, seed=seed)[0].net.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_best_epoch_by_validation_is_kept() -> None:
    validation = planted(1, shuffle=False)
    model, history = fitted(planted(0), validation=validation, max_epochs=6, patience=2)
    found = everything(validation)
    scores = model.predict(found["image"])
    within = [
        np.corrcoef(scores[found["mask"][:, k], k], found["target"][found["mask"][:, k], k])[0, 1] for k in (0, 1)
    ]
    assert np.mean(within) == pytest.approx(history["val_pearson"].max(), abs=1e-3)


def test_average_follows_the_weights_slower_later() -> None:
    net = torch.nn.Linear(1, 1)
    average = averaged_copy(net)
    start = float(average.weight)
    net.weight.data += 1.0
    update_average(average, net, decay=0.9, step=0)
    assert float(average.weight) == pytest.approx(start + 0.9, abs=1e-5)  # (1 + 0) / (10 + 0) of the old is kept
    update_average(average, net, decay=0.9, step=10**6)
    assert float(average.weight) == pytest.approx(start + 0.91, abs=1e-5)


def test_nan_loss_names_epoch_and_step() -> None:
    with pytest.raises(TrainingError, match="the loss became nan in epoch 3, step 17. Lower `learning_rate=0.5`"):
        check_finite(torch.tensor(float("nan")), epoch=3, step=17, learning_rate=0.5)


@pytest.mark.parametrize(
    ("batches", "change", "message"),
    [
        ({}, {"signatures": ["one"]}, "1 signatures for targets of 2 columns"),
        ({}, {"fusion": "add"}, "`fusion='add'` needs expression embeddings"),
        ({}, {"size": "huge"}, "`size='huge'` is not known"),
        ({}, {"loss": "mae"}, "`loss='mae'` is not known"),
        ({}, {"distil": 0.5}, "`distil=0.5` needs a model with expression to learn from"),
        ({}, {"distil": 2}, "`distil=2` of `fit_vit` must be less than or equal to 1"),
        ({}, {"size": "seed", "auxiliary": 0.5}, "the prototype learns from labels only"),
        ({}, {"size": "seed", "backbone": "timm:x"}, "`size='seed'` is a whole network"),
        ({}, {"size": "seed"}, "`image_px=16` must be a multiple of 32"),
        ({}, {"backbone": torch.nn.Identity()}, "a Identity without the name `spec`"),
        ({}, {"warmup": 2}, "`warmup=2` of `fit_vit` must be less than or equal to 1"),
        ({"in_ae": True}, {"validation": planted(1)}, "do not match"),
    ],
)
def test_errors(batches, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(planted(0, **batches), **change)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "without at least 2 measured"), (4.0, "with one value on all")]
)
def test_a_target_that_says_nothing_is_refused(value: float, message: str) -> None:
    batches = planted(0)
    batches.target[:, 1] = value
    with pytest.raises(InputError, match=rf"{message} .*\['other'\]"):
        fitted(batches)
