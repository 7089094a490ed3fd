"""Affine maps, patch grids and point-to-patch lookup on plain arrays.

Floor 1: may import the ground floor.
"""
