"""Affine maps, patch grids and point-to-patch lookup on plain arrays."""
