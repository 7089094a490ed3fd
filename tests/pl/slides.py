"""Small slides with planted score fields, for everything that draws."""

from pathlib import Path

import numpy as np
import pandas as pd
import spatialdata as sd
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine

import spatialsig as sp
from spatialsig import _keys
from spatialsig.slide.slides import Slide

UM_PER_PX, UM_PER_GLOBAL = 0.5, 0.2125
SIGNATURES = ("Immune_T", "Fibroblast")


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """H&E-like pixels ``(3, h, w)``: pink ground, purple nuclei."""
    rng = np.random.default_rng(seed)
    nuclei = np.clip(gaussian_filter((rng.random((height, width)) < 0.004).astype(float), 3) * 60, 0, 1)
    stroma = gaussian_filter(rng.normal(size=(height, width)), 25)
    eosin = 0.25 + 0.15 * (stroma > 0)
    stain = nuclei[None] * np.array([0.65, 0.70, 0.29])[:, None, None] * 1.3
    stain = stain + eosin[None] * np.array([0.07, 0.99, 0.11])[:, None, None]
    return (255 * np.exp(-stain)).astype(np.uint8)


def smooth(xy: np.ndarray, seed: int) -> np.ndarray:
    """A smooth field over positions (µm)."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(scale=2 * np.pi / 350, size=(6, 2))
    return np.cos(xy @ waves.T + rng.uniform(0, 6.3, 6)).sum(axis=1) / 3


def make_slide(
    name: str = "S1",
    *,
    size: tuple[int, int] = (480, 720),
    fold: int = 0,
    stride_um: float | None = None,
    signatures: tuple[str, ...] = SIGNATURES,
    noise: float = 0.5,
    seed: int = 0,
) -> sd.SpatialData:
    """A slide with patches, measured scores (some NaN) and predictions; the H&E lies mirrored in ``global``."""
    scale = UM_PER_PX / UM_PER_GLOBAL
    mirrored = Affine(
        np.array([[-scale, 0, scale * size[1]], [0, scale, 0], [0, 0, 1]]),
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    image = Image2DModel.parse(
        stained(*size, seed), dims=("c", "y", "x"), c_coords=("r", "g", "b"), scale_factors=[2, 2],
        transformations={_keys.GLOBAL: mirrored},
    )  # fmt: skip
    attrs = {
        "sample": name, "patient": f"patient-{name}", "um_per_global_px": UM_PER_GLOBAL,
        "split": {"by": "patient", "n_folds": 2, "seed": 0, "fold": fold},
    }  # fmt: skip
    sdata = sd.SpatialData(images={_keys.IMAGE: image}, attrs={_keys.NAMESPACE: attrs})
    sp.pp.make_patches(sdata, patch_px=32, um_per_px=1.0, stride_um=stride_um, min_tissue=0)
    slide = Slide(sdata)
    xy = sdata.shapes[_keys.PATCHES][[_keys.X0, _keys.Y0]].to_numpy(float) * UM_PER_PX
    truth = np.stack([smooth(xy, seed * 10 + j) for j in range(len(signatures))], axis=1)
    rng = np.random.default_rng(seed)
    measured = truth + rng.normal(scale=noise * 0.5, size=truth.shape)
    measured[rng.random(len(xy)) < 0.1] = np.nan
    predicted = 0.7 * truth + rng.normal(scale=noise * 0.3, size=truth.shape)
    add_tables(slide, measured, predicted, signatures)
    return sdata


def add_tables(slide: Slide, measured: np.ndarray, predicted: np.ndarray, signatures: tuple[str, ...]) -> None:
    n_cells = np.full(len(measured), 20)
    for key, values in ((_keys.SIGNATURES, measured), (_keys.SIGNATURES_PRED, predicted)):
        table = slide.patches().table(values, signatures, n_cells=n_cells)
        table.var[_keys.N_GENES_PANEL], table.var[_keys.N_GENES_MEASURED] = 12, 9
        table.obs["n_counts"] = 150.0
        slide.put(key, table)


METHODS = {
    "train_mean": 0.0, "coordinates": 0.01, "density": 0.16, "colour": 0.4, "he_only_permuted": -0.01,
    "fused_permuted": 0.55, "ae_only": 0.7, "fused": 0.88, "he_only": 0.8, "neighbours": 0.75, "hand_features": 0.6,
    "embedding": 0.65,
}  # fmt: skip


def make_evaluation(
    samples: tuple[str, ...] = ("S1", "S2"), signatures: tuple[str, ...] = SIGNATURES, seed: int = 0
) -> pd.DataFrame:
    """A table as ``tl.evaluate`` makes it, methods out of order on purpose."""
    rng = np.random.default_rng(seed)
    rows = []
    for method, r in METHODS.items():
        for signature in signatures:
            for sample in samples:
                pearson = r + rng.normal(scale=0.03)
                rows.append(
                    {
                        "method": method, "signature": signature, "sample": sample, "patient": f"patient-{sample}",
                        "n_patches": 300, "pearson": pearson, "spearman": pearson - 0.02, "r2": pearson**2, "mae": 0.3,
                        "ceiling": 0.95, "share_of_ceiling": pearson / 0.95,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def make_history(epochs: int = 20, *, validated: bool = True, pearson: bool = False) -> pd.DataFrame:
    epoch = np.arange(epochs)
    val = 0.3 + np.exp(-epoch / 4) + 0.004 * epoch
    table = {
        "epoch": epoch,
        "train_loss": 0.25 + np.exp(-epoch / 5),
        "val_loss": val if validated else np.full(epochs, np.nan),
        "lr": 2e-3 * np.sin(np.pi * (epoch + 1) / (epochs + 1)),
        "seconds": np.full(epochs, 3.0),
    }
    if pearson:
        table["val_pearson"] = 0.8 * (1 - np.exp(-epoch / 5))
    return pd.DataFrame(table)


class Stores:
    """What a cohort looks like to a function."""

    def __init__(self, stores: dict[str, Path]) -> None:
        self.stores = stores


def make_stores(root: Path, slides: dict[str, dict]) -> Stores:
    """Slides on disk, each made with its options."""
    sp.settings.progress = False
    stores = {name: root / f"{name}.zarr" for name in slides}
    for seed, (name, options) in enumerate(slides.items()):
        make_slide(name, seed=seed, **options).write(stores[name])
    return Stores(stores)
