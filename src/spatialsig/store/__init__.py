"""Zarr stores that survive interruptions: layout of pixels, streaming writes, safe replacement of elements."""
