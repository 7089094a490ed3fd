"""Evaluations: held-out rows, simple predictors, metrics, noise ceiling, and reasons to doubt a score.

Floor 6: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels.
"""
