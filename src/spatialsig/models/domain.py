"""What a model has learned from, as far as patches can be compared with it: the domain in which its scores mean something.

Floor 2, above geometry, nn, signatures, stats, store. Used by 8 modules of inference, maps, models, pp, tl.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._hashing import content_hash
from spatialsig.errors import InputError
from spatialsig.models.record import DAMAGE, FIX
from spatialsig.stats.domain import AWAY, Distance, fit_distance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

DOMAIN = "domain.npz"
STAIN, SHARPNESS, TISSUE = "stain", "sharpness", "tissue"
ASPECTS = (STAIN, SHARPNESS, TISSUE)
# deviations that no training set has to have shown: those that augmentation makes, and that no eye sees
_FLOOR: dict[str, float | NDArray[np.float64]] = {
    STAIN: np.array([0.15, 0.01, 0.01, 0.005, 0.005, 0.15, 0.15]), SHARPNESS: 0.15, TISSUE: 1e-6,
}  # fmt: skip
N_AXES = 32
_PER_AXIS = 8  # patches at least, for each axis of the features
FIRST = 0.2  # share of the patches of a slide that make it lie outside
_PARTS = ("mean", "axes", "variance", "rest", "threshold")


@dataclass(frozen=True)
class OutOfDomain:
    """How far patches lie from those that a model learned from."""

    ood: NDArray[np.float32]  # (n,): 1 is where patches of the same kind end; NaN where nothing could be compared
    reason: NDArray[np.str_]  # (n,): the aspect that lies farthest outside, empty within
    ratios: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # the same in each aspect, (n,)

    @property
    def share(self) -> float:
        """Share of the patches that lie outside."""
        return float((self.ood > 1).mean()) if len(self.ood) else 0.0

    @property
    def slide(self) -> float:
        """What :data:`FIRST` of the patches exceed: above 1 for a slide of another kind; NaN where nothing could be compared."""
        return _exceeded(self.ood)

    @property
    def aspect(self) -> str:
        """What most patches outside differ in; empty where none lies outside."""
        names, counts = np.unique(self.reason[self.reason != ""], return_counts=True)
        return str(names[counts.argmax()]) if len(names) else ""

    @property
    def aspects(self) -> list[str]:
        """All that the slide lies outside in, farthest first; empty for a slide within."""
        if not self.slide > 1:
            return []
        far = {name: _exceeded(ratios) for name, ratios in self.ratios.items()}
        return sorted((name for name in far if far[name] > 1), key=lambda name: -far[name]) or [self.aspect]

    def as_record(self) -> dict[str, Any]:
        """What is kept of a slide, as plain values."""
        return {"slide": self.slide, "share": self.share, "reason": ", ".join(self.aspects)}


def _exceeded(values: NDArray[np.float32]) -> float:
    """What :data:`FIRST` of the patches exceed; NaN where none was compared."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 1 - FIRST)) if len(known) else float("nan")


@dataclass(frozen=True)
class TrainingDomain:
    """Where training patches lie in their stain, their sharpness and the network's features, and where patches of the same kind end.

    Attributes
    ----------
    aspects
        Name -> distance and threshold; those that could not be told are not there.
    n_patches, n_patients
        It was learned from.
    """

    aspects: Mapping[str, tuple[Distance, float]]
    n_patches: int
    n_patients: int

    @classmethod
    def learn(
        cls, values: Mapping[str, NDArray[np.floating[Any]]], patients: NDArray[np.str_], slides: NDArray[np.str_]
    ) -> TrainingDomain:
        """Domain of training patches, by their values in each aspect, ``(n, d)``; see :func:`spatialsig.stats.domain.fit_distance`."""
        aspects = {}
        for name, found in values.items():
            n_axes = min(N_AXES, max(1, len(found) // _PER_AXIS))
            aspects[name] = fit_distance(
                found, patients, slides, floor=_FLOOR[name], n_axes=n_axes, share=AWAY / len(values)
            )
        return cls(aspects, len(patients), len(set(patients.tolist())))

    @property
    def sha256(self) -> str:
        """Hash of all that decides the scores."""
        return content_hash(part for name, array in sorted(self.arrays().items()) for part in (name, array))

    def compare(self, values: Mapping[str, NDArray[np.floating[Any]]]) -> OutOfDomain:
        """How far patches lie outside, by their values in the aspects that are known of them, ``(n, d)`` each."""
        names = [name for name in self.aspects if name in values]
        n = len(next(iter(values.values())))
        if not names:
            return OutOfDomain(np.full(n, np.nan, np.float32), np.full(n, "", "<U9"))
        ratios = np.stack([self.aspects[name][0](values[name]) / self.aspects[name][1] for name in names])
        known = np.where(np.isfinite(ratios), ratios, -np.inf)
        ood = known.max(axis=0)
        reason = np.where(ood > 1, np.array(names)[known.argmax(axis=0)], "").astype("<U9")
        by_aspect = {name: of_aspect.astype(np.float32) for name, of_aspect in zip(names, ratios, strict=True)}
        return OutOfDomain(np.where(np.isfinite(ood), ood, np.nan).astype(np.float32), reason, by_aspect)

    def contrast_kept(self, sharpness: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Fine contrast of patches, 1 for what is usual in training, by their sharpness ``(n, 3)``; NaN where it is not known.

        Fine is 1 px beside 4 px, in amplitude: what :func:`spatialsig.pp.qc_patches` calls focus.
        """
        if SHARPNESS not in self.aspects:
            return np.full(len(sharpness), np.nan)
        shift = np.asarray(sharpness, np.float64) - self.aspects[SHARPNESS][0].mean
        return np.asarray(np.exp(shift[:, :2].sum(axis=1) / 2), np.float64)

    def contrast_of_slide(self, kept: NDArray[np.float64]) -> float:
        """Fine contrast of a slide, of that of its patches; 1 too where patches in focus may be so, or nothing is known."""
        known = kept[np.isfinite(kept)]
        middle = float(np.median(known)) if len(known) else 1.0
        return middle if middle < self.usual_contrast else 1.0

    @property
    def usual_contrast(self) -> float:
        """Fine contrast that patches in focus still have, as :meth:`contrast_kept` gives it: three deviations below the mean."""
        if SHARPNESS not in self.aspects:
            return float("nan")
        distance = self.aspects[SHARPNESS][0]
        along = distance.axes[:2].sum(axis=0) / 2
        return float(np.exp(-3 * np.sqrt((along**2 * distance.variance).sum())))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as plain arrays."""
        found = {"n_patches": np.array(self.n_patches), "n_patients": np.array(self.n_patients)}
        for name, (distance, threshold) in self.aspects.items():
            parts = (distance.mean, distance.axes, distance.variance, distance.rest, threshold)
            found |= {f"{name}_{part}": np.asarray(value) for part, value in zip(_PARTS, parts, strict=True)}
        return found


def write_domain(directory: Path, domain: TrainingDomain) -> None:
    """Write the domain into the directory of a model."""
    np.savez(directory / DOMAIN, **domain.arrays())  # type: ignore[arg-type]


def read_domain(directory: Path) -> TrainingDomain | None:
    """Domain that a model directory holds, whose files were checked; None for a model of an early version.

    Raises
    ------
    InputError
        If it holds something else.
    """
    path = directory / DOMAIN
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
        aspects = {
            name: (
                Distance(
                    arrays[f"{name}_mean"],
                    arrays[f"{name}_axes"],
                    arrays[f"{name}_variance"],
                    float(arrays[f"{name}_rest"]),
                ),
                float(arrays[f"{name}_threshold"]),
            )
            for name in ASPECTS
            if f"{name}_mean" in arrays
        }
        for name, (_, threshold) in aspects.items():
            if not (np.isfinite(threshold) and threshold > 0):
                msg = f"the threshold of {name} is {threshold}"
                raise ValueError(msg)
        return TrainingDomain(aspects, int(arrays["n_patches"]), int(arrays["n_patients"]))
    except (*DAMAGE, KeyError, TypeError) as error:
        msg = f"{path} holds no domain of a model: {error}. {FIX}"
        raise InputError(msg) from error
