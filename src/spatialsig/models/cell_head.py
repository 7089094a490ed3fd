"""A linear head that gives single nuclei scores, from what a signature model sees of them in their patches.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.CellHead, sp.tl.CellHead; used by 5 modules of 3 rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._hashing import content_hash
from spatialsig.errors import InputError
from spatialsig.models.directory import (
    CONFIG,
    check_model,
    load_weights,
    number_field,
    read_names,
    read_scaler,
    save_model,
)
from spatialsig.models.record import Described, read_json, reads_model
from spatialsig.models.scalers import as_floats


class CellHead(Described):
    """Predict the scores of nuclei from features that a signature model has at their place.

    Parameters
    ----------
    signatures
        Names of the scores.
    feature_mean, feature_std
        Scale of the features of the training nuclei, ``(n_features,)``.
    model_sha256
        Hash of the weights of the model whose features these are; no other fits.
    run
        Provenance, JSON-able: training slides, number of nuclei, penalty.
    net
        Linear map of scaled features to scores; None makes one that is 0.

    Examples
    --------
    :func:`spatialsig.tl.train_cell_head` makes one from slides.

    >>> import numpy as np
    >>> from spatialsig.models import CellHead
    >>> head = CellHead(["T cell"], feature_mean=np.zeros(4), feature_std=np.ones(4), model_sha256="0")
    >>> head.predict(np.ones((2, 4), np.float32)).tolist()
    [[0.0], [0.0]]
    """

    kind = "CellHead"

    @checked
    def __init__(
        self,
        signatures: Sequence[str],
        *,
        feature_mean: NDArray[Any] | Sequence[float],
        feature_std: NDArray[Any] | Sequence[float],
        model_sha256: Key,
        run: dict[str, Any] | None = None,
        net: nn.Linear | None = None,
    ) -> None:
        self.signatures, self.model_sha256 = tuple(signatures), model_sha256
        self.feature_mean = as_floats(feature_mean, name="feature_mean")
        self.feature_std = as_floats(feature_std, name="feature_std")
        self.run = dict(run or {})
        if not self.signatures or len(set(self.signatures)) < len(self.signatures):
            msg = f"`signatures` must be distinct names, at least one; got {list(self.signatures)}."
            raise InputError(msg)
        n = self.feature_mean.size
        finite = np.isfinite(self.feature_mean).all() and np.isfinite(self.feature_std).all()
        if (
            self.feature_mean.ndim != 1
            or self.feature_std.shape != (n,)
            or not finite
            or not (self.feature_std > 0).all()
        ):
            msg = (
                f"`feature_mean` {self.feature_mean.shape} and `feature_std` {self.feature_std.shape} must be finite, both ({n},), and the "
                "second above 0."
            )
            raise InputError(msg)
        if net is not None and (net.in_features, net.out_features) != (n, len(self.signatures)):
            msg = f"`net` maps {net.in_features} features to {net.out_features} scores; wanted {n} to {len(self.signatures)}."
            raise InputError(msg)
        if net is None:
            net = nn.Linear(n, len(self.signatures))
            nn.init.zeros_(net.weight)
            nn.init.zeros_(net.bias)
        self.net = net.eval()

    @property
    def n_features(self) -> int:
        """Width of the features."""
        return len(self.feature_mean)

    @property
    def sha256(self) -> str:
        """Hash of all numbers of the head, as hex digits."""
        weights = [tensor.numpy() for _, tensor in sorted(self.net.state_dict().items())]
        return content_hash([*weights, self.feature_mean, self.feature_std])

    @checked
    def predict(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Scores ``(n, n_signatures)`` of features ``(n, n_features)``; NaN where a feature is."""
        if features.ndim != 2 or features.shape[1] != self.n_features:
            msg = f"features {features.shape}; wanted (n, {self.n_features})."
            raise InputError(msg)
        scaled = (as_floats(features, name="features") - self.feature_mean) / self.feature_std
        with torch.inference_mode():
            return self.net(torch.from_numpy(scaled.astype(np.float32))).numpy()  # type: ignore[no-any-return]

    @checked
    def save(self, directory: AnyPath, *, overwrite: bool = False) -> None:
        """Write the directory, whole or not at all; in place of a model only with ``overwrite``, else :class:`StoreError`."""
        save_model(
            directory,
            kind=self.kind,
            config={"n_features": self.n_features, "model_sha256": self.model_sha256},
            weights=self.net.state_dict(),
            scaler={"feature_mean": self.feature_mean, "feature_std": self.feature_std},
            lists={"signatures": list(self.signatures)},
            run=self.run,
            card=self.card(),
            overwrite=overwrite,
        )

    @classmethod
    @checked
    @reads_model
    def load(cls, directory: AnyPath) -> CellHead:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileMissingError, InputError
            If a file is missing, was altered, or does not fit the others.
        """
        run = check_model(place := Path(directory), kind=cls.kind, lists=("signatures",))
        values, names = read_json(place / CONFIG, dict), read_names(place / "signatures.json")
        n = int(number_field(values, "n_features", where=place / CONFIG))
        scaler = read_scaler(place, {"feature_mean": (n,), "feature_std": (n,)})
        with torch.device("meta"):
            net = nn.Linear(n, len(names))
        load_weights(place, net)
        return cls(names, **scaler, model_sha256=str(values.get("model_sha256", "")) or "unknown", run=run, net=net)
