"""Expression of cells: training an autoencoder on the counts of many slides, and embedding cells with it."""
