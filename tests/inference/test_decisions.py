"""Decisions say on what calibration slides they rest, and rest on none that were mostly wrong."""

import numpy as np
import pytest

from spatialsig.inference.decisions import decided, thresholds
from spatialsig.inference.triage import Signs
from spatialsig.models.triage import Calibration

NONE, R = np.full(1, np.nan), 0.9


def judged(score: float, calibration: dict[float, float], *, rate: float = 0.1, ood: float = 0.0) -> tuple[str, str]:
    """Decision and reason of a slide as suspect as ``score``, from calibration slides: score -> r of the map."""
    names, scores = np.array([f"C{k}" for k in range(len(calibration))]), np.array(list(calibration))
    r = np.array(list(calibration.values()))
    found = Calibration(names, names, np.zeros(len(r)), scores[:, None], r[:, None], r[:, None], qc=False)
    limits = thresholds(found, ["A"], error="map", tolerance=0.5, rate=rate)
    signs = Signs("new", "new", ood, np.array([score - ood]), 0.0, "", NONE, NONE)
    table = decided(signs, found, limits, ["A"], seen=False)
    assert table["n_accepted"][0] >= table["n_accepted_wrong"][0]
    assert table["n_rejected"][0] >= table["n_rejected_wrong"][0]
    return table["decision"][0], table["reason"][0]


def even(wrong: set[int], n: int = 10) -> dict[float, float]:
    """``n`` slides of growing doubt, of which some are wrong."""
    return {(k + 1) / 10: 0.0 if k in wrong else R for k in range(n)}


@pytest.mark.parametrize(
    ("wrong", "decision", "reason"),
    [
        # without slide 6, the threshold is that of the next wrong one: it is accepted, and wrong
        ({6, 7, 8, 9}, "accept", "7 of 10 calibration slides accepted, 1 of these wrong"),
        ({1, 2, 3, 4, 5, 6, 7, 8, 9}, "accept", "2 of 10 calibration slides accepted, 1 of these wrong"),
        ({0, 2, 3, 4, 5, 6, 7, 8, 9}, "review", "1 of 10 calibration slides accepted, 1 of these wrong"),
        ({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "review", "1 of 10 calibration slides accepted, 1 of these wrong"),
        (set(), "accept", "10 of 10 calibration slides accepted, 0 of these wrong"),
    ],
)
def test_accepted_only_where_accepted_slides_were_not_mostly_wrong(wrong: set[int], decision: str, reason: str) -> None:
    assert judged(0.05, even(wrong)) == (decision, reason)


def test_none_accepted_is_said() -> None:
    """With as few patients as the rate needs, no threshold comes from the others: that of all of them is what is told."""
    assert judged(0.05, even({0}, n=9)) == ("review", "none of 9 calibration slides was accepted")
    assert judged(0.05, even({1}, n=9)) == ("accept", "1 of 9 calibration slides accepted, 0 of these wrong")


def test_rejected_only_where_suspect_slides_were_mostly_wrong() -> None:
    assert judged(1.05, even({6, 7, 8, 9})) == (
        "reject",
        "more suspect than all of 10 calibration slides; 5 of them rejected, 4 of these wrong",
    )
    assert judged(0.95, even({6, 7, 8, 9}))[1].startswith("more suspect than all but 1 of 10 calibration slides")
    # the most suspect of ten is right: that a slide is more suspect than all happens to one healthy patient in 11
    assert judged(1.05, even({3, 4})) == (
        "review",
        "more suspect than all of 10 calibration slides; 1 of them rejected, 0 of these wrong",
    )
    assert judged(1.05, even({3}, n=9)) == (
        "review",
        "more suspect than all of 9 calibration slides; none of them rejected",
    )
    assert judged(1.3, even(set()), ood=1.2) == ("reject", "outside what the model learned from")
