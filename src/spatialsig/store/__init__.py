"""Zarr stores that survive interruptions: layout of pixels, streaming writes, safe replacement of elements.

Floor 1: may import the ground floor.
"""
