"""Labels of patches from the scores, columns and counts of their cells.

Floor 5: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide.
"""
