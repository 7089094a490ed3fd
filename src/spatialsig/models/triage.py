"""What a model carries to triage slides: how suspect each calibration slide looked, and how wrong its scores were.

Floor 2, above geometry, nn, signatures, stats, store. Used by 5 modules of inference, models, tl.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAP, MEAN = "map", "mean"
ERRORS = (MAP, MEAN)
TOLERANCE = {MAP: 0.5, MEAN: 0.5}
_TEXTS, _PER_SIGNATURE = ("samples", "patients"), ("score", MAP, MEAN)


@dataclass(frozen=True)
class Calibration:
    """Slides that a model has not learned from, with measured scores.

    Attributes
    ----------
    samples, patients
        Names, ``(n,)``.
    ood
        How far each lies from what the model learned from, ``(n,)``; 0 where the model does not know.
    score
        How suspect each looks, ``(n, n_signatures)``.
    map, mean
        Pearson r within the slide, and distance of the means in deviations of the training scores, ``(n, n_signatures)``;
        NaN where not measured.
    qc
        Whether the quality of the patches is part of the score.
    signs
        What else is part of it, in words; empty where an early version did not say.
    """

    samples: NDArray[np.str_]
    patients: NDArray[np.str_]
    ood: NDArray[np.float64]
    score: NDArray[np.float64]
    map: NDArray[np.float64]
    mean: NDArray[np.float64]
    qc: bool
    signs: str = ""

    def wrong(self, error: str, tolerance: float) -> NDArray[np.float64]:
        """1 where a slide's scores are wrong, 0 where right, NaN where not measured, ``(n, n_signatures)``."""
        found = self.map if error == MAP else self.mean
        beyond = found < tolerance if error == MAP else found > tolerance
        return np.where(np.isfinite(found), beyond.astype(np.float64), np.nan)

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for NaN."""
        found: dict[str, Any] = {name: getattr(self, name).tolist() for name in (*_TEXTS, "ood")}
        found |= {name: [_plain(row) for row in getattr(self, name).tolist()] for name in _PER_SIGNATURE}
        return found | {"qc": self.qc, "signs": self.signs}


def calibration_from(value: Any, signatures: Sequence[str], *, where: str) -> dict[str, Calibration] | None:
    """Calibrations by kind of inputs, as read from a model directory; None where there are none.

    Raises
    ------
    InputError
        If they are not complete.
    """
    if value is None:
        return None
    try:
        found = {str(inputs): _read(record, len(signatures)) for inputs, record in value.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{where}: the record of `sp.tl.triage` is damaged ({error}). Call it again with `calibration=`."
        raise InputError(msg) from error
    return found or None


def triage_as_json(found: dict[str, Calibration] | None) -> dict[str, Any]:
    """Entry of the configuration of a model; none where it carries nothing, as early versions wrote it."""
    return {} if not found else {"triage": {inputs: record.as_json() for inputs, record in found.items()}}


def _read(record: Any, n_signatures: int) -> Calibration:
    samples, patients = (np.array(list(map(str, record[name])), dtype=np.str_) for name in _TEXTS)
    n, ood = len(samples), np.array(record["ood"], np.float64)
    score, of_map, of_mean = (np.array(record[name], np.float64).reshape(n, n_signatures) for name in _PER_SIGNATURE)
    if len(patients) != n or ood.shape != (n,) or not isinstance(record["qc"], bool):
        msg = f"{n} slides"
        raise ValueError(msg)
    return Calibration(samples, patients, ood, score, of_map, of_mean, record["qc"], str(record.get("signs", "")))


def _plain(row: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in row]
