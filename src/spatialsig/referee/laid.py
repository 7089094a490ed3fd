"""Outside predictions of one slide as scores of its patches, and the table that keeps them.

Floor 11, above report. Used by referee/doubts, referee/judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.referee.columns import CELL
from spatialsig.referee.places import Laid, lay
from spatialsig.referee.scores import SCORES, Genes, genes_of, scores_of_genes, signature_scores_of
from spatialsig.referee.units import refuse_impossible
from spatialsig.slide.added import check_added
from spatialsig.slide.parts import members_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.referee.columns import Outside
    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide


@dataclass(frozen=True)
class Terms:
    """What was said of the predictions, and names of elements."""

    unit: str
    by: str | None
    coordinates: str | None
    size_um: float | None
    name: str
    key_added: str
    patches_key: str
    signatures_key: str
    table_key: str


@dataclass(frozen=True)
class Judged:
    """Scores of all patches of a slide, and what they were made from."""

    scores: NDArray[np.float64]  # (n_patches, n_signatures)
    ids: NDArray[Any]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    by: str
    how: str
    missing: dict[str, str] = field(default_factory=dict)  # signature -> why it has no score
    genes: Genes | None = None  # of the rows that lie on a patch


def lay_slide(slide: Slide, *, outside: Mapping[str, Outside], terms: Terms) -> Judged | None:
    """Match, score and keep the predictions of a slide; None where it has none."""
    if slide.name not in outside:
        return None
    own, patches = outside[slide.name], slide.patches(terms.patches_key)
    check_added(slide, terms.key_added, made_by="tl.referee")
    names = patches.labels(terms.signatures_key).names
    refuse_impossible(own.values, terms.unit, where=f"{own.where}, slide {slide.name!r}")
    laid = lay(
        own, patches, table_key=terms.table_key, by=terms.by, coordinates=terms.coordinates, size_um=terms.size_um
    )
    scores, missing, genes = _scores(slide, own, laid, names, terms)
    row, col = (patches.origins // patches.spec.stride_l0).T
    found = Judged(laid.of_patches(scores), patches.ids.to_numpy(), row, col, laid.by, laid.how, missing, genes)
    _keep(patches, found, names, own, terms)
    return found


def _scores(
    slide: Slide, own: Outside, laid: Laid, names: list[str], terms: Terms
) -> tuple[NDArray[np.float64], dict[str, str], Genes | None]:
    if terms.unit == SCORES:
        scores, absent = signature_scores_of(own, names)
        return scores, dict.fromkeys(absent, "not predicted"), None
    scored = slide.params(terms.signatures_key).get("score_cells") or {}
    if "weights" not in scored:
        msg = (
            f"slide {slide.name!r}: the labels {terms.signatures_key!r} are no scores of genes, so that predicted genes cannot be scored "
            "alike; give predictions of the labels themselves: `unit='scores'`."
        )
        raise InputError(msg)
    genes = genes_of(own, scored)
    scores, missing = scores_of_genes(genes, scored, names, terms.unit)
    on_patches = laid.weights.tocsc().getnnz(axis=0) > 0
    return scores, missing, replace(genes, values=genes.values[on_patches])


def _keep(patches: Patches, found: Judged, names: list[str], own: Outside, terms: Terms) -> None:
    slide = patches.slide
    table = patches.table(found.scores, names, n_cells=patches.n_cells(terms.signatures_key))
    record: dict[str, Any] = {"name": terms.name, "unit": terms.unit, "matched": found.how, "n_rows": len(own.values)}
    # "predict" marks the table as predictions, which no function takes for labels
    table.uns[_keys.NAMESPACE] = {"referee": record, "predict": {"inputs": terms.name, "training_samples": []}}
    sources = [terms.patches_key, *([members_of(terms.table_key, terms.patches_key)] if found.by == CELL else [])]
    slide.put(terms.key_added, table, made_by="tl.referee", sources=sources)
