"""The card of a model: what it is, what it learned from, how good it is and where it ends, as the README.md of its directory.

The card lies outside the checksums of the directory, since it is there to be edited; one that was edited is never written over.

Floor 2, above geometry, nn, signatures, stats, store. Used by 7 modules of models, pipeline, report, tl.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialsig._checks import first_few
from spatialsig._progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

CARD = "README.md"
RESULTS = "results"  # in the run of a model: what `tl.evaluate` found, by method
POOLED = "(all slides)"  # in the column of samples of an evaluation: no slide
_TAGS = ("spatialsig", "histopathology", "hematoxylin-and-eosin", "spatial-transcriptomics", "gene-signatures")
_METHODS = {  # method of an evaluation -> what the card calls it
    "he_only": "**this model, H&E alone**",
    "fused": "**this model, H&E and expression**",
    "he_only_permuted": "control: H&E shuffled within a slide",
    "fused_permuted": "control: expression, H&E shuffled",
    "ae_only": "expression alone (ridge)",
    "embedding": "frozen backbone (ridge)",
    "hand_features": "hand-made image features (ridge)",
    "colour": "colour alone (ridge)",
    "density": "cell density alone (ridge)",
    "coordinates": "control: position alone",
    "neighbours": "measured labels of the neighbours",
    "train_mean": "mean of the training labels",
}
PROBE_HEADS = {"ridge": "ridge regression", "mlp": "small network"}
# neither controls: the model itself, and what is given the measurement
_OWN = frozenset({"he_only", "fused", "ae_only", "neighbours", "fused_permuted", "he_only_permuted"})
MIN_PATIENTS = 3
_MARK = "<!-- as spatialsig wrote it: "
_WHAT = {
    "SignatureViT": "predicts scores of gene signatures from patches of an H&E",
    "SignatureEnsemble": "predicts scores of gene signatures from patches of an H&E, as the mean of several models",
    "Autoencoder": "embeds cells by the counts of their genes",
    "CellHead": "predicts scores of gene signatures at single nuclei, from features of a signature model",
    "PretrainedViT": "is an image network that has seen many H&E patches and no label, to start a training from",
}


def results_of(evaluation: pd.DataFrame) -> list[dict[str, Any]]:
    """What an evaluation found of each method, over slides, patients and signatures, as plain values for the run of a model."""
    table = evaluation[evaluation["sample"] != POOLED]
    unit = "patient" if "patient" in table else "sample"
    columns = [name for name in ("pearson", "ceiling", "share_of_ceiling") if name in table]
    of_patients = table.groupby(["method", unit], sort=False)[columns].mean()
    means = of_patients.groupby("method", sort=False).mean()
    n = {"n_slides": int(table["sample"].nunique()), f"n_{unit}s": int(table[unit].nunique())}
    of_signatures = _of_signatures(table, unit)
    return [
        {"method": str(method)} | {name: _rounded(row[name]) for name in columns} | n
        | ({"signatures": of_signatures[str(method)]} if str(method) in of_signatures else {})
        for method, row in means.iterrows()
    ]  # fmt: skip


def _of_signatures(table: pd.DataFrame, unit: str) -> dict[str, dict[str, float | None]]:
    """Mean r of every method on each signature, over slides, then patients; empty for a table without signatures."""
    if "signature" not in table:
        return {}
    means = table.groupby(["method", "signature", unit], sort=False)["pearson"].mean()
    found: dict[str, dict[str, float | None]] = {}
    for row in means.groupby(["method", "signature"], sort=False).mean().reset_index().to_dict("records"):
        found.setdefault(str(row["method"]), {})[str(row["signature"])] = _rounded(row["pearson"])
    return found


def card_text(model: Any, *, license_id: str = "other") -> str:
    """Card of a model of any kind, with the header that model hubs read."""
    header = [
        "---",
        "library_name: spatialsig",
        f"license: {license_id}",
        "tags:",
        *(f"- {tag}" for tag in _TAGS),
        "---",
    ]
    sections = [
        f"# {model.kind}\n\nA {model.kind} of [spatialsig](https://spatialsig.readthedocs.io) that {_WHAT[model.kind]}.",
        _section("Use", [_use(model.kind)]),
        _section("What it reads and gives", _table(_facts(model))),
        _section("What it learned from", _table(_data(model.run))),
        _section("Results on held-out slides", list(_results(model))),
        _section("Where it ends", [f"- {limit}" for limit in _limits(model)]),
        _section("Licence", [_licence(license_id)]),
        _section("Versions", _table({"spatialsig": version("spatialsig"), "torch": version("torch")})),
    ]
    text = "\n".join(header) + "\n\n" + "\n\n".join(sections) + "\n\n"
    return f"{text}{_MARK}{_digest(text)} -->\n"


def write_card(directory: Path, text: str, *, before: Path | None = None) -> None:
    """Write a card into a directory, or keep the one that was edited there, or in the directory ``before`` whose place it takes."""
    place = (directory if before is None else before) / CARD
    edited = place.is_file() and not _is_ours((kept := place.read_bytes()).decode(errors="replace"))
    if edited:
        say(f"{place} was edited by hand and is kept; delete it to have it written anew.")
    (directory / CARD).write_bytes(kept if edited else text.encode())


def one_line(model: Any) -> str:
    """What was loaded, in a line."""
    found = next((row for row in model.run.get(RESULTS, ()) if row["method"] == "he_only"), None)
    share = (
        ""
        if found is None or found.get("share_of_ceiling") is None
        else f", {found['share_of_ceiling']:.0%} of the ceiling"
    )
    r = (
        f"; r {found['pearson']:.2f}{share} on {found['n_slides']} held-out slides"
        if found and found["pearson"] is not None
        else ""
    )
    return f"loaded {model!r}{r}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_ours(text: str) -> bool:
    body, mark, digest = text.rpartition(_MARK)
    return bool(mark) and digest.strip() == f"{_digest(body)} -->"


def _section(title: str, lines: Iterable[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


def _table(facts: Mapping[str, object]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts.items())]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _use(kind: str) -> str:
    call = (
        'sp.tl.predict_files(model, "scans/", "results/")  # image files: patches and stain as the model needs them\n'
        "sp.tl.predict(slide, model)  # a slide that has such patches (`sp.pp.make_patches`, `sp.pp.normalize_stain`)"
        if kind.startswith("Signature")
        else "help(model)"
    )
    return f'```python\nimport spatialsig as sp\n\nmodel = sp.models.from_hub("OWNER/NAME")  # or this directory\n{call}\n```'


def _facts(model: Any) -> dict[str, object]:
    facts: dict[str, object] = {}
    for name, what in (("signatures", "signatures"), ("genes", "genes of the panel")):
        if names := getattr(model, name, ()):
            facts[what] = f"{len(names)}: {first_few(names, n=40)}"
    if hasattr(model, "patch_px"):
        um = model.patch_px * model.um_per_px
        facts["patches"] = f"{model.patch_px} px at {model.um_per_px:g} µm/px ({um:g} µm)"
    members = getattr(model, "members", (model,))
    if hasattr(members[0], "stain"):
        stain = members[0].stain
        facts["stain"] = "as scanned" if stain == "none" else f"normalised ({stain}): `sp.pp.normalize_stain` first"
    if hasattr(model, "uses_expression"):
        facts["expression"] = "optional, as an embedding of cells" if model.uses_expression else "not used"
        facts["intervals"] = _intervals(model)
    if head := model.run.get("probe", {}).get("head"):
        facts["head"] = f"{PROBE_HEADS.get(head, head)} on principal components of features of a frozen encoder"
    if len(members) > 1:
        facts["members"] = len(members)
    if hasattr(model, "n_latent"):
        facts["width of the embedding"] = model.n_latent
    return facts


def _intervals(model: Any) -> str:
    records = model.intervals.items() if isinstance(model.intervals, dict) else ()
    known = [f"{r['coverage']:.0%} for {inputs}" for inputs, r in records if isinstance(r, dict) and "coverage" in r]
    return "; ".join(known) or "none (`sp.tl.calibrate`)"


def _data(run: Mapping[str, Any]) -> dict[str, object]:
    slides, patients = run.get("training_samples"), run.get("training_patients")
    unknown = "not recorded"
    facts: dict[str, object] = {
        "organ and kind of tissue": "to be filled in by who shares the model",
        "slides": len(slides) if slides else unknown,
        "patients": len(patients) if patients else unknown,
        "held-out fold": unknown
        if "test_fold" not in run
        else "none"
        if run["test_fold"] is None
        else run["test_fold"],
    }
    targets = run.get("inputs", {}).get("targets", {})
    if genes := targets.get("genes"):
        facts["panel"] = f"{len(genes)} genes; scored by `{targets.get('method', '?')}`"
    if left_out := run.get("signatures_left_out"):
        facts["signatures that no training slide measured"] = first_few(left_out, n=40)
    facts |= {"seed": run["seed"]} if "seed" in run else {}
    return facts


def _results(model: Any) -> Iterable[str]:
    rows = model.run.get(RESULTS)
    if not rows:
        yield "Not evaluated yet: `sp.tl.evaluate(cohort, model)`, then save the model again."
        return
    first = rows[0]
    patients = f" of {first['n_patients']} patients" if "n_patients" in first else ""
    yield f"Mean Pearson r within {first['n_slides']} slides{patients}, over all signatures; the noise ceiling is what labels from so few"
    yield "counts allow a perfect model."
    yield ""
    yield "| method | r | ceiling | share of the ceiling |"
    yield "|---|---|---|---|"
    for row in rows:
        share = row.get("share_of_ceiling")
        numbers = (_number(row.get("pearson")), _number(row.get("ceiling")), "-" if share is None else f"{share:.0%}")
        yield f"| {_METHODS.get(row['method'], row['method'])} | {' | '.join(numbers)} |"
    yield from _by_signature(rows)
    if first.get("n_patients", MIN_PATIENTS) < MIN_PATIENTS:
        yield ""
        yield f"Fewer than {MIN_PATIENTS} patients were held out: nothing follows for others (`few_patients`)."


def _by_signature(rows: list[dict[str, Any]]) -> Iterable[str]:
    """A row per signature: this model beside the control that does best on it, which may do better."""
    by_method = {row["method"]: row["signatures"] for row in rows if row.get("signatures")}
    own = next((by_method[method] for method in ("he_only", "fused") if method in by_method), None)
    if own is None:
        return
    controls = {name: found for name, found in by_method.items() if name not in _OWN}
    yield from ("", "| signature | r | best control | its r | |", "|---|---|---|---|---|")
    for signature, r in own.items():
        known = {name: found[signature] for name, found in controls.items() if found.get(signature) is not None}
        best = max(known, key=lambda name: known[name] or 0.0, default=None)
        beaten = best is not None and r is not None and (known[best] or 0.0) >= r
        cells = (_number(r), "-" if best is None else _METHODS.get(best, best), _number(known.get(best or "")))
        yield f"| {_cell(signature)} | {' | '.join(cells)} | {'no better than the control' if beaten else ''} |"


def _limits(model: Any) -> Iterable[str]:
    yield "A research model: its output is no measurement and no diagnosis."
    domain = getattr(model, "domain", None)
    if domain is not None:
        aspects = ", ".join(domain.aspects)
        yield (
            f"It knows what its {domain.n_patches} reference patches of {domain.n_patients} patient(s) look like ({aspects}) and warns "
            'of slides outside (`obs["ood"]`).'
        )
        if domain.n_patients == 1:
            yield "It has seen one patient: nothing is known of how others differ."
    elif hasattr(model, "signatures"):
        yield "It does not know what its training patches look like, so it cannot warn of slides unlike them."
    if hasattr(model, "um_per_px"):
        yield f"Patches must be {model.patch_px} px at {model.um_per_px:g} µm/px: another resolution is refused."
    yield "It was not tested on scanners, stains, organs or panels that its held-out slides do not show."


def _licence(license_id: str) -> str:
    if license_id == "other":
        return "Not stated. Whoever shares the model says here what its data and weights may be used for."
    return f"{license_id}, as stated by who shared it."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rounded(value: Any) -> float | None:
    return None if value != value else round(float(value), 4)
