"""Untrained models that are quick to ask, and slides whose labels follow their predictions."""

import numpy as np
import spatialdata as sd
import torch
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import spatialsig as sp
from spatialsig import _keys
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig
from spatialsig.slide.slides import Slide

VIT = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0))
NAMES = ("Immune_T", "Fibroblast", "Absent")
PX, UM_PER_PX, UM_PER_GLOBAL = 32, 2.0, 0.25


def tiny(seed: int = 0, *, n_latent: int = 0, gaussian: bool = False, **run: object) -> sp.models.SignatureViT:
    torch.manual_seed(seed)
    model = sp.models.SignatureViT(
        SignatureConfig(VIT, len(NAMES), n_latent, "add" if n_latent else "none", gaussian=gaussian),
        NAMES,
        target_mean=np.array([0.5, -1.0, 0.0]),
        target_std=np.array([1.0, 2.0, 1.0]),
        patch_px=PX,
        um_per_px=UM_PER_PX,
        run={"test_fold": 0, "validation_fold": None, "use_rep": None, "training_samples": ["A"], "seed": seed} | run,
    )
    for parameter in model.net.fusion.parameters():  # gates start shut
        torch.nn.init.normal_(parameter)
    if gaussian:
        torch.nn.init.normal_(model.net.spread.weight, std=0.8)
        model.net.head[0].weight.data *= 3
    return model


def bare(name: str, *, seed: int = 0, fold: int = 0, stride_um: float = 16.0, size: int = 160) -> sd.SpatialData:
    """Blots on paper, cut into patches; no cells."""
    rng = np.random.default_rng(seed)
    blots = gaussian_filter(rng.random((3, size, size)), (0, 2, 2)) - 0.5
    light = np.linspace(60, 230, size)  # darker to the left
    pixels = np.clip(light + 500 * blots, 0, 255).astype(np.uint8)
    to_global = Scale([UM_PER_PX / UM_PER_GLOBAL] * 2, axes=("x", "y"))
    image = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=("r", "g", "b"), transformations={_keys.GLOBAL: to_global}
    )
    attrs = {"sample": name, "patient": f"P-{name}", "um_per_global_px": UM_PER_GLOBAL}
    attrs["split"] = {"by": "slide", "n_folds": 2, "seed": 0, "fold": fold}
    sdata = sd.SpatialData(images={_keys.IMAGE: image}, attrs={_keys.NAMESPACE: attrs})
    sp.pp.make_patches(sdata, patch_px=PX, um_per_px=UM_PER_PX, stride_um=stride_um, min_tissue=0)
    return sdata


def labelled(name: str, model: sp.models.SignatureViT, *, noise: float = 0.3, **options: object) -> sd.SpatialData:
    """A slide whose measured scores are the model's plus noise of a known size; the last signature is not measured."""
    sdata = bare(name, **options)
    sp.tl.predict(sdata, model, key_added="truth")
    truth = sdata["truth"]
    rng = np.random.default_rng(len(name) + ord(name[0]))
    spread = truth.layers["std"] if "std" in truth.layers else np.ones(truth.shape)
    measured = truth.X + rng.normal(scale=noise, size=truth.shape) * spread
    measured[:, -1] = np.nan
    table = Slide(sdata).patches().table(measured, NAMES, n_cells=np.full(len(measured), 20))
    table.obsm["X_id"] = rng.normal(size=(len(measured), 4)).astype(np.float32)
    sdata[_keys.SIGNATURES] = table
    del sdata["truth"]
    return sdata
