"""The methods paragraph, ready to paste: every sentence from what the steps recorded, with the versions of what ran.

Floor 10, above cohort. Used by pipeline/run_files, report/document.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from spatialsig.models.card import PROBE_HEADS
from spatialsig.report.results_section import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from spatialsig.report.slide_cards import SlideReport

PACKAGES = ("spatialsig", "spatialdata", "anndata", "torch", "lightning", "numpy", "zarr")
PROCESS = (
    "Agreement is the Pearson correlation over the labelled patches of a slide; slides of a patient, then patients, were "
    "averaged. The ceiling is the largest correlation that the depth of the counts allows: every molecule was dealt to one "
    "of two halves at random, both halves were scored, and the reliability of the whole followed from their correlation "
    "(Spearman-Brown). Baselines learned from the same training patches and were judged on the same held-out patches as "
    "the model; in the permuted controls the images of a slide were shuffled."
)
INTERVALS = (
    "Intervals are 95 % intervals over patients (Student t of Fisher z), comparisons of methods paired by patient; p-values "
    "within slides come from shifting the prediction over the tissue, combined over slides (Stouffer) and corrected over signatures "
    "(Benjamini-Hochberg)."
)
_SCORES = {
    "zscore": "mean z-score of log1p counts per 10,000 over the genes of the signature, scaled by mean and standard "
    "deviation of the training cells",
    "score_genes": "mean log1p counts per 10,000 of the genes of the signature minus that of control genes of like "
    "expression (scanpy's score_genes)",
    "ucell": "UCell, from the ranks of the genes within the cell",
    "aucell": "AUCell of decoupler",
    "ulm": "univariate linear model of decoupler",
}


def methods_paragraph(
    slides: list[SlideReport],
    evaluation: pd.DataFrame,
    facts: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    installed: Mapping[str, str],
) -> str:
    """Sentences for a methods section; a step that left no record is not mentioned."""
    sentences = [
        _software(slides, installed),
        _cells(facts.get("filter_cells"), slides),
        _alignment(slides),
        _tissue(facts.get("find_tissue")),
        _patches(facts.get("patches"), slides),
        _quality(facts.get("qc_patches")),
        _labels(facts.get("score_cells"), facts.get("aggregate_patches")),
        _autoencoder(models.get("autoencoder"), facts.get("embed_cells")),
        _image_model(models.get("image model")),
        _calibration(models.get("image model")),
        _split(facts.get("split"), evaluation),
        PROCESS,
        INTERVALS if evaluation["patient"].nunique() > 1 else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _software(slides: list[SlideReport], installed: Mapping[str, str]) -> str:
    patients = len({slide.patient for slide in slides})
    return (
        f"{count(len(slides), 'slide')} of {count(patients, 'patient')} with H&E were processed with spatialsig "
        f"{installed['spatialsig']} (spatialdata {installed['spatialdata']}, PyTorch {installed['torch']}, Python "
        f"{installed['python']})."
    )


def _cells(done: Mapping[str, Any] | None, slides: list[SlideReport]) -> str:
    n_cells = sum(slide.n_cells or 0 for slide in slides)
    if not done:
        return ""
    return (
        f"Control probes were dropped, and cells with fewer than {int(done['min_counts'])} counts or "
        f"{int(done['min_genes'])} genes left out, which kept {count(n_cells, 'cell')}."
    )


def _alignment(slides: list[SlideReport]) -> str:
    known = [slide.shift_um for slide in slides if slide.shift_um == slide.shift_um]
    if not known:
        return ""
    return (
        f"The residual shift between H&E and cells, by correlating haematoxylin with cell positions, was at most "
        f"{max(known):.1f} µm on the {count(len(known), 'slide')} where it could be told."
    )


def _autoencoder(model: Mapping[str, Any] | None, embedded: Mapping[str, Any] | None) -> str:
    if not model:
        return ""
    net, run = model["config"].get("net", {}), model["run"]
    widths = "-".join(str(width) for width in [*net.get("hidden", []), net.get("n_latent")] if width is not None)
    genes = embedded.get("genes") if embedded else None
    what = f" of {len(genes):,} genes" if genes is not None and len(genes) else ""
    return f"An autoencoder{what} (layers {widths or 'unknown'}) was trained {_training(run)}."


def _image_model(model: Mapping[str, Any] | None) -> str:
    if not model:
        return ""
    net, run = model["config"].get("net", {}), model["run"]
    vit = net.get("vit", {})
    backbone = net.get("backbone", "vit")
    sizes = f"{vit.get('dim')} wide, {vit.get('depth')} blocks, {vit.get('heads')} heads" if vit else ""
    name = "a vision transformer" if backbone == "vit" else f"the backbone {backbone}"
    if head := run.get("probe", {}).get("head"):
        name = f"a {PROBE_HEADS.get(head, head)} on principal components of features of {name}"
    if members := model["config"].get("members"):
        name = f"an ensemble of {len(members)} models from different seeds whose predictions were averaged, each {name}"
    text = (
        f"The image model, {name}{f' ({sizes})' if backbone == 'vit' and sizes else ''}, was trained {_training(run)}"
    )
    if net.get("fusion", "none") != "none":
        text += f"; the mean embedding of the cells of a patch joined it ({net['fusion']} fusion)"
        if net.get("modality_dropout"):
            text += f" and was hidden from {net['modality_dropout']:.0%} of the training samples"
        if run.get("distil"):
            text += ", while the network learned to say from the image alone what it said with it"
    return text + "."


def _calibration(model: Mapping[str, Any] | None) -> str:
    """How intervals were calibrated; those of every kind of input by the same call."""
    intervals = (model["config"].get("intervals") or {}) if model else {}
    if not intervals:
        return ""
    record = next(iter(intervals.values()))
    scaled = ", in proportion to the standard deviation that the model gives" if record.get("scaled") else ""
    return (
        f"Prediction intervals were made by split conformal prediction to hold {record['coverage']:.0%} of the scores of "
        f"{'new slides' if record.get('guarantee') == 'slides' else 'patches'}, from the errors on "
        f"{count(len(record.get('samples', [])), 'slide')} that had no part in training{scaled}."
    )


def _tissue(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    sensitivity = found.get("sensitivity")
    said = "" if sensitivity is None else f" (sensitivity {float(sensitivity):g})"
    return f"Tissue was outlined on the H&E by colour and texture{said}, and patches were cut where it lies."


def _quality(measured: Mapping[str, Any] | None) -> str:
    if not measured:
        return ""
    named = ", ".join(
        f"{str(name).replace('_', ' ')} {float(value):g}"
        for name, value in dict(measured.get("limits") or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    return f"The quality of every patch was measured: focus, white space, pen, folds and unusual stain{f' ({named})' if named else ''}."


def _training(run: Mapping[str, Any]) -> str:
    epochs = len(run.get("history", {}).get("epoch", []))
    said = f"for {count(epochs, 'epoch')}" if epochs else "in one step" if "probe" in run else "until it stopped"
    if run.get("training_samples"):
        said += f" on {count(len(run['training_samples']), 'slide')}"
    return said + (f" (seed {run['seed']})" if "seed" in run else "")


def _patches(spec: Any, slides: list[SlideReport]) -> str:
    if spec is None:
        return ""
    stride_um = spec.stride_l0 * spec.image_um_per_px
    return (
        f"The H&E was cut into {count(sum(slide.n_patches for slide in slides), 'patch').replace('patchs', 'patches')} "
        f"of {spec.patch_px} × {spec.patch_px} px at {spec.um_per_px:g} µm/px ({spec.patch_px * spec.um_per_px:g} µm), "  # noqa: RUF001
        f"{stride_um:.3g} µm apart, with at least {spec.min_tissue:.0%} tissue."
    )


def _labels(scored: Mapping[str, Any] | None, aggregated: Mapping[str, Any] | None) -> str:
    if not scored or not aggregated:
        return ""
    method = _SCORES.get(scored["method"], scored["method"])  # one without a sentence of its own goes by its name
    return (
        f"{count(len(scored['names']), 'gene signature')} were scored in every cell ({method}). The label of a patch is "
        f"the {aggregated['stat']} over its cells, where there are at least {int(aggregated['min_cells'])}."
    )


def _split(split: Mapping[str, Any] | None, evaluation: pd.DataFrame) -> str:
    n_patients, n_slides = evaluation["patient"].nunique(), evaluation["sample"].nunique()
    judged = f"The model was judged on {count(n_slides, 'held-out slide')} of {count(n_patients, 'patient')}"
    if not split:
        return judged + "."
    if split["by"] == "block":
        size, gap = split["block_um"], split["buffer_um"]
        return f"{judged}, in blocks of {size:g} µm kept {gap:g} µm from any training patch (seed {split['seed']})."
    unit = str(split["by"])
    return (
        f"{judged} that had no part in training: each {unit} belonged to one of {split['n_folds']} folds "
        f"(seed {split['seed']}), and one fold was held out."
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of Python and of each package; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
