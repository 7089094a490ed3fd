"""Synthetic slides: tissue and counts, the picture of them, the files of an instrument, the truth."""
