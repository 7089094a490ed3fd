"""Slides that are an image file and nothing else: found, predicted one by one, and shown on one page.

Floor 11: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide,
expression, inference, labels, evaluation, io, pl, pp, tl, atlas, datasets, maps, cohort, report.
"""

from .from_files import FORMATS, predict_files
from .listing import SlideImage, list_images

__all__ = ["FORMATS", "SlideImage", "list_images", "predict_files"]
