"""When not to trust a model: are slides of another kind known, are slides of the same kind left alone, and does triage hold its rate?

A model of six synthetic patients. **Out of distribution**: patches and slides of new synthetic patients (the same kind) against real
H&E (her2st, CMU-1; left out with the reason where the data are not there), blurred slides, slides whose px are half or twice as large as
they say, and stains simulated by unmixing haematoxylin and eosin and adding up other dyes in their place: immunohistochemistry (DAB
in some nuclei, pale eosin; simulated, no real one is at hand), PAS and trichrome. **Triage**: 20 cohorts of new patients, some of whose
slides are blurred or stained otherwise, so that some maps are wrong; 20 calibrate, 5 are judged. **Cost**: time of `predict_watched`
with and without the comparison, at 224 px.

    python benchmarks/trust.py [--quick] [--data DIR] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import math
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from machine import machine, record_options
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

import spatialsig as sp
from spatialsig.inference.decisions import ACCEPT, REJECT, decided, thresholds
from spatialsig.inference.domain import DomainWatch
from spatialsig.inference.triage import Signs, calibration_of, signs_of
from spatialsig.slide.coordinates import full_resolution
from spatialsig.slide.slides import open_slides
from spatialsig.stats.stain import optical_density

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from spatialdata import SpatialData

    from spatialsig.models.domain import OutOfDomain

HERE = Path(__file__).resolve().parent
PX, UM = 56, 1.0
RATES = (0.05, 0.1, 0.2)
TOLERANCE = 0.5  # r of a map that is right
DYES = {
    "haematoxylin": (0.650, 0.704, 0.286), "eosin": (0.072, 0.990, 0.105), "DAB": (0.268, 0.570, 0.776),
    "magenta": (0.18, 0.90, 0.40), "aniline blue": (0.75, 0.55, 0.25),
}  # fmt: skip
Pixels = np.ndarray


def dye(name: str) -> np.ndarray:
    """Unit optical density of a dye."""
    vector = np.array(DYES[name])
    return vector / np.linalg.norm(vector)


def synthetic(seed: int, size_um: float, um: float = UM) -> Pixels:
    """H&E of a new synthetic patient, ``(h, w, 3)``."""
    return np.moveaxis(
        full_resolution(sp.datasets.toy(seed=seed, size_um=size_um, he_um_per_px=um)["he_image"]).to_numpy(), 0, -1
    )


def repainted(image: Pixels, paint: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Pixels:
    """The picture with other dyes: ``paint`` makes the optical density of the amounts of haematoxylin and eosin and what is neither."""
    density = optical_density(image).astype(np.float64)
    both = np.stack([dye("haematoxylin"), dye("eosin")])
    amounts = np.maximum(density @ np.linalg.pinv(both), 0)
    return np.clip(np.rint(256 * np.exp(-paint(amounts, density - amounts @ both)) - 1), 0, 255).astype(np.uint8)


def ihc(image: Pixels, seed: int) -> Pixels:
    """Nuclei of two fifths of the area brown, the others blue, hardly any eosin."""
    place = gaussian_filter(np.random.default_rng(seed).normal(size=image.shape[:2]), 40)
    positive = gaussian_filter((place > np.quantile(place, 0.6)).astype(float), 2)[..., None]

    def paint(amounts: np.ndarray, rest: np.ndarray) -> np.ndarray:
        blue = amounts[..., :1] * 0.7 * (1 - 0.6 * positive) + 0.12 * amounts[..., 1:]
        brown = gaussian_filter(amounts[..., 0], 1)[..., None] * 1.5 * positive
        return blue * dye("haematoxylin") + brown * dye("DAB") + np.clip(rest, -0.1, 0.1)

    return repainted(image, paint)


def other_eosin(image: Pixels, name: str) -> Pixels:
    """Another dye in place of eosin."""
    return repainted(image, lambda a, rest: a[..., :1] * dye("haematoxylin") + a[..., 1:] * dye(name) + rest)


def blurred(image: Pixels, sigma: float) -> Pixels:
    """Out of focus; sigma in px of 1 µm."""
    return gaussian_filter(image, (sigma, sigma, 0))


def patches(image: Pixels, *, most: int = 150) -> Pixels:
    """Patches side by side that hold tissue, ``(n, 3, px, px)``."""
    cut = [
        image[y : y + PX, x : x + PX]
        for y in range(0, image.shape[0] - PX + 1, PX)
        for x in range(0, image.shape[1] - PX + 1, PX)
    ]
    cut = [patch for patch in cut if (patch.mean(axis=-1) < 215).mean() > 0.25]
    rows = np.random.default_rng(0).permutation(len(cut))[:most]
    return np.ascontiguousarray(np.array([cut[k] for k in rows]).transpose(0, 3, 1, 2))


def compared(model: sp.models.SignatureViT, images: Pixels) -> OutOfDomain:
    """How far patches lie from what the model learned from."""
    watch = DomainWatch(model, len(images), n_views=1, with_expression=False)
    with watch.watching():
        model.predict(images)
        watch.see(np.arange(len(images)), images)
    return watch.result()


def train(scratch: Path, *, n: int, size_um: float, epochs: int) -> sp.models.SignatureViT:
    """A model of ``n`` patients."""
    stores = {f"S{k}": scratch / f"S{k}.zarr" for k in range(n)}
    for k, (name, path) in enumerate(stores.items()):
        sp.io.write(sp.datasets.toy(seed=k, size_um=size_um, sample=name, patient=f"P{k}"), path)
    cohort = sp.Cohort(stores)
    sp.pp.make_patches(cohort, patch_px=PX, um_per_px=UM, stride_um=PX / 2)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=None)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return sp.tl.train_vit(cohort, test_fold=None, use_rep=None, max_epochs=epochs, batch_size=16)


def real_images(data: Path) -> tuple[list[Pixels], str]:
    """Real H&E at 1 µm/px, and why there is none where there is none."""
    found = []
    for path, um in (
        (data / "her2st/images/B4.jpg", 0.68),
        (data / "her2st/images/C2.jpg", 0.68),
        (data / "her2st/images/C4.jpg", 0.68),
    ):
        if path.is_file():
            Image.MAX_IMAGE_PIXELS = None
            image = Image.open(path)
            w, h = image.size
            part = image.crop((w // 4, h // 4, 3 * w // 4, 3 * h // 4))
            found.append(
                np.asarray(part.resize((int(part.size[0] * um), int(part.size[1] * um)), Image.Resampling.LANCZOS))
            )
    svs = data / "wsi/CMU-1-Small-Region.svs"
    if svs.is_file():
        pixels = np.moveaxis(full_resolution(sp.io.read_he(svs)["he_image"]).to_numpy(), 0, -1)
        found.append(
            np.asarray(
                Image.fromarray(pixels).resize((pixels.shape[1] // 2, pixels.shape[0] // 2), Image.Resampling.LANCZOS)
            )
        )
    return found, "" if found else f"no real H&E below {data}"


def auroc(inside: list[float] | np.ndarray, outside: list[float] | np.ndarray) -> float:
    """Probability that one of the others has the larger score, by ranks (Mann and Whitney)."""
    ranks, n, m = rankdata(np.r_[inside, outside]), len(inside), len(outside)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def out_of_distribution(
    model: sp.models.SignatureViT, data: Path, *, n_held: int, n_other: int, size_um: float
) -> dict[str, object]:
    """AUROC of every kind against held-out slides of the same kind, and false alarms on these."""
    held = [synthetic(1000 + k, size_um) for k in range(n_held)]
    same = [compared(model, patches(image)) for image in held]
    some = held[:n_other]
    real, why = real_images(data)
    kinds = {
        "real H&E": real,
        "IHC (simulated)": [ihc(image, k) for k, image in enumerate(some)],
        "blurred, 2 µm": [blurred(image, 2.0) for image in some],
        "blurred, 1 µm": [blurred(image, 1.0) for image in some],
        "px half as large": [synthetic(1000 + k, size_um * 0.6, UM / 2) for k in range(n_other)],
        "px twice as large": [synthetic(1000 + k, size_um * 2, UM * 2) for k in range(n_other)],
        "PAS (simulated)": [other_eosin(image, "magenta") for image in some],
        "trichrome (simulated)": [other_eosin(image, "aniline blue") for image in some],
    }
    result: dict[str, object] = {"kinds": {}, "skipped": {"real H&E": why} if why else {}}
    for kind, images in kinds.items():
        if not images:
            continue
        found = [compared(model, patches(image)) for image in images]
        result["kinds"][kind] = {  # type: ignore[index]
            "auroc_patches": round(
                auroc(np.concatenate([f.ood for f in same]), np.concatenate([f.ood for f in found])), 4
            ),
            "auroc_slides": round(auroc([f.slide for f in same], [f.slide for f in found]), 4),
            "slides_outside": round(float(np.mean([f.slide > 1 for f in found])), 4),
            "aspect": max({f.aspect for f in found}, key=[f.aspect for f in found].count),
            "n_slides": len(found),
        }
    alarms = [f.slide > 1 for f in same]
    broken = [f.share > 0.05 for f in same]
    return result | {
        "false_alarms": {
            "slides": round(float(np.mean(alarms)), 4), "slides with more than 5 % of patches outside": round(float(np.mean(broken)), 4),
            "patches": round(float(np.mean([f.share for f in same])), 4), "n_slides": len(same),
        }
    }  # fmt: skip


def patient(model: sp.models.SignatureViT, seed: int, size_um: float) -> Signs:
    """A new patient whose slide may be out of focus or stained otherwise; its predictions and its measured scores."""
    rng = np.random.default_rng(seed)
    slide: SpatialData = sp.datasets.toy(seed=seed, size_um=size_um, sample=f"N{seed}", patient=f"N{seed}")
    kind = rng.choice(["good", "blurred", "stain", "faint"], p=[0.5, 0.25, 0.15, 0.1])
    for level in slide["he_image"].values():
        pixels = np.moveaxis(level["image"].to_numpy(), 0, -1)
        if kind == "blurred":
            pixels = blurred(pixels, float(np.random.default_rng(seed).uniform(0.4, 2.5)))
        elif kind == "stain":
            share = np.random.default_rng(seed).uniform(0, 1)
            pixels = ((1 - share) * pixels + share * other_eosin(pixels, "magenta")).astype(np.uint8)
        elif kind == "faint":
            pixels = 255 - ((255 - pixels) * np.random.default_rng(seed).uniform(0.3, 0.9)).astype(np.uint8)
        level["image"] = level["image"].copy(data=np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))
    sp.pp.make_patches(slide, patch_px=PX, um_per_px=UM, stride_um=PX / 2)
    sp.pp.assign_cells(slide)
    sp.tl.score_cells(slide, "seed", test_fold=None)
    sp.tl.aggregate_patches(slide, min_cells=5, use_rep=None)
    sp.tl.predict(slide, model)
    (opened,) = open_slides(slide)
    keys = {"predictions_key": "signatures_pred", "patches_key": "patches", "signatures_key": "signatures"}
    return signs_of(opened, model=model, use_rep=None, **keys)


def cohort_of(model: sp.models.SignatureViT, seeds: list[int], *, size_um: float) -> list[Signs]:
    """New patients of one cohort."""
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    torch.set_num_threads(1)
    return [patient(model, seed, size_um) for seed in seeds]


def triage(
    model: sp.models.SignatureViT, *, n_cohorts: int, n_calibration: int, n_new: int, size_um: float, jobs: int
) -> dict[str, object]:
    """Share of new slides that are accepted and wrong at every rate, over cohorts of patients seen once each."""
    n = n_calibration + n_new
    judged: dict[float, list[tuple[str, bool]]] = {rate: [] for rate in RATES}
    seeds = [[10_000 + cohort * n + k for k in range(n)] for cohort in range(n_cohorts)]
    work = partial(cohort_of, model, size_um=size_um)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        cohorts = list(pool.map(work, seeds))
    for signs in cohorts:
        calibration, new = calibration_of(signs[:n_calibration]), signs[n_calibration:]
        for rate in RATES:
            if 1 / (n_calibration + 1) > rate:
                continue
            limits = thresholds(calibration, model.signatures, error="map", tolerance=TOLERANCE, rate=rate)
            for slide in new:
                decisions = decided(slide, calibration, limits, model.signatures, seen=False)["decision"]
                judged[rate] += [
                    (decision, r < TOLERANCE)
                    for decision, r in zip(decisions, slide.map, strict=True)
                    if np.isfinite(r)
                ]
    n_slides = n_cohorts * n_new
    result: dict[str, object] = {
        "cohorts": n_cohorts,
        "calibration": n_calibration,
        "new": n_new,
        "tolerance": TOLERANCE,
        "rates": {},
    }
    for rate, pairs in judged.items():
        if not pairs:
            continue
        decision, wrong = np.array([d for d, _ in pairs]), np.array([w for _, w in pairs])
        limit = rate + 1.645 * math.sqrt(
            rate * (1 - rate) / n_slides
        )  # 95 %, one-sided; signatures of a slide are one draw
        accepted = decision == ACCEPT
        risk, rejected = float((accepted & wrong).mean()), float(((decision == REJECT) & ~wrong).mean())
        result["rates"][f"{rate:g}"] = {  # type: ignore[index]
            "accepted_and_wrong": round(risk, 4), "rejected_and_right": round(rejected, 4), "limit": round(limit, 4), "within": risk <= limit and rejected <= limit,
            "accepted": round(float(accepted.mean()), 4), "rejected": round(float((decision == REJECT).mean()), 4),
            "wrong": round(float(wrong.mean()), 4), "wrong_of_accepted": round(float(wrong[accepted].mean()), 4) if accepted.any() else None,
        }  # fmt: skip
    return result


def cost(px: int = 224, n: int = 128, repeats: int = 5) -> dict[str, float]:
    """CPU time per patch of the prediction with the default network, and of the comparison beside it."""
    from spatialsig.models import SignatureViT
    from spatialsig.models.domain import SHARPNESS, STAIN, TISSUE, TrainingDomain
    from spatialsig.nn.signature import SignatureConfig
    from spatialsig.nn.vit import vit_config
    from spatialsig.stats.appearance import appearance

    scale = {"target_mean": np.zeros(6), "target_std": np.ones(6)}
    model = SignatureViT(
        SignatureConfig(vit_config("tiny"), n_targets=6), list("abcdef"), **scale, patch_px=px, um_per_px=0.5
    )
    images = np.random.default_rng(0).integers(60, 250, (n, 3, px, px), dtype=np.uint8)
    stain, sharpness = appearance(images)
    features = np.random.default_rng(1).normal(size=(n, model.net.backbone.num_features))
    names = np.array([f"P{k % 4}" for k in range(n)])
    model.domain = TrainingDomain.learn({STAIN: stain, SHARPNESS: sharpness, TISSUE: features}, names, names)

    def seconds(work: Callable[[], object]) -> float:
        work()
        times = []
        for _ in range(repeats):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return float(np.median(times))

    predict = seconds(lambda: model.predict(images))
    watch = DomainWatch(model, n, n_views=1, with_expression=False)

    def look() -> None:
        watch._features.append(features.astype(np.float32))
        watch.see(np.arange(n), images)

    compare = seconds(look)
    return {
        "predict_us": round(predict / n * 1e6, 1),
        "compare_us": round(compare / n * 1e6, 1),
        "share": round(compare / predict, 4),
    }


def main() -> None:
    """Print and record."""
    parser: argparse.ArgumentParser = record_options(
        __doc__, "trust", quick="two training slides, few others, two cohorts"
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--jobs", type=int, default=2, help="processes that make the patients of the triage")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    torch.set_num_threads(1)
    quick, started = args.quick, time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        model = train(Path(scratch), n=3 if quick else 6, size_um=300.0 if quick else 600.0, epochs=1 if quick else 6)
    result: dict[str, object] = {"quick": quick, "machine": machine(), "cost": cost(n=32 if quick else 128)}
    result |= out_of_distribution(
        model, args.data, n_held=4 if quick else 40, n_other=2 if quick else 12, size_um=300.0 if quick else 500.0
    )
    print(json.dumps(result, indent=2), flush=True)
    sizes = (
        {"n_cohorts": 2, "n_calibration": 5, "n_new": 2}
        if quick
        else {"n_cohorts": 20, "n_calibration": 20, "n_new": 5}
    )
    result["triage"] = triage(model, **sizes, size_um=250.0 if quick else 300.0, jobs=args.jobs)
    worst = {
        "auroc": min(kind["auroc_patches"] for kind in result["kinds"].values()),  # type: ignore[union-attr]
        "auroc_slides": min(kind["auroc_slides"] for kind in result["kinds"].values()),  # type: ignore[union-attr]
        "outside": min(kind["slides_outside"] for kind in result["kinds"].values()),  # type: ignore[union-attr]
        "within": sum(found["within"] for found in result["triage"]["rates"].values()),  # type: ignore[index]
    }
    result |= {"worst": worst, "seconds": round(time.perf_counter() - started, 1)}
    print(json.dumps(result, indent=2))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
