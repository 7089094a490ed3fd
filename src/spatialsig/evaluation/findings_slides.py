"""Findings from what the steps recorded on the slides: folds, genes, labels, registration.

Floor 6, above expression, inference, labels. Used by evaluation/evaluate, evaluation/rows, referee/judge, tl/_evaluate.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig.evaluation.schema import ERROR, EVERY_SLIDE, NOTE, SHOWN, WARNING, Finding
from spatialsig.signatures import scored_genes, shared_genes
from spatialsig.slide.folds import torn_patients
from spatialsig.slide.seen import SEEN, read_note, seen_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

FAR_UM = 10.0  # a longer shift of the H&E costs labels of 112-um patches more than .01 of r
IN_PATCHES = 0.5  # share of the cells that must lie in some patch
TIES = 0.2  # share of patches on one identical label
OVERLAP = 0.5  # share of the smaller signature that another one holds
COVERAGE = 0.5  # share of a signature that is measured
GENES = "Gene Expression"
_CONTROL = re.compile(r"^(neg(ative)?[ _-]?(control|prb|probe)|unassigned|blank|antisense|deprecated|intergenic)", re.I)


@dataclass(frozen=True)
class SlideFacts:
    """Records that the steps left on one slide."""

    name: str
    patient: str
    patient_known: bool
    split: Mapping[str, Any]
    alignment: Mapping[str, Any]
    scored: Mapping[str, Any]
    embedded: Mapping[str, Any]
    labelled: Mapping[str, Any]
    assigned: Mapping[str, Any]
    chosen: Mapping[str, Any]
    controls: list[str]
    signatures: list[str]
    stale: str = ""  # why the labels are no longer those of the slide

    @property
    def members(self) -> NDArray[np.bool_]:
        """Mask of the genes that each signature is scored by, ``(n_genes, n_signatures)``."""
        return np.asarray(np.asarray(self.scored["weights"]) != 0)


def slide_facts(slide: Slide, *, signatures_key: str, table_key: str) -> SlideFacts:
    """Read the records that the steps left on a slide."""
    labels = slide.params(signatures_key) if signatures_key in slide.sdata.tables else {}
    cells = slide.params(table_key) if table_key in slide.sdata.tables else {}
    scored = labels.get("score_cells") or {}
    return SlideFacts(
        name=slide.name,
        patient=slide.patient,
        patient_known=bool(slide.attrs.get(_keys.PATIENT)),
        split=slide.attrs.get("split", {}),
        alignment=slide.attrs.get("qc_alignment", {}),
        scored=scored if "weights" in scored else {},
        embedded=labels.get("embed_cells") or {},
        labelled=labels.get("aggregate_patches") or {},
        assigned=cells.get("assign_cells") or {},
        chosen=cells.get("highly_variable_genes") or {},
        controls=_controls(slide, table_key),
        signatures=list(slide.sdata.tables[signatures_key].var_names) if labels else [],
        stale=next(slide.lineage.stale(signatures_key), "") if labels else "",
    )


def _controls(slide: Slide, table_key: str) -> list[str]:
    if table_key not in slide.sdata.tables:
        return []
    var = slide.sdata.tables[table_key].var
    typed = var["feature_types"].astype(str) != GENES if "feature_types" in var else np.zeros(len(var), bool)
    return [str(name) for name, other in zip(var.index, typed, strict=True) if other or _CONTROL.match(str(name))]


def slide_findings(slides: list[SlideFacts], *, test_fold: int | None, embedding: bool = True) -> Iterator[Finding]:
    """Findings that need no result; ``embedding`` where something has learned from that of the cells, or may."""
    yield from _folds(slides, test_fold)
    if embedding:
        yield from _shared_genes(slides)
    yield from _learnt_from_test(slides, test_fold, embedding=embedding)
    yield from _scalers(slides)
    yield from _signatures(slides)
    for facts in slides:
        yield from _findings_on(facts)


def _folds(slides: list[SlideFacts], test_fold: int | None) -> Iterator[Finding]:
    random = [facts.name for facts in slides if facts.split.get("by") == "random"]
    if random:
        yield Finding(
            "random_split", ERROR, EVERY_SLIDE,
            f"The folds of {first_few(random, n=SHOWN)} are random patches: neighbours of every test patch were learned from, so all "
            "scores are too high. Split by patient: `sp.pp.split(data)`.",
        )  # fmt: skip
    by_patient = {facts.name: (facts.patient, facts.split) for facts in slides}
    if torn := torn_patients(by_patient, None if test_fold is None else [test_fold]):
        yield Finding("patient_in_two_folds", ERROR, EVERY_SLIDE, torn[0].upper() + torn[1:])
    unknown = [facts.name for facts in slides if not facts.patient_known]
    if unknown and len(slides) > 1:
        yield Finding(
            "patient_unknown", WARNING, EVERY_SLIDE,
            f"The patient of {len(unknown)} of {len(slides)} slides is not known ({first_few(unknown, n=SHOWN)}): two sections of one "
            "patient in different folds leak. Set sdata.attrs['spatialsig']['patient'] and split again.",
        )  # fmt: skip


def _shared_genes(slides: list[SlideFacts]) -> Iterator[Finding]:
    for facts in slides:
        if not facts.scored or "genes" not in facts.embedded:
            continue
        used = {gene for genes in scored_genes(facts.scored).values() for gene in genes}
        shared = sorted({gene for genes in shared_genes(facts.scored, facts.embedded).values() for gene in genes})
        if shared:
            yield Finding(
                "embedding_shares_genes", ERROR, EVERY_SLIDE,
                f"The embedding was made from {len(shared)} of the {len(used)} genes that the labels are made of "
                f"({first_few(shared, n=SHOWN)}): it holds the answer, and scores with it say nothing about the image. Train the "
                "autoencoder with `signatures=` set to the same signatures.",
            )  # fmt: skip
            return


def _learnt_from_test(slides: list[SlideFacts], test_fold: int | None, *, embedding: bool) -> Iterator[Finding]:
    if test_fold is None:
        return
    fix = f"pass `test_fold={test_fold}`"
    steps = (
        ("genes_from_test", "chosen", "The variable genes were chosen", f"`sp.pp.highly_variable_genes`: {fix}"),
        ("scores_from_test", "scored", "The scale of the labels was learnt", f"`sp.tl.score_cells`: {fix}"),
        ("embedding_from_test", "embedded", "The autoencoder was trained", f"`sp.tl.train_autoencoder`: {fix}"),
    )
    for name, step, what, call in steps if embedding else steps[:-1]:
        looked = [f.name for f in slides if int(getattr(f, step).get("test_fold", test_fold)) != test_fold]
        notes = {json: read_note({SEEN: json}) for f in slides if (json := str(getattr(f, step).get(SEEN, "")))}
        splits = [(f.name, f.patient, f.split) for f in slides]
        looked = looked or [name for seen in notes.values() for name in seen_of(splits, seen, [test_fold])]
        if looked:
            yield Finding(
                name, ERROR, EVERY_SLIDE,
                f"{what} with the test fold {test_fold} in view ({first_few(looked, n=SHOWN)}), so the test slides are not unseen. "
                f"In {call}, and run what follows again.",
            )  # fmt: skip


def _scalers(slides: list[SlideFacts]) -> Iterator[Finding]:
    scored = [facts for facts in slides if facts.scored]
    for facts in scored[1:]:
        if not _same(facts.scored, scored[0].scored):
            yield Finding(
                "scales_differ", ERROR, EVERY_SLIDE,
                f"The labels of {facts.name} and {scored[0].name} are on different scales: genes, means or deviations "
                "differ, as when slides are scored one by one. Call `sp.tl.score_cells` once with all slides.",
            )  # fmt: skip
            return


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    learnt = ("mean", "std", "weights", "controls", "max_rank")
    if list(a["genes"]) != list(b["genes"]) or a.get("method") != b.get("method"):
        return False
    return all(np.shape(a.get(k, 0)) == np.shape(b.get(k, 0)) and np.allclose(a.get(k, 0), b.get(k, 0)) for k in learnt)


def _signatures(slides: list[SlideFacts]) -> Iterator[Finding]:
    facts = next((facts for facts in slides if facts.scored), None)
    if facts is None:
        return
    members, names = facts.members.astype(np.int64), [str(name) for name in facts.scored["names"]]
    shared, size = members.T @ members, members.sum(axis=0)
    for i, j in itertools.combinations(range(len(names)), 2):
        smaller = min(size[i], size[j])
        if smaller and shared[i, j] >= OVERLAP * smaller:
            yield Finding(
                "signatures_overlap", WARNING, EVERY_SLIDE,
                f"{names[i]} and {names[j]} share {shared[i, j]} of {smaller} measured genes: they are nearly one target, "
                "and count twice in every mean. Leave one out, or give each its own genes.",
            )  # fmt: skip
    panel, measured = (np.asarray(facts.scored[key]) for key in ("n_genes_panel", "n_genes_measured"))
    for name, n, of in zip(names, measured, panel, strict=True):
        if n < COVERAGE * of or n < min(3, of):
            yield Finding(
                "coverage_low", WARNING, EVERY_SLIDE,
                f"{name} is measured by {n} of its {of} genes on all slides, so it is not the signature its name says. "
                "Leave it out, or use a panel that has its genes.",
            )  # fmt: skip


def _findings_on(facts: SlideFacts) -> Iterator[Finding]:
    name = facts.name
    if facts.stale:
        text = f"The labels are not those of the slide any more: {facts.stale}"
        yield Finding("labels_are_stale", ERROR, name, text)
    share = float(facts.assigned.get("share_in_patches", 1.0))
    if share < IN_PATCHES:
        on_image = float(facts.assigned.get("share_on_image", np.nan))
        yield Finding(
            "cells_outside_patches", ERROR, name,
            f"Slide {name}: {share:.0%} of the cells lie in a patch ({on_image:.0%} on the image), so most labels come "
            "from the wrong place or from nowhere. Check that obsm['spatial'] is in um, and the alignment of the H&E.",
        )  # fmt: skip
    yield from _registration(facts)
    ties = np.asarray(facts.labelled.get("tie_fraction", []), np.float64)
    n_patches = int(facts.labelled.get("n_labelled", 0)) or np.inf  # early versions did not count them
    if len(ties) and np.nanmax(ties, initial=0.0) > max(TIES, 1.5 / n_patches):  # one patch ties with none
        worst = int(np.nanargmax(ties))
        yield Finding(
            "labels_tie", WARNING, name,
            f"Slide {name}: {ties[worst]:.0%} of the patches have one identical label of {facts.signatures[worst]} "
            f"(stat={str(facts.labelled.get('stat'))!r}), which no image can explain. {_fix_of_ties(facts)}",
        )  # fmt: skip
    if facts.controls:
        yield Finding(
            "controls_in_counts", WARNING, name,
            f"Slide {name}: {len(facts.controls)} columns of the counts are no genes ({first_few(facts.controls, n=SHOWN)}) and went "
            "into library sizes and variable genes. Call `sp.pp.filter_cells` first.",
        )  # fmt: skip


def _fix_of_ties(facts: SlideFacts) -> str:
    if facts.labelled.get("stat") != "mean":
        return "Use `stat='mean'`."
    return "Most of its cells score alike: use a signature of more genes, `method='zscore'`, or leave it out."


def _registration(facts: SlideFacts) -> Iterator[Finding]:
    if not facts.alignment:
        yield Finding(
            "registration_unchecked", NOTE, facts.name,
            f"Slide {facts.name}: nobody looked whether the H&E lies on the cells. Call `sp.pp.qc_alignment`.",
        )  # fmt: skip
        return
    shift = facts.alignment.get("shift_um")
    shift = np.nan if shift is None else float(shift)
    if facts.alignment.get("verdict") == "wrong":
        yield Finding(
            "registration_wrong", ERROR, facts.name,
            f"Slide {facts.name}: the H&E does not lie on the cells; {facts.alignment.get('mistake')}. "
            f"{facts.alignment.get('fix')}.",
        )  # fmt: skip
    elif shift > FAR_UM:
        yield Finding(
            "registration_poor", WARNING, facts.name,
            f"Slide {facts.name}: the H&E lies {shift:.1f} um off the cells (more than {FAR_UM:g}), which lowers every "
            "score. Call `sp.pp.qc_alignment(..., refine=True)` before patches are cut.",
        )  # fmt: skip
