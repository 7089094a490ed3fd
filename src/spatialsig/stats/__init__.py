"""Pure functions of arrays, no slide: moments, scores, grouped means and medians, correlations, noise ceiling, stains.

Floor 1: may import the ground floor.
"""
