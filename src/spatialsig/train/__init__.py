"""Training loops on plain arrays and patch sources, through Lightning.

Floor 3: may import the ground floor and geometry, nn, signatures, stats, store, data, models.
"""

from __future__ import annotations

from spatialsig.train.autoencoder import fit_autoencoder
from spatialsig.train.vit import fit_vit

__all__ = ["fit_autoencoder", "fit_vit"]
