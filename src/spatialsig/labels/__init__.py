"""Labels of patches from the scores, columns and counts of their cells."""
