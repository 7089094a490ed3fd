"""Slides and their patches, opened once and read as far as needed: coordinates, folds, counts, rows of tables, what each result was made from.

Floor 4: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train.
"""
