"""An image network that has seen many patches and no label yet.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.PretrainedViT; used by 7 modules of 4 rooms.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spatialsig._arguments import AnyPath, Count, UmPerPx, checked
from spatialsig.errors import InputError
from spatialsig.models.directory import CONFIG, check_model, config_from_json, load_weights, read_scaler, save_model
from spatialsig.models.record import Described, read_json, reads_model
from spatialsig.nn.vit import ViT, ViTConfig


class PretrainedViT(Described):
    """Image network to start from: ``sp.tl.train_vit(..., pretrained=this)``.

    Parameters
    ----------
    net
        The network.
    patch_px, um_per_px
        Edge of the patches it has seen, and their resolution.
    run
        Provenance, JSON-able.

    References
    ----------
    He and others, Masked autoencoders are scalable vision learners, CVPR 2022,
    https://doi.org/10.1109/CVPR52688.2022.01553

    Examples
    --------
    :func:`spatialsig.tl.pretrain_vit` makes one from slides.

    >>> from spatialsig.models import PretrainedViT
    >>> from spatialsig.nn.vit import ViT, vit_config
    >>> PretrainedViT(ViT(vit_config("tiny")), patch_px=224, um_per_px=0.5).config.depth
    2
    """

    kind = "PretrainedViT"

    @checked
    def __init__(self, net: ViT, *, patch_px: Count, um_per_px: UmPerPx, run: dict[str, Any] | None = None) -> None:
        self.net = net.eval()
        self.patch_px, self.um_per_px = patch_px, float(um_per_px)
        self.run = dict(run or {})

    @property
    def config(self) -> ViTConfig:
        """Shape of the network."""
        return self.net.config

    @checked
    def save(self, directory: AnyPath, *, overwrite: bool = False) -> None:
        """Write the model directory, whole or not at all; in place of a model only with ``overwrite``, else :class:`StoreError`."""
        config = {"vit": asdict(self.config), "patch_px": self.patch_px, "um_per_px": self.um_per_px}
        weights = self.net.state_dict()
        save_model(
            directory,
            kind=self.kind,
            config=config,
            weights=weights,
            scaler={},
            lists={},
            run=self.run,
            card=self.card(),
            overwrite=overwrite,
        )

    @classmethod
    @checked
    @reads_model
    def load(cls, directory: AnyPath) -> PretrainedViT:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileMissingError, InputError
            If a file is missing, was altered, or does not fit the others.
        """
        place = Path(directory)
        run = check_model(place, kind=cls.kind, lists=())
        read_scaler(place, {})
        values = read_json(place / CONFIG, dict)
        config = config_from_json(ViTConfig, values.get("vit", {}), where=str(place / CONFIG))
        scale = [values.get(name) for name in ("patch_px", "um_per_px")]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in scale):
            msg = f"{place / CONFIG}: `patch_px` and `um_per_px` must be numbers; got {scale}."
            raise InputError(msg)
        with torch.device("meta"):
            net = ViT(config)
        load_weights(place, net)
        return cls(net, patch_px=int(values["patch_px"]), um_per_px=float(values["um_per_px"]), run=run)
