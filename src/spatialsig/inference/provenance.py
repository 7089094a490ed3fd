"""Provenance of inputs and labels: recorded when a model is trained, compared when it is used.

Floor 5, above slide. Used by 12 modules of evaluation, inference, maps, tl, whole_slides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._hashing import array_hash, json_hash
from spatialsig.errors import InputError, KeyMissingError, LeakageError
from spatialsig.models.ensemble import members_of
from spatialsig.nn.backbones import table_key
from spatialsig.nn.signature import VIT
from spatialsig.signatures import scored_genes
from spatialsig.slide.parts import obsm_of
from spatialsig.slide.seen import read_note
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Data, Slide

EMBEDDING, FEATURES, TARGETS, IMAGE = "embedding", "features", "targets", "image"
GENE_SETS = "gene_sets"
# what each of them records about itself under uns["spatialsig"], and which of that decides its values
_STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    EMBEDDING: ("embed_cells", ("model_sha256", "scaler_sha256", "genes")),
    FEATURES: ("embed_patches", ("backbone", "weights_sha256", "patch_px", "um_per_px")),
    TARGETS: ("score_cells", ("method", "names", "genes", GENE_SETS)),
}
_SHOWN = 5  # names that a message lists
INPUTS, FOLDS_OF, LEFT_OUT = "inputs", "folds", "signatures_left_out"  # in the run of a model
HELD_OUT_SEEN = "held_out_seen"  # in the run: what the model was given -> held-out slides that this has learned from
BY_HAND = "changed_by_hand"  # fact: slides that train and on which this is no longer what the record says


def recorded(
    slide: Slide,
    *,
    embedding: tuple[str, str] | None = None,
    features_key: str | None = None,
    targets_key: str | None = None,
    patches: Patches | None = None,
) -> dict[str, dict[str, Any]]:
    """Records of a slide on the origin of its inputs and labels; what it does not say is left out.

    Parameters
    ----------
    embedding
        Table and entry of its ``obsm``.
    features_key, targets_key
        Tables, with the entry of their ``obsm`` after a slash where there is one.
    patches
        Patches whose pixels are read, where no table of features takes their place.
    """
    facts: dict[str, dict[str, Any]] = {}
    if patches is not None and features_key is None:
        facts[IMAGE] = {"stain": _stain(patches)}
    if embedding is not None and _params(slide, embedding[0], EMBEDDING).get("key", embedding[1]) == embedding[1]:
        facts[EMBEDDING] = _facts(_params(slide, embedding[0], EMBEDDING), EMBEDDING)
    if features_key is not None and _keys.ENTRY not in features_key:
        facts[FEATURES] = _facts(_params(slide, features_key, FEATURES), FEATURES)
    if targets_key is not None and _keys.ENTRY not in targets_key:
        facts[TARGETS] = _facts(_params(slide, targets_key, TARGETS), TARGETS)
    return {kind: of_kind for kind, of_kind in facts.items() if of_kind}


def edited(
    slide: Slide, *, embedding: tuple[str, str] | None, features_key: str | None, targets_key: str
) -> Iterator[str]:
    """Kinds of inputs and labels of a slide that are no longer what its records say; arguments as of :func:`recorded`."""
    parts = {EMBEDDING: embedding and obsm_of(*embedding), FEATURES: features_key, TARGETS: targets_key}
    for kind, part in parts.items():
        if part is not None and slide.lineage.is_edited(part):
            yield kind


def notes_of_seen(
    data: Data, signatures_key: str, use_rep: str | None, features_key: str | None
) -> dict[str, dict[str, list[str]]]:
    """What the networks behind embedding and table of features have learned from, where their records say it."""
    found: dict[str, dict[str, list[str]]] = {}
    for slide in open_slides(data):
        if use_rep is not None and _params(slide, signatures_key, EMBEDDING).get("key", use_rep) == use_rep:
            found[f"the autoencoder of {use_rep!r}"] = read_note(_params(slide, signatures_key, EMBEDDING))
        if features_key is not None and _keys.ENTRY not in features_key:
            found[f"the network of {features_key!r}"] = read_note(_params(slide, features_key, FEATURES))
        break  # of the others training checks that they are the same
    return found


def check_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], *, slide: str, other: str) -> None:
    """Raise :class:`InputError` listing how a slide's inputs and labels were made otherwise than those of ``other``.

    Only what both say is compared, whether a store or a model keeps it.
    """
    pairs = {
        f"{kind} `{fact}`": (_plain(theirs[kind][fact]), _plain(ours[kind][fact]))
        for kind in theirs.keys() & ours.keys()
        for fact in theirs[kind].keys() & ours[kind].keys()
    }
    differences = [f"{what}: {_difference(a, b)}" for what, (a, b) in pairs.items() if a != b]
    if differences:
        listed = "\n  ".join(sorted(differences))
        msg = (
            f"slide {slide!r} does not fit {other}:\n  {listed}\nMake embeddings, features and labels of all slides with "
            "the same models and gene sets, and call `sp.pp.normalize_stain` on all of them or on none."
        )
        raise InputError(msg)


def check_inputs(patches: Patches, model: SignatureModel, *, use_rep: str | None, signatures_key: str) -> None:
    """Refuse what was made otherwise than the model learned from: embedding, table of features, stain of the patches.

    Raises
    ------
    InputError
        Listing the differences.
    """
    embedding = None if use_rep is None else (signatures_key, use_rep)
    features_key = table_key(backbone_of(model))
    here = recorded(patches.slide, embedding=embedding, features_key=features_key, patches=patches)
    other = "the model, which was trained with"
    check_same(model.run.get(INPUTS, {}), here, slide=patches.slide.name, other=other)


def why_absent(name: str, model: SignatureModel) -> str:
    """Why a model does not predict a signature that was scored; empty where it does, or where nothing is known of it."""
    return (
        f"{name!r} was measured on no training slide, so the model left it out; `sp.pl.coverage` shows what a panel measures."
        if name in model.run.get(LEFT_OUT, ())
        else ""
    )


def backbone_of(model: SignatureModel | None) -> str:
    """Name of the image network of a model, which all members of an ensemble share; our own where there is no model."""
    return VIT if model is None else members_of(model)[0].config.backbone


def result_hashes(
    patches: Patches, model: SignatureModel, embedding: NDArray[np.float32] | None, intervals: Mapping[str, Any] | None
) -> dict[str, str]:
    """Hashes of what decides a prediction beside the weights: patches with their folds, embedding, intervals, features.

    Empty for what is not used; features are named only for a model that reads them in place of images.
    """
    hashes = {
        "patches_sha256": patches.content_hash,
        "embedding_sha256": "" if embedding is None else array_hash(embedding),
        "intervals_sha256": "" if intervals is None else json_hash(dict(intervals)),
    }
    key = table_key(backbone_of(model))
    return (
        hashes if key is None else hashes | {"features_sha256": array_hash(patches.matrix(key, name="backbone").values)}
    )


def refuse_own_embedding(data: Data, use_rep: str, signatures_key: str) -> None:
    """Refuse an embedding that an autoencoder trained on these slides made.

    Raises
    ------
    LeakageError
        If a slide records it.
    """
    for slide in open_slides(data):
        record = slide.params(signatures_key).get("embed_cells", {})
        if record and record.get("key", use_rep) == use_rep:
            msg = (
                f"slide {slide.name!r}: {use_rep!r} is the embedding of an autoencoder that was trained on these slides, so "
                "it has seen folds that are held out here. Leave `refit_autoencoder=True`."
            )
            raise LeakageError(msg)


def genes_scored(data: Data, signatures_key: str) -> dict[str, list[str]]:
    """Genes of every signature that was scored: what the autoencoder must not see."""
    for slide in open_slides(data):
        scored = slide.params(signatures_key).get("score_cells") or {}
        if not scored:
            msg = (
                f"slide {slide.name!r}: table {signatures_key!r} does not say which genes were scored, so the autoencoder "
                "cannot leave them out. Pass `autoencoder={'signatures': ...}`, or `use_rep=None`."
            )
            raise KeyMissingError(msg)
        return scored_genes(scored)
    msg = "`data` holds no slide."
    raise InputError(msg)


def _stain(patches: Patches) -> str:
    """Name of the method that normalises the colours of patches."""
    stain = patches.spec.stain
    return "none" if stain is None else str(stain["method"])


def _params(slide: Slide, table: str, kind: str) -> dict[str, Any]:
    if table not in slide.sdata.tables:
        return {}
    return dict(slide.sdata.tables[table].uns.get(_keys.NAMESPACE, {}).get(_STEPS[kind][0], {}))


def _facts(params: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if {"names", "genes", "weights"} <= params.keys():
        params = {**params, GENE_SETS: _gene_sets(params)}
    return {fact: _plain(params[fact]) for fact in _STEPS[kind][1] if fact in params}


def _gene_sets(scored: Mapping[str, Any]) -> list[str]:
    """Each signature with a hash of its genes and their weights, whatever their order."""
    genes, columns = list(map(str, scored["genes"])), np.asarray(scored["weights"], np.float64).T
    weighted = [
        sorted((gene, round(w, 9)) for gene, w in zip(genes, own.tolist(), strict=True) if w) for own in columns
    ]
    return [f"{name} ({json_hash(own)[:8]})" for name, own in zip(map(str, scored["names"]), weighted, strict=True)]


def _plain(value: Any) -> Any:
    """The same value in types that JSON gives back as they were."""
    if isinstance(value, np.ndarray | list | tuple):
        return [str(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _difference(theirs: Any, ours: Any) -> str:
    if not (isinstance(theirs, list) and isinstance(ours, list)):
        return f"{_short(theirs)} wanted, {_short(ours)} here"
    gone, new = (sorted(a - b) for a, b in ((set(theirs), set(ours)), (set(ours), set(theirs))))
    if not gone and not new:
        return "the same in another order"
    parts = [f"{len(theirs)} wanted, {len(ours)} here"]
    parts += [f"{word} {', '.join(names[:_SHOWN])}" for word, names in (("without", gone), ("with", new)) if names]
    return ", ".join(parts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:20]}...{text[-8:]}"
