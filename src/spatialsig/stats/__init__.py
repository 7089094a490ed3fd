"""Pure numpy and numba: moments, scores, grouped means and medians, correlations, noise ceiling."""
