"""Statistics of H&E pixels: stain, quality, and simple features."""
