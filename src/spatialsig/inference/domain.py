"""Whether patches are like those that a model has learned from: its training domain is learned, and watched while it predicts.

Floor 5, above slide. Used by 10 modules of atlas, cli, inference, maps, tl, whole_slides.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig._checks import warn
from spatialsig.data.features import FeatureSource, in_batches
from spatialsig.models.domain import FIRST, SHARPNESS, STAIN, TISSUE, OutOfDomain, TrainingDomain
from spatialsig.models.ensemble import members_of, placed
from spatialsig.nn.device import fast_matmul, kept_memory
from spatialsig.nn.signature import SignatureNet
from spatialsig.stats.appearance import appearance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from spatialsig.inference.training_set import LabelledPatches
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.models.vit import SignatureViT

MAX_PATCHES = 2000
FEW_PATIENTS = 10  # of which the spread over patients, and so the threshold, is uncertain
MIN_PATCHES = 30  # fewer have no kind that others could be compared with
BATCH = 64


def learn_domain(
    model: SignatureViT, pixels: Sequence[LabelledPatches], seen: Sequence[LabelledPatches]
) -> TrainingDomain | None:
    """Domain of a trained model; None where it learned from next to no patches.

    Parameters
    ----------
    pixels, seen
        Training patches of each slide, as they are and as what learned saw them (of a frozen network, its features).
    """
    if sum(map(len, seen)) < MIN_PATCHES:
        return None
    rows = _chosen([len(patches) for patches in seen])
    parts = [_values(model, p.rows(own), s.rows(own)) for p, s, own in zip(pixels, seen, rows, strict=True)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = {name: found for name, found in values.items() if np.isfinite(found).all(axis=1).sum() >= MIN_PATCHES}
    patients = np.repeat([patches.patient for patches in seen], list(map(len, rows)))
    slides = np.repeat([str(k) for k in range(len(seen))], list(map(len, rows)))
    return TrainingDomain.learn(known, patients, slides) if known else None


def _chosen(lengths: Sequence[int]) -> list[NDArray[np.int64]]:
    """Rows of every slide, at most :data:`MAX_PATCHES` of all, as many of each as its length allows."""
    most = max(1, MAX_PATCHES // len(lengths))
    draw = np.random.default_rng(0)
    return [np.sort(draw.choice(n, most, replace=False)) if n > most else np.arange(n) for n in lengths]


def _values(model: SignatureViT, pixels: LabelledPatches, seen: LabelledPatches) -> dict[str, NDArray[Any]]:
    """Numbers of the patches of one slide in every aspect that they can be told in, in the order of their place."""
    parts: list[dict[str, NDArray[Any]]] = []
    places: list[NDArray[np.int64]] = []
    with placed(model) as device, fast_matmul(), kept_memory():
        for batch, inputs in in_batches(pixels.source, BATCH):
            values: dict[str, NDArray[Any]] = {} if isinstance(pixels.source, FeatureSource) else _looks(inputs)
            if isinstance(model.net, SignatureNet):
                source = seen.source
                features = source.features[batch] if isinstance(source, FeatureSource) else None
                values[TISSUE] = _features(model.net, inputs, features, device)
            parts.append(values)
            places.append(batch)
    back = np.argsort(np.concatenate(places))
    order = np.argsort(pixels.centres[:, int(np.ptp(pixels.centres, axis=0).argmax())], kind="stable")
    return {name: np.concatenate([part[name] for part in parts])[back][order] for name in parts[0]}


def _looks(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    stain, sharpness = appearance(images)
    return {STAIN: stain, SHARPNESS: sharpness}


@torch.inference_mode()
def _features(
    net: SignatureNet, images: NDArray[Any], features: NDArray[np.float32] | None, device: torch.device
) -> NDArray[np.float32]:
    """Features of patches that the head of the network reads, of the image alone; ``features`` where the backbone has given them."""
    given = torch.from_numpy(np.ascontiguousarray(images if features is None else features)).to(device)
    if features is not None:
        read = given
    elif net.config.fusion == "none":
        read = net.backbone(given)
    else:
        read = net.features(given, net.fusion.embed(*net.fusion.given(None, None, len(given))))
    whitened: NDArray[np.float32] = net.whiten(read).float().cpu().numpy()
    return whitened


class DomainWatch:
    """Compares the patches of a slide with the domain of a model while it predicts them: nothing is computed twice.

    Parameters
    ----------
    model
        What predicts; of an ensemble, its first member is watched.
    n
        Patches that it will see.
    n_views, with_expression
        How it is asked.
    """

    def __init__(self, model: SignatureModel, n: int, *, n_views: int, with_expression: bool) -> None:
        self._member = members_of(model)[0]
        self._domain = self._member.domain
        # of a network that is asked several times, the first time shows the patch as it is
        self._every = n_views
        fused = with_expression and self._member.config.fusion == "token"  # whose features hold the expression
        net = self._member.net
        self._read_by_head = net.whiten if isinstance(net, SignatureNet) and not fused else None
        self._features: list[NDArray[np.float32]] = []
        self._ood = np.full(n, np.nan, np.float32)
        self._reason = np.full(n, "", "<U9")
        self._ratios: dict[str, NDArray[np.float32]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the head reads, in this thread, inside the block."""
        if self._domain is None or self._read_by_head is None:
            yield
            return
        own = threading.get_ident()

        def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
            if threading.get_ident() == own:
                self._features.append(output.float().cpu().numpy())

        handle = self._read_by_head.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def see(self, batch: NDArray[np.int64], images: NDArray[Any]) -> None:
        """Compare patches that were just predicted."""
        if self._domain is None:
            return
        values: dict[str, NDArray[Any]] = _looks(images) if images.ndim == 4 else {}
        if self._features:
            values[TISSUE] = np.concatenate(self._features[:: self._every])[
                : len(batch)
            ]  # of a member that is there twice
            self._features.clear()
        if values:
            found = self._domain.compare(values)
            self._ood[batch], self._reason[batch] = found.ood, found.reason
            for name, ratios in found.ratios.items():
                self._ratios.setdefault(name, np.full(len(self._ood), np.nan, np.float32))[batch] = ratios

    def result(self) -> OutOfDomain | None:
        """What was found; None for a model without a domain."""
        return None if self._domain is None else OutOfDomain(self._ood, self._reason, self._ratios)


def warn_of_slide(name: str, found: OutOfDomain | None, model: SignatureModel) -> None:
    """Say that a slide lies outside what the model has learned from, in what, and what to look at."""
    if found is not None and found.aspects:
        fixes = dict(_FIXES) if members_of(model)[0].stain == "none" else _FIXES | {STAIN: _NORMALISED}
        said = outside_in_words(found.as_record())
        warn(f"slide {name!r}: {said} {' '.join(fixes[aspect] for aspect in found.aspects)}")


def outside_in_words(record: Mapping[str, Any]) -> str:
    """Sentence on a slide that lies outside, of what is kept of it; empty for one within."""
    if not record or not float(record["slide"]) > 1:
        return ""
    in_what = " and ".join(str(record["reason"]).rsplit(", ", 1))
    return (
        f"{float(record['share']):.0%} of its patches lie outside what the model learned from, in their {in_what} "
        f"({FIRST:.0%} exceed {float(record['slide']):.1f} where 1 is the end of the training domain): its scores may mean nothing."
    )


def reference_in_words(n_patches: int, n_patients: int) -> str:
    """Sentence on what a training domain was learned from, and what so few patients cannot show."""
    of = f"{n_patches:,} patches of {n_patients} patient{'' if n_patients == 1 else 's'}"
    few = f": of fewer than {FEW_PATIENTS} patients, only gross shifts are seen" if n_patients < FEW_PATIENTS else ""
    return f"What the model learned from is known by {of}{few}."


_FIXES = {
    STAIN: "Look whether it is an H&E; another laboratory's colours may fit after `sp.pp.normalize_stain` on all slides, before training too.",
    SHARPNESS: "Look whether it is in focus (`sp.pp.qc_patches`) and whether its µm/px are right (`sp.io.mpp`).",
    TISSUE: "Look whether it is tissue of the kind that the model was trained on (its model card says which).",
}
_NORMALISED = (
    "Its colours differ even after normalisation: look whether it is an H&E, without strong compression or noise."
)
