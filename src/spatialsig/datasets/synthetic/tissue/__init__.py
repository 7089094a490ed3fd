"""Cells, counts and shapes of a synthetic tissue, in um."""
