"""Real slides through the readers: what is read, and figures to look at.

    python benchmarks/real_slides.py --data FOLDER [--out FOLDER] [--json FILE]

A scanner's SVS, two sections of her2st (and the same with red and blue swapped, which must be named), a tiny Xenium
bundle with its DAPI image, and an alignment file of Xenium Ranger. Figures go to ``--out``; they are not kept.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from her2st import read_section

import spatialsig as sp
from spatialsig.errors import SpatialsigWarning
from spatialsig.geometry.affine import image_um_per_px, read_alignment

mpl.use("Agg")
import matplotlib.pyplot as plt

PIXEL_SIZE = 0.2125


def scanner(data: Path, out: Path) -> dict[str, Any]:
    slide = sp.io.read_he(data / "wsi" / "CMU-1-Small-Region.svs")
    sp.pp.find_tissue(slide)
    sp.pp.make_patches(slide, patch_px=224, um_per_px=0.5)
    sp.pl.patches(slide, tissue_key="tissue", save=out / "cmu.png")
    return {"um_per_px": sp.io.mpp(slide), "patches": len(slide["patches"])}


def section(data: Path, out: Path, name: str) -> dict[str, Any]:
    adata, um_per_px = read_section(data / "her2st", name)
    image = data / "her2st" / "images" / f"{name}.jpg"
    slide = sp.io.from_anndata(adata, image, um_per_px=um_per_px, sample=name, spot_um=100)
    sp.pp.find_tissue(slide)
    sp.pp.make_patches(slide, patch_px=224, um_per_px=0.75, around="table", min_tissue=0)
    sp.pl.patches(slide, tissue_key="tissue", cells_key="table", save=out / f"{name}.png")
    pixels = np.asarray(slide["he_image"]["scale0"]["image"].data)[::-1]
    swapped = sp.io.from_anndata(adata, np.moveaxis(pixels, 0, -1), um_per_px=um_per_px, sample=name, spot_um=100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        sp.pp.find_tissue(swapped)
    named = any("BGR" in str(one.message) for one in caught)
    return {"um_per_px": um_per_px, "spots": adata.n_obs, "patches": len(slide["patches"]), "swapped_named": named}


def bundle(data: Path, out: Path) -> dict[str, Any]:
    slide = sp.io.read_xenium(data / "xenium_mouse_ileum_tiny", morphology=True, boundaries=True)
    cells = slide["table"]
    xy = cells.obsm["spatial"] / slide.attrs["spatialsig"]["um_per_global_px"]
    low = np.maximum(xy.min(axis=0) - 150, 0).astype(int)
    high = (xy.max(axis=0) + 150).astype(int)
    dapi = np.asarray(slide["morphology_focus"]["scale0"]["image"][0].data)[low[1] : high[1], low[0] : high[0]]
    figure, axes = plt.subplots(figsize=(9, 6))
    box = (low[0], low[0] + dapi.shape[1], low[1] + dapi.shape[0], low[1])
    axes.imshow(dapi, cmap="gray", vmax=np.percentile(dapi, 99.9), extent=box)
    axes.plot(*xy.T, "o", mfc="none", mec="cyan", ms=12)
    axes.set(title="cells (circles) on DAPI", xlabel="morphology px", ylabel="morphology px")
    figure.savefig(out / "ileum.png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return {"cells": cells.n_obs, "genes": cells.n_vars}


def alignment(data: Path) -> dict[str, Any]:
    file = next((data / "alignment_examples").glob("*_he_imagealignment.csv"))
    read = read_alignment(file, pixel_size=PIXEL_SIZE)
    turn = np.degrees(np.arctan2(read.matrix[1, 0], read.matrix[0, 0]))
    return {"kind": read.kind, "um_per_px": image_um_per_px(read.matrix, PIXEL_SIZE), "turned_deg": float(turn)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path("real_slides"))
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "real_slides.json")
    args = parser.parse_args()
    sp.settings.progress = False
    args.out.mkdir(parents=True, exist_ok=True)
    results = {
        "CMU-1-Small-Region": scanner(args.data, args.out),
        "her2st B4": section(args.data, args.out, "B4"),
        "her2st C2": section(args.data, args.out, "C2"),
        "Xenium mouse ileum": bundle(args.data, args.out),
        "alignment of a melanoma": alignment(args.data),
    }
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
