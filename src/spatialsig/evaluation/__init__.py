"""Evaluations: held-out rows, simple predictors, metrics, noise ceiling, and reasons to doubt a score."""
