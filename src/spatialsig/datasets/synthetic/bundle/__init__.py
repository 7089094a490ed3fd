"""Files of a Xenium output folder written from a synthetic slide."""
