"""Checks of the genes of an autoencoder and of their scaler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHOWN = 10  # names in one message


def check_scaler(genes: Sequence[str], mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
    """Raise :class:`InputError` unless genes are distinct and the scaler is finite, positive and as long."""
    if not genes or len(set(genes)) != len(genes):
        msg = f"`genes` must be distinct names, at least one; got {len(genes)}, {len(set(genes))} distinct."
        raise InputError(msg)
    if mean.shape != (len(genes),) or std.shape != (len(genes),):
        msg = f"`mean` {mean.shape} and `std` {std.shape} must both be ({len(genes)},), one per gene."
        raise InputError(msg)
    bad = [
        gene for gene, m, s in zip(genes, mean, std, strict=True) if not (np.isfinite(m) and np.isfinite(s) and s > 0)
    ]
    if bad:
        msg = f"scaler of {len(bad)} genes is not finite with a deviation above 0: {bad[:_SHOWN]}; leave them out."
        raise InputError(msg)


def check_same_genes(have: Sequence[str], want: Sequence[str], *, where: object) -> None:
    """Raise :class:`InputError` listing both sides unless two gene lists hold the same names."""
    extra, missing = sorted(set(have) - set(want)), sorted(set(want) - set(have))
    if extra or missing:
        msg = (
            f"{where}: made for other genes; {len(extra)} only in the model: {extra[:_SHOWN]}, "
            f"{len(missing)} only asked for: {missing[:_SHOWN]}."
        )
        raise InputError(msg)
