"""The two stains of H&E as everybody measures them.

Ground floor. Used by datasets/synthetic/image/appearance, nn/augment, pp/_normalize_stain.
"""

from __future__ import annotations

# Optical densities of haematoxylin and eosin in red, green, blue: Ruifrok and Johnston, Anal Quant Cytol Histol 23 (2001)
# 291-299. Not of unit length; who needs unit vectors divides by it.
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
