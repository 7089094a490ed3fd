"""Stores of other machines, read through fsspec; nothing is written there.

Floor 1.
"""
