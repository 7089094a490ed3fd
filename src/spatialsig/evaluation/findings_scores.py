"""Findings from the numbers of an evaluation.

Floor 6, above expression, inference, labels. Used by 7 modules of evaluation, pipeline, referee, report, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig.evaluation.schema import ERROR, EVERY_SLIDE, NOTE, OUTSIDE, SHOWN, WARNING, Finding, slide_rows
from spatialsig.stats.agreement import MIN_PATCHES
from spatialsig.stats.significance import combine, most_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

LEAK = 0.05  # r of coordinates alone above which the split leaks
LEAK_CHANCE = 0.02  # p of position over most signatures below which that is no chance
AE_LEAK = 0.95  # share of the ceiling above which the embedding must hold the answer
IMAGE_IGNORED = 0.02  # smallest loss of the fused model when images are shuffled
MARGIN = 0.02  # a predictor this near to the model does as well
COLLAPSE = 0.1  # loss of the H&E-only mode against a ridge on simple image features
FOLLOWS = 0.6  # |r| of the labels with density or depth
ALL_FOLLOW, ENOUGH = 0.25, 4  # r of that many signatures or more, all rising with the number of cells, as raw counts do
NOISY = 0.7  # ceiling below which labels are more noise than signal
STAIN = 2.5  # difference in colour, in standard deviations of the training patches
MIN_PATIENTS = 3
CHANCE = 0.05
# what to do about few patients: before a cross-validation, after it, and in the numbers beside it
HOLD_OUT_MORE = f"Use `sp.tl.cross_validate`, or hold out at least {MIN_PATIENTS} patients."
HELD_OUT_EACH = f"Each was held out once already: only more patients help, at least {MIN_PATIENTS}."
HELD_OUT_BESIDE = "Every fold was held out once beside this: read the numbers of the cross-validation."


def score_findings(evaluation: pd.DataFrame) -> Iterator[Finding]:
    """Findings from the table of ``tl.evaluate``."""
    table = slide_rows(evaluation)
    r = table.groupby("method")["pearson"].mean().dropna()
    model = next((method for method in ("he_only", OUTSIDE) if method in r), None)
    yield from _leak(table, r)
    yield from _embedding(table, r)
    if model is not None:
        yield from _too_simple(r, model)
        yield from _chance(table[table["method"] == model])
    yield from _labels(table)
    yield from _few(table)
    yield from _few_patches(table)
    yield from _stain(table)


def combined_p(table: pd.DataFrame) -> pd.Series:
    """p-value of each signature over the slides; NaN where the table has none."""
    return table.groupby("signature", sort=False)["p"].agg(lambda p: combine(p.to_numpy()))


def _leak(table: pd.DataFrame, r: pd.Series) -> Iterator[Finding]:
    if "coordinates" not in r or not r["coordinates"] > LEAK:
        return
    if "p" in table:
        p = most_of(combined_p(table[table["method"] == "coordinates"]).to_numpy())
        if not p <= LEAK_CHANCE:  # NaN too: so few patches cannot tell
            return  # two smooth maps of one signature look alike by chance now and then; a leak shows in most of them
    yield Finding(
        "split_leaks", ERROR, EVERY_SLIDE,
        f"Position alone, without any image, reaches r = {r['coordinates']:.3f} on the held-out patches (more than "
        f"{LEAK}): training patches lie beside or on them, or the slides are sections of one patient. Split by patient, "
        "or by blocks that are much larger than a patch, with a buffer of at least one.",
    )  # fmt: skip


def _embedding(table: pd.DataFrame, r: pd.Series) -> Iterator[Finding]:
    share = table[table["method"] == "ae_only"]["share_of_ceiling"].mean()
    if share > AE_LEAK:
        yield Finding(
            "embedding_leak", ERROR, EVERY_SLIDE,
            f"The expression embedding alone reaches {share:.0%} of the ceiling (more than {AE_LEAK:.0%}): it holds the "
            "answer. Leave the genes of the signatures out of the autoencoder.",
        )  # fmt: skip
    if not {"fused", "fused_permuted"} <= set(r.index):
        return
    if r["fused"] > LEAK and r["fused"] - r["fused_permuted"] < IMAGE_IGNORED:
        yield Finding(
            "image_ignored", WARNING, EVERY_SLIDE,
            f"Shuffling the images hardly changes the fused model (r = {r['fused']:.3f}, shuffled "
            f"{r['fused_permuted']:.3f}): the image adds next to nothing to the embedding, which may hold the answer, or "
            "the training patients showed too little of what the image is worth (`model.run['stacking']`).",
        )  # fmt: skip
    if {"hand_features", "he_only"} <= set(r.index) and r["he_only"] < min(
        r["hand_features"] - COLLAPSE, r["fused"] - COLLAPSE
    ):
        yield Finding(
            "he_only_collapses", WARNING, EVERY_SLIDE,
            f"Without the embedding the model falls from r = {r['fused']:.3f} to {r['he_only']:.3f}, below a ridge "
            f"regression on simple image features ({r['hand_features']:.3f}): it never learned to see. Train with "
            "`modality_dropout=0.3`, or with `use_rep=None` for use on H&E alone.",
        )  # fmt: skip


def _too_simple(r: pd.Series, model: str) -> Iterator[Finding]:
    named, fix = (
        ("outside model", "Report both.")
        if model == OUTSIDE
        else ("H&E model", "Train longer or on more slides, and report both.")
    )
    for method, name, severity in (
        ("density", "Nuclear density alone", WARNING),
        ("colour", "Colour alone", WARNING),
        ("hand_features", "A ridge regression on simple image features", NOTE),
        ("neighbours", "The mean label of the patches around", NOTE),
    ):
        if method in r and r[method] > LEAK and r[method] >= r[model] - MARGIN:
            yield Finding(
                f"{method}_suffices", severity, EVERY_SLIDE,
                f"{name} does as well (r = {r[method]:.3f}) as the {named} ({r[model]:.3f}): nothing is shown to "
                f"have been learned beyond it. {fix}",
            )  # fmt: skip


def _chance(table: pd.DataFrame) -> Iterator[Finding]:
    """Signatures that only look predicted if patches are counted as independent."""
    if "p" not in table:
        return
    beyond = combined_p(table)
    fooled = []
    for signature, rows in table.groupby("signature", sort=False):
        judged = rows.dropna(subset=["pearson"])
        if judged.empty:
            continue
        n = judged["n_patches"].to_numpy(float)
        z = np.arctanh(np.clip(judged["pearson"].to_numpy(float), -0.999, 0.999)) * np.sqrt(np.maximum(n - 3, 1))
        naive = stats.norm.sf(z.sum() / np.sqrt(len(z)))
        if naive < CHANCE / 10 and beyond[signature] > CHANCE:
            fooled.append(str(signature))
    if fooled and len(fooled) >= table["signature"].nunique() / 2:
        yield Finding(
            "not_beyond_chance", WARNING, EVERY_SLIDE,
            f"{len(fooled)} of {table['signature'].nunique()} signatures ({first_few(fooled, n=SHOWN)}) look predicted only if "
            f"neighbouring patches count as independent; shifted over the tissue, predictions agree as well "
            f"(p > {CHANCE}). Report p from `sp.tl.summarise`, and use more slides.",
        )  # fmt: skip


def _labels(table: pd.DataFrame) -> Iterator[Finding]:
    once = table.drop_duplicates(["sample", "signature"])
    ceiling = once["ceiling"].mean()
    if not np.isfinite(ceiling):
        yield Finding(
            "no_ceiling", WARNING, EVERY_SLIDE,
            "No noise ceiling is known, so nobody can say whether a score is good. Keep raw counts in X of the cells and "
            "score them with `sp.tl.score_cells`.",
        )  # fmt: skip
    elif ceiling < NOISY:
        yield Finding(
            "labels_noisy", WARNING, EVERY_SLIDE,
            f"Even a perfect model could reach only r = {ceiling:.2f}: the labels come from too few counts. Use larger "
            "patches, signatures of more genes, or deeper data.",
        )  # fmt: skip
    for column, what in (("r_n_cells", "the number of cells"), ("r_log_counts", "the counts per cell")):
        if column not in once:
            continue
        follows = once.groupby("signature")[column].mean().dropna()
        together = len(follows) >= ENOUGH and follows.median() > ALL_FOLLOW
        if together or follows.abs().median() > FOLLOWS:
            yield Finding(
                f"labels_follow_{column[2:]}", WARNING, EVERY_SLIDE,
                f"The labels follow {what} of a patch (median r = {follows.median():.2f} over {len(follows)} "
                f"signatures; more than {ALL_FOLLOW} for all together, or {FOLLOWS} either way), as raw counts do: a "
                "density map would predict them. Use normalised scores, and report `partial_pearson`.",
            )  # fmt: skip


def _few(table: pd.DataFrame) -> Iterator[Finding]:
    n, slides = table["patient"].nunique(), table["sample"].nunique()
    if n < MIN_PATIENTS:
        yield Finding(
            "few_patients", WARNING, EVERY_SLIDE,
            f"Judged on {n} held-out patient{'s' if n != 1 else ''} ({slides} slide{'s' if slides != 1 else ''}): the "
            f"spread between patients is not known, whatever the number of patches. "
            f"{HELD_OUT_EACH if _keys.FOLD in table else HOLD_OUT_MORE}",
        )  # fmt: skip


def after_cross_validation(findings: pd.DataFrame) -> pd.DataFrame:
    """The same findings where every fold was held out once beside the evaluation: that is not advised again."""
    texts = findings["text"].astype(str).str.replace(HOLD_OUT_MORE, HELD_OUT_BESIDE, regex=False)
    return findings.assign(text=texts)


def _few_patches(table: pd.DataFrame) -> Iterator[Finding]:
    if "n_patches" not in table:
        return
    n = table.groupby("sample", sort=False)["n_patches"].max()
    few = n[n < MIN_PATCHES]
    if len(few):
        listed = first_few([f"{sample} ({int(count)})" for sample, count in few.items()])
        none = len(few) == len(n)
        yield Finding(
            "few_patches", ERROR if none else WARNING, EVERY_SLIDE,
            f"{listed}: fewer than {MIN_PATCHES} labelled patches, so no number is given for {'any slide' if none else 'these'}. Cut "
            "patches that are smaller or nearer to each other (`stride_um`), or label with a lower `min_cells`.",
        )  # fmt: skip


def _stain(table: pd.DataFrame) -> Iterator[Finding]:
    if "stain_shift" not in table:
        return
    for sample, shift in table.groupby("sample", sort=False)["stain_shift"].first().items():
        if shift > STAIN:
            yield Finding(
                "stain_shift", WARNING, str(sample),
                f"Slide {sample}: its colours lie {shift:.1f} standard deviations from those of the training slides "
                f"(more than {STAIN:g}), so the model is outside of what it has seen. Train on more stains, or with "
                "stronger stain augmentation.",
            )  # fmt: skip
