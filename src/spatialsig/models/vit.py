"""A trained signature model: network, signatures, scalers and the scale of its patches in one object.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.SignatureViT; used by 20 modules of 6 rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from spatialsig._arguments import AnyPath, Count, UmPerPx, checked
from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.models.directory import (
    CONFIG,
    check_model,
    listed_files,
    load_weights,
    number_field,
    read_names,
    read_scaler,
    save_model,
    signature_config,
)
from spatialsig.models.domain import DOMAIN, TrainingDomain, read_domain
from spatialsig.models.intervals import checked_intervals
from spatialsig.models.record import Described, read_json, reads_model
from spatialsig.models.scalers import as_floats, check_embedding, check_shapes, standardised_embedding
from spatialsig.models.triage import Calibration, calibration_from, triage_as_json
from spatialsig.nn.augment import dihedral
from spatialsig.nn.backbones import check_can_be_saved
from spatialsig.nn.device import FLOAT32, computed_in, fast_matmul, kept_memory, microbatch_size, on_device
from spatialsig.nn.external import TableBackbone
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import VIT, SeedNet, SignatureConfig, SignatureNet

Pixels: TypeAlias = NDArray[np.uint8]
Scores: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.floating[Any]] | None  # embeddings of expression
_VIEWS = {1: (0,), 2: (0, 4), 4: (0, 1, 2, 3), 8: tuple(range(8))}


class SignatureViT(Described):
    """Predict signature scores from H&E patches, with or without expression.

    Parameters
    ----------
    config
        Shape of the network; its ``n_targets`` is the number of ``signatures``.
    signatures
        Names of the scores.
    target_mean, target_std
        Scale of the training scores, ``(n_signatures,)``.
    ae_mean, ae_std
        Scale of the training embeddings, ``(n_latent,)``; None without expression.
    patch_px, um_per_px
        Edge of a patch and its resolution: what the network was trained on and must be given.
    run
        Provenance, JSON-able: training and held-out slides, seed, hashes.
    net
        Network to hold; None makes an untrained one.

    Attributes
    ----------
    net
        The network, in evaluation mode.
    intervals
        Prediction intervals by kind of input, see :func:`spatialsig.tl.calibrate`; None before it.
    domain
        What its training patches look like, with which :func:`spatialsig.tl.predict` compares others; None where nothing is known.
    triage
        Calibration slides by kind of input, see :func:`spatialsig.tl.triage`; None before it.

    References
    ----------
    Dosovitskiy and others, An image is worth 16x16 words, ICLR 2021, https://doi.org/10.48550/arXiv.2010.11929

    Examples
    --------
    :func:`spatialsig.tl.train_vit` makes one from slides. Untrained, of two scores:

    >>> import numpy as np
    >>> from spatialsig.models import SignatureViT
    >>> from spatialsig.nn.signature import SignatureConfig
    >>> scale = {"target_mean": np.zeros(2), "target_std": np.ones(2)}
    >>> model = SignatureViT(SignatureConfig(n_targets=2), ["T cell", "B cell"], **scale, patch_px=64, um_per_px=0.5)
    >>> model.predict(np.full((3, 3, 64, 64), 200, np.uint8)).shape
    (3, 2)
    """

    kind = "SignatureViT"

    @checked
    def __init__(
        self,
        config: SignatureConfig,
        signatures: Sequence[str],
        *,
        target_mean: NDArray[Any] | Sequence[float],
        target_std: NDArray[Any] | Sequence[float],
        ae_mean: NDArray[Any] | Sequence[float] | None = None,
        ae_std: NDArray[Any] | Sequence[float] | None = None,
        patch_px: Count,
        um_per_px: UmPerPx,
        run: dict[str, Any] | None = None,
        net: SignatureNet | SeedNet | None = None,
    ) -> None:
        self.config, self.signatures = config, tuple(signatures)
        self.patch_px, self.um_per_px = patch_px, float(um_per_px)
        self.target_mean = as_floats(target_mean, name="target_mean")
        self.target_std = as_floats(target_std, name="target_std")
        self.ae_mean = as_floats(np.zeros(config.n_latent) if ae_mean is None else ae_mean, name="ae_mean")
        self.ae_std = as_floats(np.ones(config.n_latent) if ae_std is None else ae_std, name="ae_std")
        check_shapes(self)
        self.run = dict(run or {})
        self.intervals: dict[str, Any] | None = None
        self.domain: TrainingDomain | None = None
        self.triage: dict[str, Calibration] | None = None
        self.net = new_network(config) if net is None else net
        self.net.eval()

    @property
    def uses_expression(self) -> bool:
        """Whether predictions can take an expression embedding into account."""
        return self.config.fusion != "none"

    @property
    def stain(self) -> str:
        """How the colours of the patches were normalised that it learned from: ``"macenko"``, ``"vahadane"``, ``"none"``."""
        return str(self.run.get("inputs", {}).get("image", {}).get("stain", "none"))

    @property
    def knows_uncertainty(self) -> bool:
        """Whether :meth:`predict_distribution` can be asked."""
        return self.config.gaussian

    @checked
    def predict(
        self, images: Pixels, ae: Codes = None, *, batch_size: Count | None = None, n_views: Count = 1, precision: str = FLOAT32,
    ) -> Scores:  # fmt: skip
        """Scores ``(n, n_signatures)`` float32 in the units of the training scores; computed on ``sp.settings.device``.

        Parameters
        ----------
        images
            ``(n, 3, patch_px, patch_px)`` uint8 RGB at ``um_per_px``; of a model that learned from a table, features
            ``(n, d)`` float32 in their place.
        ae
            Expression embeddings ``(n, n_latent)``, NaN rows where missing; None predicts from the image alone.
        batch_size
            Patches per forward pass; None takes what is fastest on the device.
        n_views
            Average over that many turned and mirrored views of each patch: 1, 2, 4 or 8.
        precision
            ``"32"``, or ``"bf16"`` for products in bfloat16, faster where the hardware computes them.
        """
        return self._predicted(images, ae, batch_size, n_views, precision)[0]

    @checked
    def predict_distribution(
        self, images: Pixels, ae: Codes = None, *, batch_size: Count | None = None, n_views: Count = 1, precision: str = FLOAT32,
    ) -> tuple[Scores, Scores]:  # fmt: skip
        """Scores and the standard deviation expected around them, ``(n, n_signatures)`` float32 each, in score units.

        The deviation is what a patch of this look leaves open (noise of the label included), not what the model does
        not know for want of training data. Over several views the variances are averaged. Arguments as in
        :meth:`predict`.

        Raises
        ------
        InputError
            If the model does not know its uncertainty, see :attr:`knows_uncertainty`.
        """
        if not self.knows_uncertainty:
            msg = "this model predicts scores without their uncertainty; train it with `loss='gaussian'`."
            raise InputError(msg)
        return self._predicted(images, ae, batch_size, n_views, precision)

    @checked
    def save(self, directory: AnyPath, *, overwrite: bool = False) -> None:
        """Write the model directory, whole or not at all; in place of a model only with ``overwrite``, else :class:`StoreError`."""
        check_can_be_saved(self.config.backbone)
        save_model(
            directory,
            kind=self.kind,
            config={"net": asdict(self.config)}
            | {name: getattr(self, name) for name in ("patch_px", "um_per_px", "intervals")}
            | triage_as_json(self.triage),
            weights=self.net.state_dict(),
            scaler={name: getattr(self, name) for name in ("target_mean", "target_std", "ae_mean", "ae_std")},
            lists={"signatures": list(self.signatures)},
            run=self.run,
            card=self.card(),
            overwrite=overwrite,
            domain=self.domain,
        )

    @classmethod
    @checked
    @reads_model
    def load(cls, directory: AnyPath) -> SignatureViT:
        """Read a model directory.

        Raises
        ------
        FileMissingError, InputError
            If a file is missing, was altered, or does not fit the others.
        """
        run = check_model(place := Path(directory), kind=cls.kind, lists=("signatures",))
        values = read_json(place / CONFIG, dict)
        config = signature_config(values.get("net", {}), where=str(place / CONFIG))
        names = read_names(place / "signatures.json")
        targets, latent = (len(names),), (config.n_latent,)
        scaler = read_scaler(
            place, {"target_mean": targets, "target_std": targets, "ae_mean": latent, "ae_std": latent}
        )
        with torch.device("meta") if config.backbone in (VIT, SEED) else nullcontext():
            net = new_network(config)
        load_weights(place, net)
        px, um = (number_field(values, name, where=place / CONFIG) for name in ("patch_px", "um_per_px"))
        model = cls(config, names, **scaler, patch_px=int(px), um_per_px=um, run=run, net=net)
        model.intervals = checked_intervals(values.get("intervals"), names, where=str(place / CONFIG))
        model.triage = calibration_from(values.get("triage"), names, where=str(place / CONFIG))
        model.domain = read_domain(place) if DOMAIN in listed_files(place) else None
        return model

    @checked
    def check_images(self, images: NDArray[Any], n_views: Count = 1) -> None:
        """Refuse what is not patches of its size, or features of its table, with :class:`InputError`."""
        wanted = (3, self.patch_px, self.patch_px)
        if isinstance(self.net.backbone, TableBackbone):
            self.net.backbone.check(images, n_views=n_views)
        elif images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8:
            msg = f"images {images.shape} of {images.dtype}; wanted (n, {', '.join(map(str, wanted))}) uint8."
            raise InputError(msg)

    def _check_inputs(self, images: NDArray[Any], ae: NDArray[Any] | None, n_views: int) -> None:
        self.check_images(images, n_views)
        if ae is None:
            return
        check_embedding(ae)
        if not self.uses_expression:
            msg = "this model was trained without expression (fusion='none'); leave `ae` out."
            raise InputError(msg)
        if ae.shape != (len(images), self.config.n_latent):
            msg = f"`ae` of shape {ae.shape}; wanted ({len(images)}, {self.config.n_latent})."
            raise InputError(msg)

    def _predicted(
        self, images: Pixels, ae: Codes, batch_size: int | None, n_views: int, precision: str
    ) -> tuple[Scores, Scores]:
        """Scores and deviations in score units; the deviations are 0 where the network does not predict them."""
        check_choice(n_views, tuple(_VIEWS), name="n_views")
        self._check_inputs(images, ae, n_views)
        scores, deviations = np.zeros((2, len(images), len(self.signatures)), np.float32)
        with on_device(self.net) as device, fast_matmul(), kept_memory(), computed_in(precision, device):
            size = microbatch_size(images.shape, device) if batch_size is None else batch_size
            for rows in (slice(start, start + size) for start in range(0, len(images), size)):
                mean, variance = self._forward(images[rows], None if ae is None else ae[rows], _VIEWS[n_views], device)
                scores[rows] = mean * self.target_std + self.target_mean
                deviations[rows] = np.sqrt(variance) * self.target_std
        return scores, deviations

    @torch.inference_mode()
    def _forward(
        self, images: NDArray[np.uint8], ae: NDArray[Any] | None, views: tuple[int, ...], device: torch.device
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Standardised scores and variances, ``(b, n_signatures)`` each, averaged over the views."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        code, present = None, None
        if ae is not None:
            code, present = (part.to(device) for part in standardised_embedding(ae, self.ae_mean, self.ae_std))
        means, variances = [], []
        for k in views:
            found = self.net.forward_all(dihedral(pixels, k) if k else pixels, code, present)
            means.append(found.mean.cpu().double())  # some GPUs have no float64
            log_variance = found.log_variance
            variances.append(torch.zeros_like(means[0]) if log_variance is None else log_variance.cpu().double().exp())
        mean, variance = (torch.stack(part).mean(dim=0).numpy() for part in (means, variances))
        return mean, variance


def new_network(config: SignatureConfig) -> SignatureNet | SeedNet:
    """The untrained network that ``config`` describes."""
    return SeedNet(config) if config.backbone == SEED else SignatureNet(config)
