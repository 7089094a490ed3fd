"""Parts of figures: canvas, tissue below, patches, panels, and the numbers that they show."""
