"""Batches of cells and patches from Zarr stores, always in the same order."""
