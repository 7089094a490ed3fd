"""Slides, frames, folds, and batches of cells and patches from a Zarr store."""
