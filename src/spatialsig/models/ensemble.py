"""Several signature models that predict as one, and say how far they disagree.

Floor 2, above geometry, nn, signatures, stats, store. Called as sp.models.SignatureEnsemble, sp.models.load_signature_model; used by 36 modules of 9 rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spatialsig._arguments import AnyPath, checked
from spatialsig._checks import check_files
from spatialsig._hashing import content_hash, file_hash
from spatialsig._known import what_is
from spatialsig.errors import InputError
from spatialsig.models.card import write_card
from spatialsig.models.directory import CONFIG, FORMAT, read_config, refuse_other_kind, replacing
from spatialsig.models.intervals import checked_intervals
from spatialsig.models.record import RUN, Described, read_json, read_record, reads_model, write_json, write_record
from spatialsig.models.triage import Calibration, calibration_from, triage_as_json
from spatialsig.models.vit import Codes, Pixels, Scores, SignatureViT
from spatialsig.nn.device import on_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from spatialsig.models.domain import TrainingDomain

_FIX = "Save the ensemble again, or fetch an undamaged copy."
_SAME_RUN = ("test_fold", "use_rep")  # what decides on which slides and with which inputs a model may be judged


class SignatureEnsemble(Described):
    """Mean of several signature models, taken wherever one is.

    Parameters
    ----------
    members
        At least two models of the same signatures, patches, inputs and test fold.
    run
        Provenance, JSON-able; what the members share is taken from them.

    Attributes
    ----------
    members
        The models.
    signatures, patch_px, um_per_px
        As of every member.
    intervals
        Prediction intervals by kind of input, see :func:`spatialsig.tl.calibrate`; None before it.
    triage
        Calibration slides by kind of input, see :func:`spatialsig.tl.triage`; None before it.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty estimation using deep ensembles,
    NeurIPS 2017, https://doi.org/10.48550/arXiv.1612.01474

    Examples
    --------
    :func:`spatialsig.tl.train_ensemble` makes one from slides. Of two untrained models of one score:

    >>> import numpy as np
    >>> from spatialsig.models import SignatureEnsemble, SignatureViT
    >>> from spatialsig.nn.signature import SignatureConfig
    >>> scale = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
    >>> members = [SignatureViT(SignatureConfig(), ["T cell"], **scale, patch_px=64, um_per_px=0.5) for _ in range(2)]
    >>> ensemble = SignatureEnsemble(members)
    >>> mean, std = ensemble.predict_distribution(np.full((3, 3, 64, 64), 200, np.uint8))
    >>> mean.shape, std.shape
    ((3, 1), (3, 1))

    Raises
    ------
    InputError
        If there are fewer than two, or they differ; every difference is named.
    """

    kind = "SignatureEnsemble"

    @checked
    def __init__(self, members: Sequence[SignatureViT], *, run: dict[str, Any] | None = None) -> None:
        if len(members) < 2:
            msg = f"`members` are {len(members)} model(s); wanted at least 2."
            raise InputError(msg)
        if differences := _differences(members):
            msg = "the models of an ensemble must agree:\n  " + "\n  ".join(differences)
            raise InputError(msg)
        first = members[0]
        self.members = tuple(members)
        self.signatures, self.patch_px, self.um_per_px = first.signatures, first.patch_px, first.um_per_px
        self.run = _joined_run(members) | dict(run or {})
        self.intervals: dict[str, Any] | None = None
        self.triage: dict[str, Calibration] | None = None

    @property
    def uses_expression(self) -> bool:
        """Whether predictions can take an expression embedding into account."""
        return self.members[0].uses_expression

    @property
    def domain(self) -> TrainingDomain | None:
        """What its first member has learned from, as far as others can be compared with it."""
        return self.members[0].domain

    @property
    def knows_uncertainty(self) -> bool:
        """Whether :meth:`predict_distribution` can be asked: always, by how far the members disagree."""
        return True

    @checked
    def predict(self, images: Pixels, ae: Codes = None, **options: Any) -> Scores:
        """Mean of the members' scores, ``(n, n_signatures)`` float32; options as of :meth:`SignatureViT.predict`."""
        total = np.zeros((len(images), len(self.signatures)))
        for member in self.members:
            total += member.predict(images, ae, **options)
        return (total / len(self.members)).astype(np.float32)

    @checked
    def predict_distribution(self, images: Pixels, ae: Codes = None, **options: Any) -> tuple[Scores, Scores]:
        """Mean and standard deviation of the mixture of the members, ``(n, n_signatures)`` float32 each.

        Options as of :meth:`SignatureViT.predict`.

        The variance is that between the members' means (with ``n - 1``, since they are a few out of many that could have
        been trained) and, where the members know one, the mean of their own variances.
        """
        means, variance = [], np.zeros((len(images), len(self.signatures)))
        for member in self.members:
            mean, std = predict_with_deviation(member, images, ae, **options)
            means.append(mean.astype(np.float64))
            if std is not None:
                variance += std.astype(np.float64) ** 2 / len(self.members)
        stacked = np.stack(means)
        std = np.sqrt(variance + stacked.var(axis=0, ddof=1))
        return stacked.mean(axis=0).astype(np.float32), std.astype(np.float32)

    @checked
    def save(self, directory: AnyPath, *, overwrite: bool = False) -> None:
        """Write a directory with one model directory per member and a manifest, whole or not at all.

        In place of a model that is there only with ``overwrite``, else :class:`StoreError`.
        """
        with replacing(Path(directory), overwrite=overwrite) as draft:
            names = [f"member-{index:02d}" for index in range(len(self.members))]
            for name, member in zip(names, self.members, strict=True):
                member.save(draft / name)
            listed = [{"directory": name, "sha256": file_hash(draft / name / RUN)} for name in names]
            config = {"format": FORMAT, "kind": self.kind, "members": listed, "intervals": self.intervals}
            write_json(draft / CONFIG, config | triage_as_json(self.triage))
            write_record(draft, [CONFIG], self.run)
            write_card(draft, self.card(), before=Path(directory))

    @classmethod
    @checked
    @reads_model
    def load(cls, directory: AnyPath) -> SignatureEnsemble:
        """Read the directory of an ensemble.

        Raises
        ------
        FileMissingError
            If files are missing.
        InputError
            If a file was altered, or a member is not the one that was saved.
        """
        place = Path(directory)
        refuse_other_kind(place, cls.kind)
        check_files([place / CONFIG, place / RUN], what=f"ensemble directory {place}", fix=_FIX, folders=False)
        run, config = read_record(place, [CONFIG]), read_config(place, cls.kind)
        members = [_load_member(place, entry) for entry in config.get("members", [])]
        ensemble = cls(members, run=run)
        ensemble.intervals = checked_intervals(config.get("intervals"), ensemble.signatures, where=str(place / CONFIG))
        ensemble.triage = calibration_from(config.get("triage"), ensemble.signatures, where=str(place / CONFIG))
        return ensemble


SignatureModel: TypeAlias = SignatureViT | SignatureEnsemble  # what predicts


@checked
def load_signature_model(directory: AnyPath) -> SignatureModel:
    """Read a model directory, of one signature model or of an ensemble of them.

    Raises
    ------
    FileMissingError
        If there is no model.
    InputError
        If it is neither, or damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from spatialsig.models import SignatureViT, load_signature_model
    >>> from spatialsig.nn.signature import SignatureConfig
    >>> scale = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
    >>> model = SignatureViT(SignatureConfig(), ["T cell"], **scale, patch_px=64, um_per_px=0.5)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     model.save(f"{directory}/vit")
    ...     load_signature_model(f"{directory}/vit").signatures
    ('T cell',)
    """
    place = Path(directory)
    fix = f"Give a directory that `model.save` wrote.{what_is(place)}"
    check_files([place / CONFIG], what=f"model directory {place}", fix=fix, folders=False)
    kind = read_json(place / CONFIG, dict).get("kind")
    return SignatureEnsemble.load(place) if kind == SignatureEnsemble.kind else SignatureViT.load(place)


def members_of(model: SignatureModel) -> tuple[SignatureViT, ...]:
    """The single models that predict together."""
    return model.members if isinstance(model, SignatureEnsemble) else (model,)


@contextmanager
def placed(model: SignatureModel, device: str | None = None) -> Iterator[torch.device]:
    """Device on which a model lies for the length of a call, see :func:`spatialsig.nn.device.on_device`."""
    with on_device(*(member.net for member in members_of(model)), device=device) as chosen:
        yield chosen


def predict_with_deviation(
    model: SignatureModel, images: Pixels, ae: Codes = None, **options: Any
) -> tuple[Scores, Scores | None]:
    """Scores ``(n, n_signatures)``, and their standard deviation where the model knows it."""
    if model.knows_uncertainty:
        return model.predict_distribution(images, ae, **options)
    return model.predict(images, ae, **options), None


def weights_hash(model: SignatureModel) -> str:
    """SHA-256 of all weights, and of the scale of the scores, of a model, as hex digits."""
    return content_hash(part for member in members_of(model) for part in _weight_parts(member))


def _weight_parts(member: SignatureViT) -> Iterator[str | NDArray[Any]]:
    for name, tensor in sorted(member.net.state_dict().items()):
        yield from (name, tensor.cpu().numpy())
    yield from (member.target_mean, member.target_std, member.ae_mean, member.ae_std)


def _load_member(place: Path, entry: Any) -> SignatureViT:
    name = entry.get("directory") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        msg = f"{place / CONFIG}: member {entry!r}; wanted a directory beside it. {_FIX}"
        raise InputError(msg)
    check_files([place / name / RUN], what=f"member {name} of the ensemble {place}", fix=_FIX, folders=False)
    if file_hash(place / name / RUN) != entry.get("sha256"):
        msg = f"{place / name} is not the model that was saved (its SHA-256 differs from {CONFIG}). {_FIX}"
        raise InputError(msg)
    return SignatureViT.load(place / name)


def _differences(members: Sequence[SignatureViT]) -> list[str]:
    """Every way in which a member is not like the first."""
    wanted = _design(members[0])
    return [
        f"model {index} has {name} {found!r}, model 0 {wanted[name]!r}"
        for index, member in enumerate(members)
        for name, found in _design(member).items()
        if found != wanted[name]
    ]


def _design(member: SignatureViT) -> dict[str, Any]:
    design = {name: getattr(member, name) for name in ("signatures", "patch_px", "um_per_px", "uses_expression")}
    return design | {"n_latent": member.config.n_latent} | {name: member.run.get(name) for name in _SAME_RUN}


def _joined_run(members: Sequence[SignatureViT]) -> dict[str, Any]:
    """What the members share, the slides that any of them learned from, and the first one's history."""
    runs = [member.run for member in members]
    shared = {key: value for key, value in runs[0].items() if all(run.get(key) == value for run in runs)}
    samples = [sample for run in runs for sample in run.get("training_samples", [])]
    joined = shared | {"training_samples": list(dict.fromkeys(samples)), "seeds": [run.get("seed") for run in runs]}
    return joined | ({"history": runs[0]["history"]} if "history" in runs[0] else {})
