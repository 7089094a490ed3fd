"""Trained models: each holds its network, its scalers and its names, and is saved as a directory.

Floor 2: may import the ground floor and geometry, nn, signatures, stats, store.
"""

from __future__ import annotations

from spatialsig.models.autoencoder import Autoencoder
from spatialsig.models.cell_head import CellHead
from spatialsig.models.ensemble import SignatureEnsemble, load_signature_model
from spatialsig.models.hub import from_hub, push_to_hub
from spatialsig.models.lazyslide import LazySlideModel
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.models.seed import export_seed_autoencoder, import_seed_autoencoder
from spatialsig.models.vit import SignatureViT

__all__ = [
    "Autoencoder",
    "CellHead",
    "LazySlideModel",
    "PretrainedViT",
    "SignatureEnsemble",
    "SignatureViT",
    "export_seed_autoencoder",
    "from_hub",
    "import_seed_autoencoder",
    "load_signature_model",
    "push_to_hub",
]
