"""Batches of cells and patches from Zarr stores or memory, always in the same order.

Floor 2: may import the ground floor and geometry, nn, signatures, stats, store.
"""
