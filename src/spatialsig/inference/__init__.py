"""Image models on slides: what they learn from, how they are tuned, what they are given, and what they predict.

Floor 5: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide.
"""
