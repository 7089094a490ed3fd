"""Fits of cells to nuclei on the H&E, and the place of the image that follows."""
