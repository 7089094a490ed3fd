"""Decisions on slides that look more or less suspect, from what calibration slides of the same looks turned out to be.

Floor 5, above slide. Used by tl/_triage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig.errors import InputError
from spatialsig.inference.triage import check_signs
from spatialsig.stats.conformal import left_out_risk, left_out_taken, patients_needed, risk_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.inference.triage import Signs
    from spatialsig.models.triage import Calibration

ACCEPT, REVIEW, REJECT = "accept", "review", "reject"
SEEN = "the model learned from this slide or its patient, and its doubt is too small"
OUTSIDE = 1.0  # of the out-of-distribution score of a slide
IS_OUTSIDE = "outside what the model learned from"


@dataclass(frozen=True)
class Taken:
    """Calibration slides that one side of a threshold took, each by a threshold from the other patients where these are enough."""

    n: int
    errors: int

    @classmethod
    def of(
        cls, score: NDArray[np.float64], is_error: NDArray[np.bool_], patients: NDArray[np.str_], *, rate: float
    ) -> Taken:
        """Slides below the threshold at which ``is_error`` is kept within ``rate``; ``errors`` are these."""
        taken = left_out_taken(score, is_error, patients, rate=rate)
        if taken is None:
            taken = score < risk_threshold(score, is_error, patients, rate=rate)
        return cls(int(taken.sum()), int((taken & is_error).sum()))


@dataclass(frozen=True)
class Threshold:
    """Where slides are accepted and rejected for one signature, and what that did on patients left out in turn."""

    accept_below: float
    reject_above: float
    measured_error: float  # share of slides accepted and wrong
    measured_accepted: float
    n_patients: int
    accepted: Taken  # errors: those whose scores are wrong
    rejected: Taken  # errors: those whose scores are right
    scores: NDArray[np.float64]  # of the calibration slides


def thresholds(
    calibration: Calibration, signatures: Sequence[str], *, error: str, tolerance: float, rate: float
) -> dict[str, Threshold]:
    """Thresholds of every signature that enough patients have labels of.

    Raises
    ------
    InputError
        If no signature has as many as the rate needs.
    """
    wrong = calibration.wrong(error, tolerance)
    found, n_known = {}, {}
    for k, name in enumerate(signatures):
        known = np.isfinite(wrong[:, k])
        n_known[name] = len(set(calibration.patients[known].tolist()))
        if n_known[name] < patients_needed(rate):
            continue
        is_wrong, patients = wrong[known, k] == 1, calibration.patients[known]
        score = calibration.score[known, k]
        inside = np.where(calibration.ood[known] > OUTSIDE, np.inf, score)  # others are never accepted
        measured = left_out_risk(inside, is_wrong, patients, rate=rate)
        found[name] = Threshold(
            risk_threshold(inside, is_wrong, patients, rate=rate),
            -risk_threshold(-score, ~is_wrong, patients, rate=rate),
            *measured, n_known[name],
            accepted=Taken.of(inside, is_wrong, patients, rate=rate),
            rejected=Taken.of(-score, ~is_wrong, patients, rate=rate), scores=score,
        )  # fmt: skip
    if not found:
        most = max(n_known.values(), default=0)
        msg = (
            f"`error_rate={rate}` needs held-out slides of at least {patients_needed(rate)} patients with labels (1 / (n + 1) must not be "
            f"larger than the rate), and there are {most}: they allow {1 / (most + 1):.2g} at best. Hold out more patients, or state "
            "a larger rate."
        )
        raise InputError(msg)
    return found


def decided(
    signs: Signs, calibration: Calibration, by_signature: dict[str, Threshold], names: Sequence[str], *, seen: bool
) -> pd.DataFrame:
    """Decision on every signature of a slide (``seen``: one that the model learned from), and what it was made from.

    Raises
    ------
    InputError
        If the quality of its patches was not measured and that of the calibration slides was, or its other signs are not theirs.
    """
    check_signs(signs, calibration.signs, "the calibration slides")
    if calibration.qc and not np.isfinite(signs.failed):
        msg = f"slide {signs.sample!r}: the quality of its patches was not measured, and that of the calibration slides was; call `sp.pp.qc_patches` first."
        raise InputError(msg)
    n = len(names)
    score, width = (np.broadcast_to(values, n) for values in (signs.score(qc=calibration.qc), signs.width))
    rows = []
    for k, name in enumerate(names):
        threshold = by_signature.get(name)
        decision, reason = (REVIEW, SEEN) if seen else _decision(float(score[k]), signs.ood, threshold)
        rows.append(
            {
                "sample": signs.sample, "patient": signs.patient, "signature": name, "decision": decision, "reason": reason,
                "score": float(score[k]), "ood": signs.ood, "width": float(width[k]), "failed": signs.failed,
                "accept_below": np.nan if threshold is None else threshold.accept_below,
                "reject_above": np.nan if threshold is None else threshold.reject_above,
                "measured_error": np.nan if threshold is None else threshold.measured_error,
                "measured_accepted": np.nan if threshold is None else threshold.measured_accepted,
                "n_patients": 0 if threshold is None else threshold.n_patients,
                "n_accepted": 0 if threshold is None else threshold.accepted.n,
                "n_accepted_wrong": 0 if threshold is None else threshold.accepted.errors,
                "n_rejected": 0 if threshold is None else threshold.rejected.n,
                "n_rejected_wrong": 0 if threshold is None else threshold.rejected.n - threshold.rejected.errors,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _decision(score: float, ood: float, threshold: Threshold | None) -> tuple[str, str]:
    """Decision and its reason. Fewer slides accepted or rejected keep what was promised of all slides."""
    if threshold is None:
        return REVIEW, "too few calibration patients have labels of it"
    outside = ood > OUTSIDE
    if score < threshold.accept_below and not outside:
        found = threshold.accepted
        return ACCEPT if found.n and 2 * found.errors <= found.n else REVIEW, _why_accepted(threshold)
    if score > threshold.reject_above:
        if outside:
            return REJECT, IS_OUTSIDE
        found = threshold.rejected
        return REJECT if 2 * found.errors < found.n else REVIEW, _why_rejected(score, threshold)
    return REVIEW, IS_OUTSIDE if outside else "between the thresholds"


def _why_accepted(threshold: Threshold) -> str:
    found, n = threshold.accepted, len(threshold.scores)
    if not found.n:
        return f"none of {n} calibration slides was accepted"
    return f"{found.n} of {n} calibration slides accepted, {found.errors} of these wrong"


def _why_rejected(score: float, threshold: Threshold) -> str:
    found, n = threshold.rejected, len(threshold.scores)
    beyond = int((threshold.scores >= score).sum())
    but = f"all but {beyond}" if beyond else "all"
    judged = (
        f"{found.n} of them rejected, {found.n - found.errors} of these wrong" if found.n else "none of them rejected"
    )
    return f"more suspect than {but} of {n} calibration slides; {judged}"
