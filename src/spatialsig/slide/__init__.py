"""Slides and their patches, opened once and read as far as needed: coordinates, folds, counts, rows of tables."""
