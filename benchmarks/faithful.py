"""Whether maps of attribution say where a score comes from, on a slide whose cells are known.

    python benchmarks/faithful.py [--quick] [--out FOLDER]

The cohort and the model of ``cells.py`` (made there or here, kept below ``--out``): patches of the held-out patient, maps by
integrated gradients, from both baselines. For each signature: how much the score falls without the fifth of the places that adds most and without as many at
random, and the attribution per area of the nuclei of the planted type beside that of all other places. Goals: 6 of 6 signatures fall more
by what the map names, and the planted type has at least 3 times the attribution per area.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from cells import TYPE_OF, cohort_of, model_of
from machine import keep_record, machine, record_options
from scipy.spatial import cKDTree

import spatialsig as sp
from spatialsig.nn.saliency import BASELINES, GLASS, MEAN

GOALS = {"signatures": 6, "times_per_area": 3.0}
NUCLEUS_UM = 5.0  # radius of what counts as a nucleus


def per_area(slide: Any, truth: ad.AnnData, name: str) -> float:
    """Attribution of a place on a nucleus of the planted type, as a multiple of that of a place elsewhere in the same patches."""
    made = slide.attrs["spatialsig"]["attention"]["attention"]
    map_ = slide["attention"].sel(c=name).values
    y, x = np.nonzero(np.isfinite(map_))
    centres = np.array(made["origin_l0"])[::-1] + (np.stack([x, y], axis=1) + 0.5) * made["cell_l0"]
    nuclei = truth.obsm["he_px"][truth.obs["cell_type"].to_numpy() == TYPE_OF[name]]
    on = cKDTree(nuclei).query(centres)[0] * sp.io.mpp(slide) < NUCLEUS_UM
    values = map_[y, x]
    return float(values[on].mean() / abs(values[~on].mean()))


def judged(
    slide: Any, model: sp.models.SignatureViT, patches: list[int], truth: ad.AnnData, baseline: str
) -> dict[str, dict[str, float]]:
    """What the deletion test and the planted types say of the maps from one baseline, by signature."""
    found = sp.tl.attention(slide, model, patches=patches, baseline=baseline)
    return {
        row.signature: {
            "drop": row.drop, "drop_random": row.drop_random, "drop_se": row.drop_se,
            "share_faithful": row.share_faithful, "times_per_area": per_area(slide, truth, row.signature),
        }
        for row in found.itertuples()
    }  # fmt: skip


def main() -> None:
    """Measure, print and record."""
    parser = record_options(__doc__, "faithful", quick="slides of 400 µm, one epoch, 10 patches")
    parser.add_argument("--out", type=Path, default=None, help="folder of the cohort and the model, kept")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        cohort = cohort_of(out, quick=args.quick)
        model = model_of(out, cohort, quick=args.quick)
        sample = next(name for name in cohort if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0)
        slide = sp.io.read(cohort.stores[sample])
        ids = slide["patches"].index.to_numpy()
        chosen = np.random.default_rng(0).choice(ids, 10 if args.quick else 200, replace=False)
        truth = ad.read_h5ad(out / "bundles" / f"{sample}_truth.h5ad")
        each = {baseline: judged(slide, model, chosen.tolist(), truth, baseline) for baseline in BASELINES}
        rows, from_glass = each[MEAN], each[GLASS]
    result: dict[str, object] = {
        "machine": machine(), "goals": GOALS, "n_patches": len(chosen), "signatures": rows, "from_glass": from_glass,
        "n_faithful": sum(row["drop"] > row["drop_random"] + 2 * row["drop_se"] for row in rows.values()),
        "least_times_per_area": min(row["times_per_area"] for row in rows.values()),
        "least_from_glass": min(row["times_per_area"] for row in from_glass.values()),
    }  # fmt: skip
    keep_record(args.json, result, shown=["signatures", "n_faithful", "least_times_per_area", "least_from_glass"])


if __name__ == "__main__":
    main()
